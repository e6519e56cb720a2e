"""Questions over HTTP: who may see what, how answers are narrowed, and what an answer looks like."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import Service, Team

TEXTS = {
    "public": ("The canteen opens at eleven.", {"public": True}),
    "staff": ("The canteen has a discount for staff.", {"groups": ["staff"]}),
    "ada": ("The canteen knows what Ada likes.", {"users": ["ada"]}),
    "not-bob": ("The canteen keeps a secret from Bob.", {"public": True, "deny_users": ["bob"]}),
    "nobody": ("The canteen is to be closed next year.", {}),
}


@pytest.fixture(scope="module")
def canteen(service: Service) -> Team:
    team = service.new_team()
    for n, (name, (text, acl)) in enumerate(TEXTS.items()):
        team.put(text, external_id=name, acl=acl, metadata={"n": n, "kind": "note"}, title=name.title())
    team.drain()
    return team


def seen(team: Team, client: TestClient, **more: Any) -> set[str]:
    return {hit["external_id"] for hit in team.retrieve("canteen", client, top_k=100, **more)}


def test_a_key_without_identity_reads_public_documents_only(canteen: Team) -> None:
    assert seen(canteen, canteen.client("query")) == {"public", "not-bob"}


def test_a_key_of_a_person_reads_as_that_person(canteen: Team) -> None:
    assert seen(canteen, canteen.client("query", user="ada", groups=["staff"])) == {"public", "staff", "ada", "not-bob"}
    assert seen(canteen, canteen.client("query", user="bob", groups=["staff"])) == {"public", "staff"}
    assert seen(canteen, canteen.client("query", groups=["staff"])) == {"public", "staff", "not-bob"}


def test_a_key_that_ingests_or_impersonates_reads_no_more_for_it(canteen: Team) -> None:
    assert seen(canteen, canteen.client("query", "ingest", "impersonate")) == {"public", "not-bob"}


def test_a_key_that_manages_reads_all_of_its_team(canteen: Team, other_team: Team) -> None:
    assert seen(canteen, canteen.manager) == set(TEXTS)
    assert seen(canteen, canteen.admin) == set(TEXTS)
    assert seen(canteen, other_team.manager) == set()


@pytest.mark.parametrize(
    ("as_user", "expected"),
    [
        ({"user": "ada"}, {"public", "ada", "not-bob"}),
        ({"user": "bob", "groups": ["staff"]}, {"public", "staff"}),
        ({"groups": ["staff"]}, {"public", "staff", "not-bob"}),
        ({}, {"public", "not-bob"}),
    ],
)
def test_asking_for_somebody_reads_as_they_do_and_no_more(
    canteen: Team, as_user: dict[str, Any], expected: set[str]
) -> None:
    for client in (canteen.client("query", "impersonate"), canteen.client("manage", "impersonate"), canteen.admin):
        assert seen(canteen, client, as_user=as_user) == expected


def test_only_a_key_that_impersonates_and_is_nobody_itself_asks_for_others(canteen: Team) -> None:
    question = {"query": "canteen", "as_user": {"user": "ada"}}
    for client in (
        canteen.client("query"),
        canteen.client("manage"),
        canteen.client("query", "impersonate", user="bob"),
        canteen.client("query", "impersonate", groups=[]),
    ):
        assert client.post("/v1/retrieve", json=question).status_code == 403
    assert canteen.client("ingest", "impersonate").post("/v1/retrieve", json=question).status_code == 403


def test_tokens_of_the_access_rules_are_no_users_and_groups(canteen: Team) -> None:
    client = canteen.client("query", "impersonate")
    for name in ("manage", "public", "user:ada", "group:staff", "*", "%"):
        assert seen(canteen, client, as_user={"user": name, "groups": [name]}) == {"public", "not-bob"}


def test_an_answer_has_exactly_these_fields(canteen: Team) -> None:
    question = {"query": "canteen discount for staff", "highlight": True, "top_k": 1}
    answer = canteen.manager.post("/v1/retrieve", json=question).json()
    assert answer.keys() == {"query_id", "results", "usage", "degraded"}
    assert answer["usage"].keys() == {"embed_ms", "search_ms", "confirm_ms", "total_ms"}
    (hit,) = answer["results"]
    assert list(hit) == [
        *("rank", "score", "chunk_id", "document_id", "external_id", "collection", "text", "title", "uri"),
        *("heading_path", "position", "highlights", "metadata", "scores", "provenance"),
    ]
    assert hit["position"].keys() == {"start", "end", "page"}
    assert hit["scores"].keys() == {"dense", "dense_rank", "lexical", "lexical_rank", "fused"}
    assert list(hit["provenance"]) == [
        *("source_id", "version", "content_hash", "parser", "chunker"),
        *("embedding_model", "index_version", "indexed_at"),
    ]
    assert (hit["rank"], hit["external_id"], hit["metadata"]) == (1, "staff", {"n": 1, "kind": "note"})
    assert [hit["text"][span["start"] : span["end"]] for span in hit["highlights"]] == [TEXTS["staff"][0]]
    assert answer["degraded"] == []


def test_the_described_answer_is_the_answer(canteen: Team) -> None:
    described = canteen.service.anonymous.get("/openapi.json").json()["components"]["schemas"]
    answer = canteen.manager.post(
        "/v1/retrieve", json={"query": "canteen", "explain": True, "expand": {"after": 1}}
    ).json()
    hit = answer["results"][0]
    for model, value in (
        ("Answer", answer),
        ("Result", hit),
        ("Position", hit["position"]),
        ("ContextRecord", hit["context"]),
        ("Scores", hit["scores"]),
        ("Provenance", hit["provenance"]),
    ):
        assert value.keys() == described[model]["properties"].keys(), model


def test_an_explanation_adds_up_to_the_score(canteen: Team) -> None:
    answer = canteen.manager.post("/v1/retrieve", json={"query": "canteen staff", "explain": True}).json()
    assert answer["plan"]["legs"] == ["dense", "lexical"]
    for hit in answer["results"]:
        parts = [leg["contribution"] for leg in hit["explain"]["legs"].values()]
        assert sum(parts) == pytest.approx(hit["scores"]["fused"])


@pytest.mark.parametrize(
    ("mode", "missing"), [("dense", "lexical"), ("lexical", "dense")], ids=["dense only", "lexical only"]
)
def test_one_leg_alone_scores_alone(canteen: Team, mode: str, missing: str) -> None:
    for hit in canteen.retrieve("canteen", mode=mode):
        assert hit["scores"][mode] is not None
        assert (hit["scores"][missing], hit["scores"][f"{missing}_rank"]) == (None, None)


def test_fusion_by_ranks_takes_weights_and_its_constant(canteen: Team) -> None:
    fusion = {"method": "rrf", "k": 10, "weights": {"dense": 0, "lexical": 2}}
    hit = canteen.retrieve("discount", fusion=fusion)[0]
    assert hit["external_id"] == "staff"
    assert hit["score"] == pytest.approx(2 / (10 + hit["scores"]["lexical_rank"]))


def test_answers_are_narrowed_by_filter_score_and_documents(canteen: Team) -> None:
    assert seen(canteen, canteen.manager, filter={"n": {"$in": [1, 4]}}) == {"staff", "nobody"}
    assert seen(canteen, canteen.manager, filter={"$not": {"n": {"$gte": 2}}}) == {"public", "staff"}
    assert seen(canteen, canteen.manager, filter={"title": "Ada", "metadata.kind": "note"}) == {"ada"}
    assert seen(canteen, canteen.client("query"), filter={"n": {"$gte": 0}}) == {"public", "not-bob"}
    assert seen(canteen, canteen.manager, filter={}) == set(TEXTS)
    assert seen(canteen, canteen.manager, min_score=10.0) == set()
    assert len(canteen.retrieve("canteen", top_k=2)) == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "x" * 8_193}, "query"),
        ({"query": 5}, "query"),
        ({"query": "x", "top_k": 0}, "top_k"),
        ({"query": "x", "top_k": 101}, "top_k"),
        ({"query": "x", "mode": "magic"}, "mode"),
        ({"query": "x", "collections": []}, "collections"),
        ({"query": "x", "fusion": {"k": 0}}, "fusion.k"),
        ({"query": "x", "fusion": {"weights": {"dense": -1}}}, "fusion.weights.dense"),
        ({"query": "x", "as_user": {"name": "ada"}}, "as_user.name"),
        ({"query": "x", "max_chunks_per_document": 0}, "max_chunks_per_document"),
        ({"query": "x", "filter": "n = 1"}, "filter"),
        ({"query": "x", "limit": 3}, "limit"),
    ],
)
def test_a_question_out_of_bounds_is_refused_by_the_name_of_its_field(
    canteen: Team, body: dict[str, Any], field: str
) -> None:
    answer = canteen.manager.post("/v1/retrieve", json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    "bad", [{"n": {"$where": "1"}}, {"$or": []}, {"n": {"$in": []}}, {"a b": 1}, {"n": {"$gt": "soon"}}]
)
def test_a_filter_that_makes_no_sense_is_refused_with_its_path(canteen: Team, bad: dict[str, Any]) -> None:
    answer = canteen.manager.post("/v1/retrieve", json={"query": "x", "filter": bad})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_filter")
    assert answer.json()["detail"].startswith("filter")


def test_a_filter_nested_without_end_is_refused(canteen: Team) -> None:
    deep: dict[str, Any] = {"n": 1}
    for _ in range(11):
        deep = {"$not": deep}
    answer = canteen.manager.post("/v1/retrieve", json={"query": "x", "filter": deep})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_filter")


def test_a_blank_query_and_weights_of_nothing_are_refused(canteen: Team) -> None:
    for body in ({"query": "  \n"}, {"query": "x", "fusion": {"weights": {"dense": 0, "lexical": 0}}}):
        answer = canteen.manager.post("/v1/retrieve", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
