"""Before a switch one sees whether answers get better, and a gate holds back what is worse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import beir
from tests.conftest import Service, Started, Team, settings_for
from tests.index_builds import PATH, WIDER, active, ask, begin, built, look

ADI = Path(__file__).parents[3] / "shared" / "data" / "collections" / "adi"
BARE = {"chunking": {"context": "none"}}
CRUMBS = {"chunking": {"tokens": 20}}
ASKED: dict[str, Any] = {"query_set": "questions"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Started(settings_for(tmp_path_factory.mktemp("quality"), trace_content=True), worker=False) as started:
        yield started


PAIRS = [("zeppelin", "harbour"), ("lantern", "quarry"), ("falcon", "cellar"), ("cobalt", "orchard")]


@pytest.fixture
def team(service: Service) -> Team:
    """Each question names two things that only one document has both of, far from each other."""
    team = service.new_team()
    for number, (one, other) in enumerate(PAIRS):
        between = " ".join(f"word{number}{place}" for place in range(40))
        team.put(f"The {one} came first. {between} until the {other} was reached.", external_id=f"both-{number}")
        for word in (one, other):
            team.put(f"Some saw a {word} on that day, others did not see it.", external_id=f"{word}-alone")
    queries = [
        {"query": f"{one} {other}", "expected": [{"external_id": f"both-{number}"}]}
        for number, (one, other) in enumerate(PAIRS)
    ]
    team.manager.post("/v1/query-sets", json={"name": "questions", "queries": queries}).raise_for_status()
    service.work()
    return team


def test_a_comparison_tells_of_measures_likeness_and_the_worst_questions(service: Service, team: Team) -> None:
    made = built(service, team, CRUMBS)
    quality = ask(team, made["id"], "evaluate", **ASKED)["quality"]
    compared = quality["comparison"]
    assert (compared["candidate"], compared["active"]) == (made["id"], active(team)["id"])
    assert (compared["queries"], compared["labelled"]) == (len(PAIRS), len(PAIRS))
    measured = compared["metrics"]["ndcg@10"]
    assert measured["delta"] == pytest.approx(measured["candidate"] - measured["active"])
    assert measured["delta"] < 0
    assert 0 < measured["p_value"] <= 1
    assert compared["changes"][0]["delta"] == min(one["delta"] for one in compared["changes"])
    assert 0 < compared["rbo"] < 1
    assert compared["candidate_latency"]["p50"] > 0
    assert quality["verdict"] is None
    assert look(team, made["id"])["quality"] == quality


def test_crumbs_for_chunks_are_refused_with_the_numbers_and_can_be_forced(service: Service, team: Team) -> None:
    before, made = active(team), built(service, team, CRUMBS)
    gate = {"metric": "ndcg@10", "min_delta": 0.0, "max_worse_queries": 0}
    refused = ask(team, made["id"], "promote", expect=409, gate=gate, **ASKED)
    assert refused["code"] == "gate_failed"
    verdict = refused["numbers"]["verdict"]
    assert verdict["passed"] is False
    assert len(verdict["reasons"]) == 2
    assert "ndcg@10" in refused["detail"]
    assert refused["numbers"]["comparison"]["metrics"]["ndcg@10"]["delta"] < 0
    assert active(team)["id"] == before["id"]
    assert ask(team, made["id"], "promote", gate=gate, force=True, **ASKED)["state"] == "active"


def test_what_is_as_good_passes_the_gate(service: Service, team: Team) -> None:
    made = built(service, team, WIDER)
    gate = {"metric": "recall@10", "max_worse_queries": 0}
    promoted = ask(team, made["id"], "promote", gate=gate, **ASKED)
    assert promoted["state"] == "active"
    assert promoted["quality"]["verdict"]["passed"] is True


def test_questions_that_were_asked_do_where_nobody_judged_any(service: Service, team: Team) -> None:
    for one, other in PAIRS:
        asked = team.manager.post("/v1/retrieve", json={"query": f"{one} or {other}"}).json()
        assert team.manager.get(f"/v1/queries/{asked['query_id']}").status_code == 200
    made = built(service, team, CRUMBS)
    compared = ask(team, made["id"], "evaluate", sample=3)["quality"]["comparison"]
    assert (compared["queries"], compared["labelled"], compared["metrics"]) == (3, 0, {})
    assert {one["query"] for one in compared["changes"]} == {f"{one} or {other}" for one, other in PAIRS[1:]}
    refused = ask(team, made["id"], "promote", expect=409, gate={"metric": "rbo", "min_delta": -0.01})
    assert refused["code"] == "gate_failed"


def test_without_questions_there_is_nothing_to_compare(service: Service, team: Team) -> None:
    made = built(service, team)
    assert ask(team, made["id"], "evaluate", expect=422)["code"] == "no_questions"
    assert ask(team, made["id"], "evaluate", expect=404, query_set="none")["code"] == "not_found"


def test_questions_of_another_collection_and_builds_half_done_are_refused(service: Service, team: Team) -> None:
    team.manager.post("/v1/collections", json={"name": "other"}).raise_for_status()
    made = built(service, team, collection="other")
    assert ask(team, made["id"], "evaluate", expect=422, **ASKED)["code"] == "other_collection"
    assert ask(team, begin(team)["id"], "evaluate", expect=409, **ASKED)["code"] == "index_version_state"
    service.work()


@pytest.mark.skipif(not ADI.is_dir(), reason="the judged collections are not beside this project")
def test_on_real_questions_titles_before_chunks_pass_and_crumbs_do_not(service: Service) -> None:
    """ADI: 82 abstracts with titles, 35 judged questions."""
    team, adi = service.new_team(), beir.load(ADI)
    for document in adi.documents:
        team.put(document["text"], title=document["title"], external_id=document["_id"])
    queries = [
        {"query": text, "expected": [{"external_id": one} for one in adi.qrels[name]]}
        for name, text in adi.queries.items()
    ]
    team.manager.post("/v1/query-sets", json={"name": "questions", "queries": queries}).raise_for_status()
    service.work()
    ask(team, built(service, team, BARE)["id"], "promote")
    gate: dict[str, Any] = {"metric": "ndcg@10", "min_delta": 0.005}
    better = ask(team, built(service, team, {})["id"], "promote", gate=gate, **ASKED)
    assert better["quality"]["comparison"]["metrics"]["ndcg@10"]["delta"] >= 0.005
    worse = built(service, team, {**BARE, "chunking": {"tokens": 20, "context": "none"}})
    refused = ask(team, worse["id"], "promote", expect=409, gate=gate, **ASKED)
    assert refused["numbers"]["comparison"]["metrics"]["ndcg@10"]["delta"] < 0
    assert team.admin.get(f"{PATH}/{better['id']}").json()["state"] == "active"
