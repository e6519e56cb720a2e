"""Probes through HTTP: what they notice, that they tell of it once, and that a search that leaks is caught by them.

The worker of this service is this thread: what is queued runs when a test says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from rag_service.access import MANAGE, AccessScope
from rag_service.db import Connection, chunks, jobs, probes
from rag_service.db.jobs import JobFilter
from rag_service.db.outside import outbox, webhooks
from rag_service.errors import RetryableError
from rag_service.types import ConfirmedChunk, JobKind, JobState, new_id, utc_now
from rag_service.vectors.base import Candidate, SearchRequest, VectorStore
from tests.conftest import Service, Started, Team, settings_for

KEPT = 4


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = settings_for(tmp_path_factory.mktemp("probed"), probe_results=KEPT)
    with Started(settings, worker=False) as service:
        yield service


@pytest.fixture
def team(own: Service) -> Team:
    team = own.new_team()
    listen(team)
    return team


def listen(team: Team) -> None:
    """Somebody wants to be told of probes, though nothing is sent to anybody."""
    row = {
        "id": new_id("whk"),
        "team_id": team.id,
        "url": "https://nowhere.invalid/",
        "events": ["probe.failed"],
        "description": "",
        "secrets": [],
        "enabled": False,
        "created_at": utc_now(),
    }
    with team.service.runtime.database.transaction() as transaction:
        transaction.connection.execute(insert(webhooks).values(row))


def told(team: Team) -> list[Mapping[str, Any]]:
    """What the webhooks of this team are told of probes, in order."""
    with team.service.runtime.database.read() as connection:
        query = select(outbox.c.data).where(outbox.c.team_id == team.id).order_by(outbox.c.id)
        return list(connection.execute(query).scalars())


def add(team: Team, expect: Mapping[str, Any], *, query: str | None = "turnips in rows", **more: Any) -> str:
    """A probe that has been run once."""
    asked = {} if query is None else {"query": query}
    body = {"name": new_id("probe"), "expect": expect, **asked, **more}
    answer = team.admin.post("/v1/probes", json=body)
    assert answer.status_code == 201, answer.text
    sweep(team)
    return str(answer.json()["id"])


def sweep(team: Team) -> None:
    """What the scheduler does now and then, and the worker after it."""
    team.service.runtime.sweep()
    team.service.work()


def run(team: Team, probe_id: str) -> dict[str, Any]:
    """Run it now; returns its newest result."""
    queued = team.manager.post(f"/v1/probes/{probe_id}/run")
    assert queued.status_code == 202, queued.text
    team.service.work()
    return last(team, probe_id)


def probe(team: Team, probe_id: str) -> dict[str, Any]:
    answer = team.manager.get(f"/v1/probes/{probe_id}")
    assert answer.status_code == 200, answer.text
    record: dict[str, Any] = answer.json()
    return record


def last(team: Team, probe_id: str) -> dict[str, Any]:
    result: dict[str, Any] = probe(team, probe_id)["last"]
    return result


def checks(result: Mapping[str, Any]) -> list[str]:
    return [failure["check"] for failure in result["failures"]]


def put(team: Team, words: str, name: str, **more: Any) -> str:
    made = team.put(words, external_id=name, **more)
    team.service.work()
    return str(made["id"])


class TestAGoldenQuestion:
    def test_that_finds_what_is_expected_is_ok_at_once_and_tells_nobody(self, team: Team) -> None:
        document = put(team, "Turnips are grown in rows.", "turnips")
        probe_id = add(team, {"documents": ["turnips"]})
        record = probe(team, probe_id)
        assert (record["state"], record["last"]["recall"], record["last"]["failures"]) == ("ok", 1.0, [])
        assert record["last"]["hits"][0]["document_id"] == document
        assert told(team) == []

    def test_tells_once_that_recall_has_fallen_and_once_that_it_is_back(self, team: Team) -> None:
        first = put(team, "Turnips are grown in rows.", "turnips")
        put(team, "Rows of turnips need water.", "water")
        probe_id = add(team, {"documents": [first, "water"]})
        team.manager.delete(f"/v1/documents/{first}").raise_for_status()
        results = [run(team, probe_id) for _ in range(3)]
        assert [(checks(result), result["recall"]) for result in results] == [(["recall"], 0.5)] * 3
        assert first in results[0]["failures"][0]["message"]
        (failed,) = told(team)
        assert (failed["state"], failed["checks"], failed["severity"]) == ("failing", ["recall"], "warning")
        assert failed["recall"] == 0.5
        team.manager.patch(f"/v1/probes/{probe_id}", json={"expect": {"documents": ["water"]}}).raise_for_status()
        sweep(team)
        assert run(team, probe_id)["passed"]
        assert [event["state"] for event in told(team)] == ["failing", "ok"]

    def test_comes_back_when_its_document_does(self, team: Team) -> None:
        document = put(team, "Turnips are grown in rows.", "turnips")
        probe_id = add(team, {"documents": ["turnips"]})
        team.manager.delete(f"/v1/documents/{document}").raise_for_status()
        team.service.work()
        assert not run(team, probe_id)["passed"]
        put(team, "Turnips are grown in rows.", "turnips")
        assert run(team, probe_id)["passed"]
        assert [event["state"] for event in told(team)] == ["failing", "ok"]

    def test_may_miss_some_where_it_says_so(self, team: Team) -> None:
        put(team, "Turnips are grown in rows.", "turnips")
        lenient = add(team, {"documents": ["turnips", "gone", "gone too"], "min_recall": 1 / 3})
        assert last(team, lenient)["passed"]
        strict = add(team, {"documents": ["turnips", "gone", "gone too"], "min_recall": 0.34})
        assert not last(team, strict)["passed"]

    def test_looks_no_further_than_it_is_told_to(self, team: Team) -> None:
        put(team, "turnips in rows", "exactly")
        put(team, "turnips and also something else in a field of rows", "roughly")
        assert checks(last(team, add(team, {"documents": ["roughly"]}, top_k=1))) == ["recall"]
        assert last(team, add(team, {"documents": ["roughly"]}, top_k=2))["passed"]


class TestAQuestionThatMustFindNothing:
    def test_fails_once_there_is_something(self, team: Team) -> None:
        put(team, "Turnips are grown in rows.", "turnips", metadata={"area": "garden"})
        probe_id = add(team, {"nothing": True}, filter={"area": "payroll"})
        assert last(team, probe_id)["passed"]
        put(team, "Turnips are paid in rows.", "payroll", metadata={"area": "payroll"})
        assert checks(run(team, probe_id)) == ["nothing"]

    def test_counts_only_what_scores_as_well_as_it_says(self, team: Team) -> None:
        put(team, "Turnips are grown in rows.", "turnips")
        probe_id = add(team, {"nothing": True}, query="quarks", min_score=0.6)
        assert last(team, probe_id)["passed"]
        assert checks(last(team, add(team, {"nothing": True}, query="turnips are grown in rows", min_score=0.6)))


class TestAPersonWhoMustNotSeeIt:
    ADA = {"user": "ada", "groups": ["staff"]}  # noqa: RUF012 - only read

    def test_sees_it_when_the_acl_is_opened_which_is_critical(self, team: Team) -> None:
        secret = put(team, "Turnips are paid in rows.", "salaries", acl={"users": ["bob"]})
        put(team, "Turnips are grown in rows.", "turnips", acl={"groups": ["staff"]})
        probe_id = add(team, {"must_not": ["salaries"], "documents": ["turnips"]}, as_user=self.ADA)
        assert last(team, probe_id)["passed"]
        team.manager.patch(f"/v1/documents/{secret}/acl", json={"groups": ["staff"]}).raise_for_status()
        team.service.work()
        assert checks(run(team, probe_id)) == ["must_not"]
        assert [event["severity"] for event in told(team)] == ["critical"]

    def test_is_asked_for_by_keys_only_that_may_ask_for_others(self, team: Team) -> None:
        body = {"name": "p", "query": "q", "as_user": self.ADA, "expect": {"nothing": True}}
        assert team.manager.post("/v1/probes", json=body).status_code == 403
        probe_id = add(team, {"nothing": True}, as_user=self.ADA)
        changed = team.manager.patch(f"/v1/probes/{probe_id}", json={"question": {"query": "q", "as_user": {}}})
        assert changed.status_code == 403
        assert team.manager.patch(f"/v1/probes/{probe_id}", json={"every_s": 90}).json()["every_s"] == 90


class TestASearchThatLeaks:
    """Broken variants of the read path: every probe notices, whatever it is made for."""

    def test_documents_that_the_asker_may_not_read_is_caught_by_any_probe(
        self, team: Team, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        secret = put(team, "Turnips are paid in rows.", "salaries", acl={"users": ["bob"]})
        probe_id = add(team, {"max_age_s": 86_400}, as_user={"user": "ada", "groups": []})
        assert last(team, probe_id)["passed"]
        without_access(team.service.runtime.vectors, monkeypatch)
        result = run(team, probe_id)
        assert (checks(result), result["failures"][0]["severity"]) == (["access"], "critical")
        assert secret in result["failures"][0]["message"]
        (event,) = told(team)
        assert (event["checks"], event["severity"]) == (["access"], "critical")

    def test_documents_of_another_team_is_caught_and_tells_nothing_of_them(
        self, own: Service, team: Team, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = own.new_team()
        foreign = put(team, "Turnips are grown in rows.", "turnips")
        put(team, "Rows of turnips need water.", "water")
        probe_id = add(team, {"documents": ["water"]})
        with own.runtime.database.transaction() as transaction:
            # The index holds it still: only the last check, if there were one, would know that it is not theirs.
            moved = text("UPDATE documents SET team_id = :team WHERE id = :id")
            transaction.connection.execute(moved, {"team": other.id, "id": foreign})
        assert run(team, probe_id)["passed"]
        confirming_for([team.id, other.id], monkeypatch)
        result = run(team, probe_id)
        assert (checks(result), result["failures"][0]["severity"]) == (["team"], "critical")
        assert foreign not in str(probe(team, probe_id))
        assert foreign not in str(told(team))

    def test_is_told_of_even_while_the_probe_fails_for_less(self, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
        put(team, "Turnips are paid in rows.", "salaries", acl={"users": ["bob"]})
        probe_id = add(team, {"documents": ["nowhere"]}, as_user={"user": "ada", "groups": []})
        run(team, probe_id)
        with monkeypatch.context() as patched:
            without_access(team.service.runtime.vectors, patched)
            run(team, probe_id)
            run(team, probe_id)
        run(team, probe_id)
        assert [event["severity"] for event in told(team)] == ["warning", "critical"]

    def test_is_no_leak_where_a_right_was_taken_away_between_the_answer_and_the_look(
        self, team: Team, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        document = put(team, "Turnips are grown in rows.", "turnips", acl={"users": ["ada"]})
        probe_id = add(team, {"max_age_s": 86_400}, as_user={"user": "ada", "groups": []})
        retrieve = team.service.runtime.retriever.retrieve
        narrowed: list[Any] = []

        def then_narrow(*asked: Any) -> Any:
            answer = retrieve(*asked)
            if not narrowed:
                narrowed.append(team.manager.patch(f"/v1/documents/{document}/acl", json={"users": ["bob"]}))
            return answer

        monkeypatch.setattr(team.service.runtime.retriever, "retrieve", then_narrow)
        assert run(team, probe_id)["passed"]
        assert narrowed[0].status_code == 202


def without_access(vectors: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the index nor the last check looks at who is asking."""
    search, confirm = vectors.search, chunks.confirm

    def everything(index: str, request: SearchRequest, scope: AccessScope) -> Sequence[Candidate]:
        return search(index, request, AccessScope(scope.team, scope.tokens | {MANAGE}))

    def anything(connection: Connection, ids: Sequence[str], scope: AccessScope) -> dict[str, ConfirmedChunk]:
        return confirm(connection, ids, AccessScope(scope.team, scope.tokens | {MANAGE}))

    monkeypatch.setattr(vectors, "search", everything)
    monkeypatch.setattr(chunks, "confirm", anything)


