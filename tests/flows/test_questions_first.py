"""A question that is being answered goes before documents, and none of them waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rag_service.ingest.precedence import Precedence
from rag_service.ingest.stages import Stages
from rag_service.retrieval.retriever import Retriever
from tests.conftest import Service, Started, settings_for

LONG = 30.0


class Held:
    """Questions that wait within the retriever until they are released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arrived, self.released = threading.Semaphore(0), threading.Event()
        retrieve = Retriever.retrieve

        def hold(*question: Any) -> Any:
            self.arrived.release()
            assert self.released.wait(LONG)
            return retrieve(*question)

        monkeypatch.setattr(Retriever, "retrieve", hold)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    questions = Held(monkeypatch)
    yield questions
    questions.released.set()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Started(settings_for(tmp_path)) as started:
        yield started


def would_wait(precedence: Precedence) -> bool:
    return not precedence._nobody_asks.is_set()


def test_who_works_on_documents_waits_until_the_last_question_is_answered() -> None:
    precedence, went = Precedence(LONG), threading.Event()
    thread = threading.Thread(target=lambda: (precedence.give_way(), went.set()))
    with precedence.asking():
        with precedence.asking():
            thread.start()
        assert not went.wait(0.2)
    assert went.wait(LONG)
    thread.join()


def test_questions_without_end_hold_documents_up_for_a_moment_only() -> None:
    precedence = Precedence(patience_s=0.01)
    with precedence.asking():
        for _ in range(10):
            precedence.give_way()


def test_a_question_that_fails_holds_nobody_up_afterwards() -> None:
    precedence = Precedence(LONG)
    with pytest.raises(ValueError, match="no answer"), precedence.asking():
        raise ValueError("no answer")
    assert not would_wait(precedence)


def test_a_job_gives_way_before_each_of_its_stages() -> None:
    gave_way: list[str] = []
    stages = Stages("index", lambda: gave_way.append(stages.current))
    stages.enter("parse")
    stages.enter("chunk")
    stages.leave()
    assert gave_way == ["index", "parse"]


def test_documents_give_way_to_a_question_and_become_searchable_all_the_same(service: Service, held: Held) -> None:
    team, precedence = service.new_team(), service.runtime.runner.precedence
    with ThreadPoolExecutor(1) as asking:
        answer = asking.submit(team.client("query").post, "/v1/retrieve", json={"query": "parental leave"})
        assert held.arrived.acquire(timeout=LONG)
        assert would_wait(precedence)
        document = team.put("Parental leave lasts sixteen weeks.")
        team.drain()
        held.released.set()
        assert answer.result().status_code == 200
    assert team.document(document["id"])["status"] == "ready"
    assert not would_wait(precedence)


def test_who_is_refused_holds_nobody_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(Precedence, "_count", lambda _, change: asked.append(change))
    assert service.client("no such key").post("/v1/retrieve", json={"query": "leave"}).status_code == 401
    assert service.new_team().manager.get("/v1/documents").status_code == 200
    assert asked == []
    assert service.new_team().client("query").post("/v1/retrieve", json={}).status_code == 422
    assert asked == [1, -1]
