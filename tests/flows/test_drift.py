"""Answers to live questions are counted, and told of once they become others than they were."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from rag_service.access import Principal
from rag_service.db import Database, answers, collections
from rag_service.db.answers import EMPTY, UNSCORED, hour_of
from rag_service.db.outside import outbox, webhooks
from rag_service.retrieval.plan import RetrievalRequest
from rag_service.retrieval.probing.drift import AnswerLog
from rag_service.types import new_id, utc_now
from tests.conftest import Service, Started, Team, settings_for

MINIMUM = 20


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = settings_for(tmp_path_factory.mktemp("drifting"), drift_min_answers=MINIMUM)
    with Started(settings, worker=False) as service:
        yield service


@pytest.fixture
def team(own: Service) -> Team:
    team = own.new_team()
    row = {"id": new_id("whk"), "team_id": team.id, "url": "https://nowhere.invalid/", "events": ["probe.failed"]}
    more: dict[str, Any] = {"description": "", "secrets": [], "enabled": False, "created_at": utc_now()}
    with own.runtime.database.transaction() as transaction:
        transaction.connection.execute(insert(webhooks).values(**row, **more))
    team.put("Turnips are grown in rows.", external_id="turnips", metadata={"area": "garden"})
    own.work()
    return team


def told(team: Team) -> list[Mapping[str, Any]]:
    with team.service.runtime.database.read() as connection:
        query = select(outbox.c.data).where(outbox.c.team_id == team.id).order_by(outbox.c.id)
        return list(connection.execute(query).scalars())


def index_of(team: Team) -> str:
    with team.service.runtime.database.read() as connection:
        place = collections.get(connection, team.id, "default")
        return collections.active_index(connection, place.id).id


def happened(team: Team, counted: Mapping[int, int], *, hours_ago: int, index: str | None = None) -> None:
    """So many answers of each outcome were given then."""
    hour = hour_of(utc_now() - timedelta(hours=hours_ago))
    with team.service.runtime.database.transaction() as transaction:
        found = index or index_of(team)
        answers.add(transaction.connection, {(found, hour, outcome): count for outcome, count in counted.items()})


def ask(team: Team, count: int, **more: Any) -> None:
    for _ in range(count):
        team.retrieve("turnips in rows", **more)
    team.service.runtime.probing.answers.flush()


def health(team: Team) -> dict[str, Any]:
    answer = team.manager.get("/v1/collections/default/health")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["answers"]
    return found


def counts(team: Team) -> dict[int, int]:
    with team.service.runtime.database.read() as connection:
        index = index_of(team)
        day = timedelta(hours=24)
        newest, _ = answers.windows(connection, utc_now(), day, day, index)[index]
    return dict(newest.by_outcome)


NOTHING = {"filter": {"area": "payroll"}}


class TestLiveAnswers:
    def test_are_counted_by_the_hour_and_by_what_became_of_them(self, team: Team) -> None:
        ask(team, 3)
        ask(team, 2, **NOTHING)
        ask(team, 1, mode="lexical")
        ask(team, 1, fusion={"method": "rrf"})
        counted = counts(team)
        assert (counted.pop(EMPTY), counted.pop(UNSCORED)) == (2, 2)
        assert list(counted.values()) == [3]
        seen = health(team)
        assert (seen["newest"]["answers"], seen["newest"]["empty"], seen["reference"]["answers"]) == (7, 2, 0)
        assert seen["scores"]["state"] == seen["empties"]["state"] == "unknown"

    def test_of_several_collections_have_no_scale_and_are_left_out(self, team: Team) -> None:
        team.manager.post("/v1/collections", json={"name": "garden"}).raise_for_status()
        ask(team, 2, collections=["default", "garden"])
        ask(team, 1)
        assert sum(counts(team).values()) == 1

    def test_leave_nothing_of_what_was_asked(self, team: Team) -> None:
        ask(team, 1)
        with team.service.runtime.database.read() as connection:
            columns = set(connection.execute(text("SELECT * FROM answer_counts LIMIT 1")).keys())
        assert columns == {"index_version", "hour", "outcome", "answers"}

    def test_without_a_hit_raise_an_alarm_once_and_once_when_that_is_over(self, team: Team) -> None:
        watch = team.service.runtime.probing.watch
        happened(team, {EMPTY: 5, 30: 300}, hours_ago=30)
        ask(team, 30, **NOTHING)
        for _ in range(2):
            watch.look()
        assert health(team)["empties"]["state"] == "failing"
        assert health(team)["empties"]["measured"] == pytest.approx(1 - 5 / 305)
        (event,) = told(team)
        assert (event["check"], event["state"], event["severity"]) == ("empty_rate", "failing", "warning")
        assert metric(team.service, 'rag_alarms{kind="empty_rate"}') >= 1
        forget(team)
        happened(team, {EMPTY: 5, 30: 300}, hours_ago=30)
        happened(team, {30: 50}, hours_ago=1)
        watch.look()
        assert [(event["check"], event["state"]) for event in told(team)] == [
            ("empty_rate", "failing"),
            ("empty_rate", "ok"),
        ]

    def test_whose_scores_have_become_others_raise_an_alarm(self, team: Team) -> None:
        happened(team, dict.fromkeys(range(25, 35), 40), hours_ago=40)
        happened(team, dict.fromkeys(range(25, 35), 20), hours_ago=2)
        team.service.runtime.probing.watch.look()
        assert (health(team)["scores"]["state"], told(team)) == ("ok", [])
        happened(team, dict.fromkeys(range(5, 15), 60), hours_ago=1)
        team.service.runtime.probing.watch.look()
        assert health(team)["scores"]["state"] == "failing"
        assert [event["check"] for event in told(team)] == ["scores"]
        assert team.manager.get("/v1/collections/default/health").json()["state"] == "failing"

    def test_stay_as_they_were_called_while_there_are_too_few_to_say(self, team: Team) -> None:
        happened(team, {EMPTY: 5, 30: 300}, hours_ago=30)
        happened(team, {EMPTY: 30}, hours_ago=1)
        team.service.runtime.probing.watch.look()
        forget(team)
        team.service.runtime.probing.watch.look()
        assert [event["state"] for event in told(team)] == ["failing"]

    def test_of_a_former_index_version_are_not_compared_with_those_of_the_active_one(self, team: Team) -> None:
        """Another model scores otherwise: that is no drift."""
        happened(team, dict.fromkeys(range(25, 35), 40), hours_ago=40, index="idx_former")
        happened(team, dict.fromkeys(range(5, 15), 60), hours_ago=1)
        team.service.runtime.probing.watch.look()
        assert health(team)["scores"]["state"] == "unknown"
        assert told(team) == []

    def test_of_before_the_reference_are_forgotten(self, team: Team) -> None:
        happened(team, {30: 5}, hours_ago=24 + 168 + 24 + 2)
        happened(team, {30: 7}, hours_ago=24 + 168 - 2)
        team.service.runtime.probing.watch.look()
        with team.service.runtime.database.read() as connection:
            left = text("SELECT sum(answers) FROM answer_counts WHERE index_version = :index")
            assert connection.execute(left, {"index": index_of(team)}).scalar() == 7


def forget(team: Team) -> None:
    with team.service.runtime.database.transaction() as transaction:
        gone = text("DELETE FROM answer_counts WHERE index_version = :index")
        transaction.connection.execute(gone, {"index": index_of(team)})


def metric(service: Service, name: str) -> float:
    service.runtime.state.forget()
    lines = service.admin.get("/metrics").text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


def test_counting_costs_a_question_less_than_a_tenth_of_a_millisecond(own: Service, team: Team) -> None:
    runtime = own.runtime
    answer = runtime.retriever.retrieve(RetrievalRequest("turnips in rows"), Principal(team.id, manages=True))
    log, count = AnswerLog(runtime.database), 20_000
    began = time.process_time()
    for _ in range(count):
        log.record(answer)
    log.close()
    # All that is spent on it, the writing included.
    assert (time.process_time() - began) / count < 1e-4
    assert sum(counts(team).values()) == count


def test_processes_that_count_at_once_lose_nothing(own: Service, team: Team) -> None:
    databases = [Database(own.runtime.settings.sql_url) for _ in range(2)]
    logs = [AnswerLog(database) for database in databases]
    hour, index = hour_of(utc_now()), index_of(team)
    for number in range(200):
        logs[number % 2]._writer.add((index, hour, number % 3))
    for log, database in zip(logs, databases, strict=True):
        log.close()
        database.close()
    assert counts(team) == {0: 67, 1: 67, 2: 66}