def confirming_for(teams: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The last check takes documents of any of these teams."""
    confirm = chunks.confirm

    def anybody(connection: Connection, ids: Sequence[str], scope: AccessScope) -> dict[str, ConfirmedChunk]:
        found: dict[str, ConfirmedChunk] = {}
        for team in teams:
            found |= confirm(connection, ids, AccessScope(team, scope.tokens))
        return found

    monkeypatch.setattr(chunks, "confirm", anybody)


class TestTheNewestDocument:
    def test_that_is_older_than_expected_fails_until_another_comes_in(self, team: Team) -> None:
        put(team, "Turnips are grown in rows.", "turnips")
        probe_id = add(team, {"max_age_s": 3600}, query=None)
        assert last(team, probe_id)["passed"]
        age(team, hours=2)
        result = run(team, probe_id)
        assert checks(result) == ["age"]
        assert result["newest_document_at"] < (utc_now() - timedelta(hours=1)).isoformat()
        put(team, "Rows of turnips need water.", "water")
        assert run(team, probe_id)["passed"]
        assert [event["checks"] for event in told(team)] == [["age"], []]

    def test_is_not_made_newer_by_indexing_it_again_nor_by_a_new_acl(self, team: Team) -> None:
        document = put(team, "Turnips are grown in rows.", "turnips")
        age(team, hours=2)
        team.manager.patch(f"/v1/documents/{document}/acl", json={"groups": ["staff"]}).raise_for_status()
        team.service.work()
        assert checks(last(team, add(team, {"max_age_s": 3600}, query=None))) == ["age"]

    def test_of_one_source_is_told_apart_from_those_of_others(self, team: Team, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_text("Turnips of the folder.")
        body = {"name": "tree", "type": "files", "config": {"root": str(tmp_path)}}
        source = team.admin.post("/v1/sources", json=body).json()["id"]
        assert checks(last(team, add(team, {"max_age_s": 3600, "source": source}, query=None))) == ["age"]
        team.manager.post(f"/v1/sources/{source}/sync").raise_for_status()
        team.service.work()
        probe_id = add(team, {"max_age_s": 3600, "source": source}, query=None)
        assert last(team, probe_id)["passed"]
        age(team, hours=2)
        put(team, "Rows of turnips need water.", "water")
        assert checks(run(team, probe_id)) == ["age"]


def age(team: Team, *, hours: float) -> None:
    """All that came in came in earlier."""
    moved = text(
        "UPDATE document_events SET at = :at WHERE document_id IN (SELECT id FROM documents WHERE team_id = :t)"
    )
    then = (utc_now() - timedelta(hours=hours)).replace(tzinfo=None)
    with team.service.runtime.database.transaction() as transaction:
        transaction.connection.execute(moved, {"at": then.isoformat(sep=" "), "t": team.id})


class TestRuns:
    def test_by_the_clock_once_each_time_whoever_looks(self, team: Team) -> None:
        probe_id = add(team, {"nothing": True}, query="quarks", min_score=0.99, every_s=60)
        runtime = team.service.runtime
        for _ in range(2):
            runtime.sweep()
        assert open_runs(team) == []
        make_due(team, probe_id)
        for _ in range(2):
            runtime.sweep()
        assert len(open_runs(team)) == 1
        team.service.work()
        assert len(team.manager.get(f"/v1/probes/{probe_id}/runs").json()["data"]) == 2

    def test_do_not_pile_up_while_nobody_works_nor_in_the_list_of_jobs(self, team: Team) -> None:
        probe_id = add(team, {"nothing": True}, query="quarks", min_score=0.99)
        asked = set()
        for _ in range(3):
            make_due(team, probe_id)
            team.service.runtime.sweep()
            asked.add(team.manager.post(f"/v1/probes/{probe_id}/run").json()["job_id"])
        assert len(asked) == 1
        for _ in range(3):
            run(team, probe_id)
        with team.service.runtime.database.read() as connection:
            kind = JobFilter(kind=JobKind.PROBE)
            assert len(jobs.page(connection, team.id, kind, limit=10, after=None).data) == 1

    def test_of_a_paused_probe_come_on_request_only(self, team: Team) -> None:
        probe_id = add(team, {"nothing": True}, query="quarks", min_score=0.99)
        assert team.manager.post(f"/v1/probes/{probe_id}/pause").json()["paused"] is True
        make_due(team, probe_id)
        team.service.runtime.sweep()
        assert open_runs(team) == []
        assert run(team, probe_id)["passed"]
        assert team.manager.post(f"/v1/probes/{probe_id}/resume").json()["paused"] is False
        team.service.runtime.sweep()
        assert len(open_runs(team)) == 1
        team.service.work()

    def test_leave_so_many_results_and_no_more(self, team: Team) -> None:
        probe_id = add(team, {"nothing": True}, query="quarks", min_score=0.99)
        newest = [run(team, probe_id)["id"] for _ in range(KEPT + 2)][-KEPT:]
        listed = team.manager.get(f"/v1/probes/{probe_id}/runs").json()["data"]
        assert [result["id"] for result in listed] == newest[::-1]

    def test_without_an_answer_are_results_too_and_no_dead_letters(
        self, team: Team, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        probe_id = add(team, {"nothing": True}, query="quarks", min_score=0.99)

        def away(*_: object) -> None:
            raise RetryableError("The vector store does not answer.")

        monkeypatch.setattr(team.service.runtime.vectors, "search", away)
        result = run(team, probe_id)
        assert (checks(result), result["recall"]) == (["error"], None)
        assert "does not answer" in result["failures"][0]["message"]
        with team.service.runtime.database.read() as connection:
            (job,) = jobs.page(connection, team.id, JobFilter(kind=JobKind.PROBE), limit=10, after=None).data
        assert job.state == JobState.SUCCEEDED

    def test_leave_no_trace_of_a_question_and_are_no_live_answers(self, team: Team) -> None:
        put(team, "Turnips are grown in rows.", "turnips")
        add(team, {"documents": ["turnips"]})
        health = team.manager.get("/v1/collections/default/health").json()
        assert health["answers"]["newest"]["answers"] == 0
        with team.service.runtime.database.read() as connection:
            asked = text("SELECT count(*) FROM queries WHERE team_id = :team")
            assert connection.execute(asked, {"team": team.id}).scalar() == 0


def open_runs(team: Team) -> list[str]:
    with team.service.runtime.database.read() as connection:
        waiting = jobs.page(connection, team.id, JobFilter(JobState.QUEUED, JobKind.PROBE), limit=10, after=None).data
    return [job.id for job in waiting]


def make_due(team: Team, probe_id: str) -> None:
    with team.service.runtime.database.transaction() as transaction:
        probes.change(transaction.connection, probe_id, next_run_at=utc_now() - timedelta(seconds=1))


class TestWhatIsKept:
    def test_is_listed_by_collection_and_state_and_is_gone_when_deleted(self, team: Team) -> None:
        team.manager.post("/v1/collections", json={"name": "garden"}).raise_for_status()
        fails = add(team, {"documents": ["nowhere"]}, collection="garden")
        passes = add(team, {"nothing": True}, query="quarks", min_score=0.99)

        def ids(**narrowing: str) -> list[str]:
            answer = team.manager.get("/v1/probes", params=narrowing)
            assert answer.status_code == 200, answer.text
            return [one["id"] for one in answer.json()["data"]]

        assert ids() == [passes, fails]
        assert ids(collection="garden") == ids(state="failing") == [fails]
        assert team.manager.delete(f"/v1/probes/{fails}").status_code == 204
        assert ids() == [passes]
        assert team.manager.get(f"/v1/probes/{fails}/runs").status_code == 404

    def test_goes_with_its_collection(self, team: Team) -> None:
        team.manager.post("/v1/collections", json={"name": "garden"}).raise_for_status()
        probe_id = add(team, {"documents": ["nowhere"]}, collection="garden")
        team.manager.post(f"/v1/probes/{probe_id}/run").raise_for_status()
        team.manager.delete("/v1/collections/garden").raise_for_status()
        team.service.work()
        assert team.manager.get(f"/v1/probes/{probe_id}").status_code == 404
        with team.service.runtime.database.read() as connection:
            left = text("SELECT count(*) FROM probe_runs WHERE probe_id = :id")
            assert connection.execute(left, {"id": probe_id}).scalar() == 0

    @pytest.mark.parametrize(
        "wrong",
        [
            {"expect": {}},
            {"expect": {"nothing": True, "documents": ["a"]}},
            {"expect": {"source": "src_1", "nothing": True}},
            {"expect": {"documents": ["a"], "min_recall": 0.0}},
            {"expect": {"nothing": True}, "every_s": 59},
            {"expect": {"nothing": True}, "query": "   "},
            {"expect": {"nothing": True}, "filter": {"$or": []}},
            {"expect": {"nothing": True}, "query": None},
            {"expect": {"nothing": 1}},
        ],
        ids=str,
    )
    def test_is_refused_where_it_makes_no_sense(self, team: Team, wrong: dict[str, Any]) -> None:
        answer = team.manager.post("/v1/probes", json={"name": "p", "query": "q", **wrong})
        assert answer.status_code == 422, answer.text

    def test_has_names_of_its_own_and_its_number_is_bounded(self, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
        body = {"name": "p", "query": "q", "expect": {"nothing": True}}
        assert team.manager.post("/v1/probes", json=body).status_code == 201
        assert team.manager.post("/v1/probes", json=body).json()["code"] == "probe_exists"
        other = team.service.new_team()
        assert other.manager.post("/v1/probes", json=body).status_code == 201
        monkeypatch.setattr(probes, "MOST", 1)
        answer = team.manager.post("/v1/probes", json={**body, "name": "another"})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_many_probes")


def test_the_health_of_a_collection_names_what_fails_and_how_much_is_found(team: Team) -> None:
    put(team, "Turnips are grown in rows.", "turnips")
    health = team.manager.get("/v1/collections/default/health").json()
    assert (health["state"], health["probes"]["recall"], health["newest_document_age_s"] < 60) == (
        "unknown",
        None,
        True,
    )
    add(team, {"documents": ["turnips"]})
    failing = add(team, {"documents": ["turnips", "gone"]}, name="half")
    health = team.manager.get("/v1/collections/default/health").json()
    assert (health["state"], health["probes"]["recall"]) == ("failing", 0.75)
    (named,) = health["probes"]["failures"]
    assert (named["id"], named["name"], named["checks"]) == (failing, "half", ["recall"])
    team.manager.post(f"/v1/probes/{failing}/pause").raise_for_status()
    health = team.manager.get("/v1/collections/default/health").json()
    assert (health["state"], health["probes"]["paused"], health["probes"]["recall"]) == ("ok", 1, 1.0)


def test_probes_by_state_and_what_they_find_wrong_are_told_as_metrics(own: Service, team: Team) -> None:
    before = metric(own, 'rag_probe_failures_total{check="recall"}')
    add(team, {"documents": ["nowhere"]})
    add(team, {"nothing": True}, query="quarks", min_score=0.99)
    own.runtime.state.forget()
    assert metric(own, 'rag_probes{state="failing"}') >= 1
    assert metric(own, 'rag_probes{state="ok"}') >= 1
    assert metric(own, 'rag_probe_failures_total{check="recall"}') == before + 1


def metric(service: Service, name: str) -> float:
    lines = service.admin.get("/metrics").text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)
