"""The wire of the doorbell, over a real Redis: what goes wrong on it never reaches a write."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dramatiq
import pytest

from rag_service.errors import ConfigError, RetryableError
from rag_service.queue import Broker, Sender, check, make_broker
from tests.distributed.servers import RedisServer, redis_server

QUEUES = ["uploads", "bulk"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def broker(server: RedisServer) -> Iterator[Broker]:
    server.client().flushall()
    broker = make_broker(server.url, QUEUES)
    yield broker
    broker.close()


def wait_until_heard(heard: list[str], count: int) -> None:
    deadline = time.monotonic() + 20
    while len(heard) < count:
        assert time.monotonic() < deadline, heard
        time.sleep(0.02)


def test_a_message_reaches_the_queue_that_it_names(broker: Broker) -> None:
    heard: list[str] = []
    dramatiq.actor(actor_name="index", queue_name="uploads", broker=broker)(heard.append)
    worker = dramatiq.Worker(broker, queues={"bulk"}, worker_threads=1, worker_timeout=100)
    worker.start()
    try:
        assert Sender(broker).send("uploads", "index", "job_1")
        assert Sender(broker).send("bulk", "index", "job_2")
        wait_until_heard(heard, 1)
        assert heard == ["job_2"]
    finally:
        worker.stop()


def test_messages_that_nobody_can_read_take_no_good_ones_with_them(broker: Broker, server: RedisServer) -> None:
    heard: list[str] = []
    dramatiq.actor(actor_name="index", queue_name="bulk", broker=broker)(heard.append)
    sender, redis = Sender(broker), server.client()
    for number in range(3):
        sender.send("bulk", "index", f"job_{number}")
        for junk in (b"\xff not json", b"[]", b'{"unknown": 1}', b'"text"'):
            name = f"junk-{number}-{junk!r}"
            redis.hset("dramatiq:bulk.msgs", name, junk)
            redis.rpush("dramatiq:bulk", name)
    worker = dramatiq.Worker(broker, queues={"bulk"}, worker_threads=4, worker_timeout=100)
    worker.start()
    try:
        wait_until_heard(heard, 3)
        assert sorted(heard) == ["job_0", "job_1", "job_2"]
    finally:
        worker.stop()


def test_a_redis_that_is_down_fails_no_write_and_is_used_again_when_it_is_back(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        broker = make_broker(server.url, QUEUES)
        sender = Sender(broker)
        assert sender.send("bulk", "index", "job_1")
        server.kill()
        began = time.monotonic()
        assert [sender.send("bulk", "index", f"job_{number}") for number in range(50)] == [False] * 50
        assert time.monotonic() - began < 5
        with pytest.raises(RetryableError, match="Redis"):
            check(broker)
        server.start()
        time.sleep(1.1)
        assert sender.send("bulk", "index", "job_2")
        # Appended to a file: what was acknowledged before the kill is there still.
        assert server.client().llen("dramatiq:bulk") == 2
        broker.close()


def test_a_redis_that_hangs_holds_nobody_up_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker = make_broker(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", QUEUES)
        began = time.monotonic()
        told: list[bool] = []
        thread = threading.Thread(target=lambda: told.append(Sender(broker).send("bulk", "index", "job_1")))
        thread.start()
        thread.join(30)
        assert told == [False]
        assert time.monotonic() - began < 25
        broker.close()


def test_a_redis_that_evicts_is_refused(tmp_path: Path) -> None:
    with redis_server(tmp_path, maxmemory_policy="allkeys-lru") as server:
        broker = make_broker(server.url, QUEUES)
        with pytest.raises(ConfigError, match="noeviction"):
            check(broker)
        server.client().config_set("maxmemory-policy", "noeviction")
        check(broker)
        broker.close()


def test_without_redis_there_is_nothing_to_check() -> None:
    check(make_broker(None, QUEUES))
