"""Query sets asked of index versions that are really there, with the rights of whom they name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from rag_service.access import Principal
from rag_service.db import collections, queries, query_sets
from rag_service.errors import InvalidRequest, RagError
from rag_service.evaluation import run as running
from rag_service.evaluation.compare import Comparison, compare
from rag_service.evaluation.gate import Gate, judge
from rag_service.evaluation.report import Report
from rag_service.evaluation.run import Subject, run
from rag_service.ingest.stages import Stages
from rag_service.types import Expected, IndexVersion, LabelledQuery, Person
from tests.conftest import Service, Started, Team, settings_for
from tests.flows.test_live_index_versions import active, beside, catch_up

# Of so few dimensions that texts fall together, in passages so short that they say little, and it lacks two documents.
WORSE = {"embedding": {"embedder": "hashing", "dimensions": 2}, "chunking": {"tokens": 16, "context": "none"}}
LACKING = ("canteen", "travel")
SAME = {"chunking": {"context": "headings"}}
SUBJECTS = {
    "leave": "Parental leave takes sixteen weeks and begins with the birth of the child. Whoever takes it tells the"
    " personnel department at least three months before. It can be taken in two parts, the second of them later.",
    "canteen": "The canteen serves turnip soup at noon, and dumplings on every second Friday.",
    "bicycles": "Bicycles stand in the yard behind the porter's lodge, under the tin roof.",
    "printers": "The printers of the third floor take heavy paper from the lower drawer only.",
    "travel": "Travel expenses are paid back within thirty days when the receipts are complete.",
    "salaries": "Salary bands of the board are kept by the personnel department.",
}


def question(name: str, text: str, *expected: str, nothing: bool = False, **more: object) -> LabelledQuery:
    wanted = tuple(Expected(1, external_id=document) for document in expected)
    asked = LabelledQuery(id=name, query=text, expected=wanted, expect_nothing=nothing)
    return replace(asked, **more)  # type: ignore[arg-type] # fields of a query, by name


QUESTIONS = (
    question("leave", "how many weeks of parental leave", "leave"),
    question("canteen", "turnip soup at the canteen", "canteen"),
    question("bicycles", "bicycles in the yard behind the lodge", "bicycles"),
    question("printers", "heavy paper for printers of the third floor", "printers"),
    question("travel", "travel expenses paid back within days", "travel"),
)
BANDS = "salary bands of the board"
OF_THE_BOARD = (
    question("boss", BANDS, "salaries", as_user=Person("boss")),
    question("group", BANDS, "salaries", as_user=Person("eve", ("personnel",))),
    question("ada", BANDS, nothing=True, as_user=Person("ada"), filter={"kind": "salaries"}),
    question("nobody", BANDS, nothing=True, as_user=Person(), filter={"kind": "salaries"}),
)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = settings_for(tmp_path_factory.mktemp("evaluated"), trace_content=True)
    with Started(settings, worker=False) as service:
        yield service


@pytest.fixture(scope="module")
def filled(own: Service) -> Team:
    team = own.new_team()
    for name, text in SUBJECTS.items():
        acl = {"users": ["boss"], "groups": ["personnel"]} if name == "salaries" else {"public": True}
        team.put(text, external_id=name, acl=acl, metadata={"kind": name}, title=name)
    own.work()
    return team


@pytest.fixture(scope="module")
def worse(filled: Team) -> IndexVersion:
    made = beside(filled, WORSE)
    runtime = filled.service.runtime
    for document in filled.manager.get("/v1/documents").json()["data"]:
        if document["external_id"] not in LACKING:
            runtime.indexer.build(document["id"], made, Stages("build"))
    return made


@pytest.fixture(scope="module")
def same(filled: Team) -> IndexVersion:
    made = beside(filled, SAME)
    catch_up(filled.service.runtime, made)
    return made


def evaluated(team: Team, asked: Sequence[LabelledQuery], index: IndexVersion | None = None) -> Report:
    subject = Subject(team.id, "default", None if index is None else index.id)
    return run(team.service.runtime.retriever, subject, asked)


def against_active(team: Team, candidate: IndexVersion, asked: Sequence[LabelledQuery] = QUESTIONS) -> Comparison:
    retriever = team.service.runtime.retriever
    return compare(retriever, team.id, "default", candidate.id, active(team).id, asked)


class TestRun:
    def test_measures_what_is_found(self, filled: Team) -> None:
        found = evaluated(filled, QUESTIONS)
        assert found.metrics == dict.fromkeys(("ndcg@10", "recall@5", "recall@10", "recall@20", "mrr"), 1.0)
        assert (found.queries, found.degraded) == (5, 0)
        assert found.latency.p95 >= found.latency.p50 > 0
        assert found.results[0].found[0] == found.results[0].id

    def test_names_each_document_once_however_many_of_its_passages_are_found(
        self, filled: Team, worse: IndexVersion
    ) -> None:
        (result,) = evaluated(filled, QUESTIONS[:1], worse).results
        assert len(result.found) == len(set(result.found)) > 1

    def test_asks_with_exactly_the_rights_of_whom_a_query_names(self, filled: Team) -> None:
        found = evaluated(filled, OF_THE_BOARD)
        assert found.metrics["abstention"] == 1.0
        assert found.metrics["mrr"] == 1.0

    def test_that_asked_with_the_rights_of_the_team_would_be_noticed(
        self, filled: Team, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(running, "principal_for", lambda team, _: Principal(team, manages=True))
        assert evaluated(filled, OF_THE_BOARD).metrics["abstention"] == 0.0

    def test_reads_the_whole_team_for_queries_that_name_nobody(self, filled: Team) -> None:
        assert evaluated(filled, [question("q", BANDS, "salaries")]).metrics["mrr"] == 1.0

    def test_sends_filter_and_min_score_along(self, filled: Team) -> None:
        asked = QUESTIONS[0]
        assert evaluated(filled, [replace(asked, filter={"kind": "canteen"})]).results[0].found == ("canteen",)
        assert evaluated(filled, [question("q", asked.query, nothing=True, min_score=9.0)]).metrics["abstention"] == 1.0
        with pytest.raises(InvalidRequest):
            evaluated(filled, [replace(asked, filter={"$nonsense": 1})])

    def test_asks_nothing_of_another_team(self, own: Service, filled: Team, worse: IndexVersion) -> None:
        stranger = own.new_team()
        found = evaluated(stranger, [*QUESTIONS, *OF_THE_BOARD])
        assert {one.found for one in found.results} == {()}
        with pytest.raises(RagError) as refused:
            evaluated(stranger, QUESTIONS, worse)
        assert refused.value.status in (404, 409)
        with pytest.raises(RagError):
            compare(own.runtime.retriever, stranger.id, "default", worse.id, active(filled).id, QUESTIONS)


class TestCompare:
    def test_a_worse_pipeline_is_refused_by_the_gate(self, filled: Team, worse: IndexVersion) -> None:
        made = against_active(filled, worse)
        assert made.metrics["ndcg@10"].delta < 0
        assert {change.id for change in made.changes[:2]} == set(LACKING)
        assert made.worse >= 2
        verdict = judge(made, Gate(max_worse_queries=0))
        assert not verdict.passed
        assert f"{made.metrics['ndcg@10'].candidate:.4f}" in verdict.reasons[0]

    def test_the_same_pipeline_passes(self, filled: Team, same: IndexVersion) -> None:
        made = against_active(filled, same)
        assert made.metrics["ndcg@10"].delta == 0.0
        # What is equally unlike a question comes in any order.
        assert (made.overlap_at_10, made.worse) == (1.0, 0)
        assert made.rbo > 0.95
        assert judge(made, Gate(max_worse_queries=0)).passed

    def test_asks_each_of_the_two_and_not_the_active_one_twice(self, filled: Team, worse: IndexVersion) -> None:
        made = against_active(filled, worse)
        assert (made.candidate, made.active) == (worse.id, active(filled).id)
        alone = {result.id: result.scores for result in evaluated(filled, QUESTIONS, worse).results}
        assert {change.id: change.candidate_scores for change in made.changes} == alone
        assert made.overlap_at_10 < 1.0 or made.rbo < 1.0

    def test_gives_the_same_numbers_again_but_for_the_times(self, filled: Team, worse: IndexVersion) -> None:
        first, second = against_active(filled, worse), against_active(filled, worse)
        assert first.metrics == second.metrics
        timeless: dict[str, Any] = {"candidate_ms": 0.0, "active_ms": 0.0}
        assert [replace(one, **timeless) for one in first.changes] == [
            replace(one, **timeless) for one in second.changes
        ]
        json.dumps(asdict(first), allow_nan=False)

    def test_holds_rights_on_the_candidate_too(self, filled: Team, worse: IndexVersion) -> None:
        made = against_active(filled, worse, OF_THE_BOARD)
        assert made.metrics["abstention"].candidate == made.metrics["abstention"].active == 1.0
        (ada,) = [change for change in made.changes if change.id == "ada"]
        assert ada.candidate_found == ada.active_found == ()


class TestLiveQueries:
    def asked(self, team: Team, limit: int = 100) -> list[LabelledQuery]:
        team.service.runtime.traces.flush()
        with team.service.runtime.database.read() as connection:
            collection = collections.get(connection, team.id, "default")
            return queries.recently_asked(connection, team.id, collection, limit=limit)

    def test_are_those_that_were_asked_of_the_collection_each_once_the_newest_first(self, own: Service) -> None:
        team = own.new_team()
        team.manager.post("/v1/collections", json={"name": "other"})
        for text in ("first", "second", "first"):
            team.retrieve(text)
        team.retrieve("elsewhere", collections=["other"])
        team.retrieve("of both", collections=["other", "default"], filter={"year": 2026}, min_score=0.1)
        found = self.asked(team)
        assert [one.query for one in found] == ["of both", "first", "second"]
        assert (found[0].filter, found[0].min_score, found[0].is_labelled) == ({"year": 2026}, 0.1, False)
        assert [one.query for one in self.asked(team, limit=1)] == ["of both"]
        assert self.asked(own.new_team()) == []

    def test_keep_the_rights_of_who_asked(self, own: Service) -> None:
        team = own.new_team()
        team.retrieve("by the manager")
        team.retrieve("by an application", team.client("query"))
        team.retrieve("by eve", team.client("query", user="eve", groups=["staff"]))
        team.retrieve("for ada", team.client("query", "impersonate"), as_user={"user": "ada", "groups": []})
        people = {one.query: one.as_user for one in self.asked(team)}
        assert people == {
            "by the manager": None,
            "by an application": Person(),
            "by eve": Person("eve", ("staff",)),
            "for ada": Person("ada"),
        }

    def test_show_how_alike_two_versions_answer(self, filled: Team, same: IndexVersion, worse: IndexVersion) -> None:
        for asked in QUESTIONS:
            filled.retrieve(asked.query)
        live = self.asked(filled)
        assert judge(against_active(filled, same, live), Gate(metric="rbo", min_delta=-0.05)).passed
        made = against_active(filled, worse, live)
        assert made.metrics == {}
        assert not judge(made, Gate(metric="rbo", min_delta=-0.05)).passed

    def test_are_none_where_questions_are_not_kept(self, tmp_path: Path) -> None:
        with Started(settings_for(tmp_path), worker=False) as service:
            team = service.new_team()
            team.retrieve("a secret")
            assert self.asked(team) == []


def test_a_stored_set_is_run_as_it_was_sent(filled: Team) -> None:
    sent = [{**asdict(one), "expected": [{"external_id": one.id}]} for one in QUESTIONS]
    filled.manager.post("/v1/query-sets", json={"name": "golden", "queries": sent}).raise_for_status()
    with filled.service.runtime.database.read() as connection:
        stored = query_sets.queries_of(connection, query_sets.get(connection, filled.id, "golden"))
    assert tuple(stored) == QUESTIONS
