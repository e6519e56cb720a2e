"""A killed service loses no event: what was committed is told after the next start, with the same id."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_service.webhooks.signing import verify
from tests.chaos.process import ServiceProcess, service_process
from tests.receiver import Message, Receiver, receiving

# Deliveries that a killed process had taken are free again after 5 s and three times this.
TELLING = {"RAG_WEBHOOK_PRIVATE_ADDRESSES": "true", "RAG_WEBHOOK_TIMEOUT_S": "0.5"}
DOCUMENTS = 4


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def hook(service: ServiceProcess, receiver: Receiver) -> str:
    """Makes a team with a webhook; returns the secret."""
    service.make_team()
    body = {"url": receiver.url(), "events": ["document.ready"]}
    return str(service.request("POST", "/v1/webhooks", json=body)["secret"])


def put(service: ServiceProcess, number: int) -> str:
    body = {"text": f"Text {number}.", "acl": {"public": True}}
    return str(service.request("POST", "/v1/documents", json=body)["id"])


def are_ready(service: ServiceProcess, ids: list[str]) -> bool:
    listed = service.request("GET", "/v1/documents", params={"status": "ready", "limit": 100})["data"]
    return set(ids) <= {document["id"] for document in listed}


def killed_before_telling(tmp_path: Path, receiver: Receiver, *flags: str) -> list[str]:
    """Kill it when documents are committed and nobody has accepted a word of it, then start it again."""
    receiver.answer = lambda _: 503
    with service_process(tmp_path / "data", *flags, **TELLING) as service:
        service.start()
        hook(service, receiver)
        ids = [put(service, number) for number in range(DOCUMENTS)]
        deadline = time.monotonic() + 60
        while not are_ready(service, ids):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        service.kill()
        receiver.messages.clear()
        receiver.answer = lambda _: 204
        service.start()
        deadline = time.monotonic() + (10 if flags else 60)
        while len({message.id for message in receiver.messages}) < DOCUMENTS and time.monotonic() < deadline:
            time.sleep(0.1)
    told = {message.event["data"]["document_id"] for message in receiver.messages}
    return [one for one in ids if one not in told]


@pytest.mark.slow
def test_what_was_committed_before_a_kill_is_told_after_it(tmp_path: Path, receiver: Receiver) -> None:
    assert killed_before_telling(tmp_path, receiver) == []


@pytest.mark.slow
def test_a_service_that_writes_events_after_the_commit_would_be_noticed(tmp_path: Path, receiver: Receiver) -> None:
    assert killed_before_telling(tmp_path, receiver, "--mutant=told_after_the_commit") != []


@pytest.mark.slow
def test_a_kill_in_the_middle_of_telling_repeats_a_message_with_its_id(tmp_path: Path, receiver: Receiver) -> None:
    killed = threading.Event()

    def answer(_: Message) -> int:
        killed.wait(timeout=60)
        return 204

    receiver.answer = answer
    with service_process(tmp_path / "data", **{**TELLING, "RAG_WEBHOOK_TIMEOUT_S": "5"}) as service:
        service.start()
        secret = hook(service, receiver)
        document = put(service, 1)
        (first,) = receiver.wait_for(1)
        service.kill()
        killed.set()
        service.start()
        second = receiver.wait_for(2)[1]
    assert (first.id, first.body) == (second.id, second.body)
    assert second.event["data"]["document_id"] == document
    for message in (first, second):
        assert verify(secret, message.headers, message.body, now=time.time()) == first.id
