"""A question that is being answered goes before documents, and none of them waits for ever."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from rag_service.db.jobs import Job
from rag_service.ingest import sync as syncing
from rag_service.ingest.calibration import FIRST_AFTER
from rag_service.ingest.precedence import Precedence
from rag_service.ingest.runner import Runner
from rag_service.ingest.stages import Stages
from rag_service.retrieval.retriever import Retriever
from rag_service.types import JobKind, JobState
from tests.conftest import Service, Started, settings_for
from tests.index_builds import begin

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


@pytest.fixture
def gave_way(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often jobs of each kind let questions by, once they had begun."""
    times: Counter[str] = Counter()
    at_work: ContextVar[str] = ContextVar("at_work")
    give_way, work = Precedence.give_way, Runner._work

    def noted_work(runner: Runner, job: Job, stages: Stages) -> JobState | None:
        at_work.set(job.kind)
        return work(runner, job, stages)

    def noted(precedence: Precedence) -> None:
        times[at_work.get("")] += 1
        give_way(precedence)

    monkeypatch.setattr(Runner, "_work", noted_work)
    monkeypatch.setattr(Precedence, "give_way", noted)
    return times


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Service]:
    """Work is done when a test says so."""
    with Started(settings_for(tmp_path), worker=False) as started:
        yield started


def test_whoever_works_on_many_documents_gives_way_at_each_of_them(idle: Service, gave_way: Counter[str]) -> None:
    team, count = idle.new_team(), FIRST_AFTER
    for number in range(count):
        team.put(f"Leave number {number} lasts sixteen weeks.")
    idle.work()
    assert gave_way[JobKind.CALIBRATE] >= 2 * count  # to encode and to write
    begin(team)
    idle.work()
    assert gave_way[JobKind.BUILD] >= count


def test_a_sync_gives_way_at_each_of_its_batches(
    idle: Service, gave_way: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syncing, "_BATCH", 2)
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.txt").write_text(f"Leave number {number} lasts sixteen weeks.")
    team = idle.new_team()
    source = team.admin.post("/v1/sources", json={"name": "docs", "type": "files", "config": {"root": str(folder)}})
    assert team.manager.post(f"/v1/sources/{source.json()['id']}/sync").status_code == 202
    idle.work()
    assert gave_way[JobKind.SYNC] >= 3


def test_who_is_refused_holds_nobody_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(Precedence, "_count", lambda _, change: asked.append(change))
    assert service.client("no such key").post("/v1/retrieve", json={"query": "leave"}).status_code == 401
    assert service.new_team().manager.get("/v1/documents").status_code == 200
    assert asked == []
    assert service.new_team().client("query").post("/v1/retrieve", json={}).status_code == 422
    assert asked == [1, -1]
