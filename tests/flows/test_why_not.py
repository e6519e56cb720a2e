"""Why a document is not in the answer: every obstacle is named, the first one first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rag_service.access import Principal
from rag_service.reranking.base import NullReranker, Reranker
from rag_service.retrieval.options import Options
from rag_service.retrieval.plan import RetrievalRequest
from rag_service.retrieval.retriever import Retriever
from rag_service.retrieval.why_not import Subject, Verdict, WhyNot
from tests.conftest import Service, Started, Team, settings_for


@pytest.fixture(scope="module")
def office(service: Service) -> Team:
    team = service.new_team()
    for n in range(12):
        team.put(f"Parking place {n} is beside the canteen.", external_id=f"parking{n}", metadata={"n": n})
    team.put(
        "Annual leave is thirty days.", external_id="leave", title="Leave", metadata={"year": 2023, "tags": ["hr"]}
    )
    team.put("The salary of Bob.", external_id="salary", acl={"users": ["bob"]})
    team.put("A party for Ada.", external_id="party", acl={"public": True, "deny_users": ["ada"]})
    team.drain()
    return team


def why(team: Team, name: str, client: TestClient | None = None, **question: Any) -> dict[str, Any]:
    body = {"query": "annual leave", "external_id": name, **question}
    answer = (client or team.manager).post("/v1/retrieve:why_not", json=body)
    assert answer.status_code == 200, answer.text
    verdict: dict[str, Any] = answer.json()
    return verdict


def test_a_returned_document_is_said_to_be_returned_with_its_rank(office: Team) -> None:
    (first, *_) = office.retrieve("annual leave")
    verdict = why(office, "leave")
    assert (verdict["verdict"], verdict["rank"], verdict["score"]) == ("returned", 1, pytest.approx(first["score"]))
    assert verdict["chunk_id"] == first["chunk_id"]
    by_id = office.manager.post(
        "/v1/retrieve:why_not", json={"query": "annual leave", "document_id": first["document_id"]}
    )
    assert by_id.json() == verdict


def test_a_document_that_nobody_has_is_unknown(office: Team) -> None:
    for named in ({"external_id": "nothing"}, {"document_id": "doc_nothing"}):
        answer = office.manager.post("/v1/retrieve:why_not", json={"query": "leave", **named})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("named", [{}, {"document_id": "a", "external_id": "b"}])
def test_exactly_one_document_is_asked_about(office: Team, named: dict[str, str]) -> None:
    answer = office.manager.post("/v1/retrieve:why_not", json={"query": "leave", **named})
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("narrowing", "clause", "values"),
    [
        ({"year": {"$gte": 2024}}, {"metadata.year": {"$gte": 2024}}, {"metadata.year": 2023}),
        (
            {"tags": "hr", "year": {"$gte": 2020, "$lt": 2022}, "title": "Other"},
            {"metadata.year": {"$lt": 2022}},
            {"metadata.year": 2023},
        ),
        (
            {"$or": [{"title": "A"}, {"tags": "pay"}]},
            {"$or": [{"title": {"$eq": "A"}}, {"metadata.tags": {"$eq": "pay"}}]},
            {"title": "Leave", "metadata.tags": ["hr"]},
        ),
        ({"$not": {"tags": "hr"}}, {"$not": {"metadata.tags": {"$eq": "hr"}}}, {"metadata.tags": ["hr"]}),
        ({"draft": {"$exists": True}}, {"metadata.draft": {"$exists": True}}, {"metadata.draft": None}),
        ({"source": "src_x"}, {"source": {"$eq": "src_x"}}, {"source": None}),
    ],
)
def test_the_condition_that_filters_it_out_is_named_with_what_the_document_has(
    office: Team, narrowing: dict[str, Any], clause: dict[str, Any], values: dict[str, Any]
) -> None:
    verdict = why(office, "leave", filter=narrowing)
    assert (verdict["verdict"], verdict["clause"], verdict["values"]) == ("filtered_out", clause, values)
    again = why(office, "leave", filter=clause)
    assert (again["verdict"], again["clause"]) == ("filtered_out", clause)


def test_below_top_k_its_ranks_and_the_last_returned_score_are_told(office: Team) -> None:
    hits = office.retrieve("parking canteen", top_k=100)
    place = next(hit for hit in hits if hit["external_id"] == "leave")
    verdict = why(office, "leave", query="parking canteen", top_k=3)
    assert (verdict["verdict"], verdict["cut"]) == ("below_cut_off", "top_k")
    assert verdict["fused"] == {"rank": place["rank"], "score": pytest.approx(place["scores"]["fused"])}
    assert verdict["legs"]["dense"] == {
        "score": pytest.approx(place["scores"]["dense"]),
        "rank": place["scores"]["dense_rank"],
        "drawn": 50,
    }
    assert verdict["legs"]["lexical"] == {"score": 0.0, "rank": None, "drawn": 50}
    assert verdict["last_returned"]["rank"] == 3
    assert verdict["last_returned"]["score"] == pytest.approx(hits[2]["score"])
    assert verdict["chunk_id"] == place["chunk_id"]


def test_below_min_score_is_said_to_be_just_that(office: Team) -> None:
    verdict = why(office, "parking3", min_score=0.99)
    assert (verdict["verdict"], verdict["cut"]) == ("below_cut_off", "min_score")
    assert verdict["fused"]["score"] < 0.99


def test_in_one_leg_only_that_leg_is_told(office: Team) -> None:
    verdict = why(office, "parking3", mode="lexical")
    assert verdict["legs"] == {"lexical": {"score": 0.0, "rank": None, "drawn": 50}}
    assert (verdict["verdict"], verdict["cut"]) == ("below_cut_off", "no_common_word")
    assert why(office, "leave", mode="lexical", query="the")["cut"] == "nothing_asked"


def test_whoever_manages_is_told_who_may_not_read_it(office: Team) -> None:
    boss = office.client("manage", "impersonate")
    salary = why(office, "salary", boss, as_user={"user": "ada"})
    assert (salary["verdict"], salary["denied_by"]) == ("not_readable", [])
    party = why(office, "party", boss, as_user={"user": "ada", "groups": ["staff"]})
    assert (party["verdict"], party["denied_by"]) == ("not_readable", ["user:ada"])
    assert why(office, "salary", boss, query="salary", as_user={"user": "bob"})["verdict"] == "returned"
    assert "bob" not in str({key: value for key, value in salary.items() if key != "document"})


def test_asking_for_somebody_takes_the_right_to(office: Team) -> None:
    body = {"query": "leave", "external_id": "leave", "as_user": {"user": "ada"}}
    assert office.manager.post("/v1/retrieve:why_not", json=body).status_code == 403
    assert office.client("ingest").post("/v1/retrieve:why_not", json=body).status_code == 403


def test_a_document_of_a_collection_that_was_not_asked_is_not_searched(office: Team) -> None:
    office.manager.post("/v1/collections", json={"name": "archive"}).raise_for_status()
    old = office.put("Annual leave was ten days.", external_id="old", collection="archive")
    office.drain()
    assert why(office, "old", collection="archive")["verdict"] == "not_searched"
    assert why(office, "old", collections=["default", "archive"])["verdict"] == "returned"
    body = {"query": "leave", "document_id": old["id"]}
    verdict = office.manager.post("/v1/retrieve:why_not", json=body).json()
    assert (verdict["verdict"], verdict["document"]["collection"]) == ("not_searched", "archive")


def test_a_deleted_document_is_deleted_to_managers_and_unknown_to_readers(team: Team) -> None:
    gone = team.put("Annual leave.", external_id="gone")
    team.drain()
    team.manager.delete(f"/v1/documents/{gone['id']}").raise_for_status()
    team.drain()
    verdict = why(team, "gone")
    assert verdict["verdict"] == "deleted"
    assert verdict["deleted_at"] is not None
    body = {"query": "leave", "document_id": gone["id"]}
    assert team.client("query").post("/v1/retrieve:why_not", json=body).status_code == 404


def test_a_failed_document_tells_its_reason(team: Team) -> None:
    files = {"file": ("empty.pdf", b"%PDF-1.4 broken", "application/pdf")}
    team.manager.post("/v1/documents", files=files, data={"external_id": "bad"}).raise_for_status()
    team.drain()
    verdict = why(team, "bad")
    assert verdict["verdict"] == "failed"
    assert verdict["failure"]["stage"] == "parse"
    assert verdict["failure"]["message"]


def test_a_document_on_its_way_names_its_job(tmp_path: Any) -> None:
    with Started(settings_for(tmp_path), worker=False) as service:
        team = service.new_team()
        accepted = team.put("Annual leave.", external_id="new")
        verdict = why(team, "new")
        assert (verdict["verdict"], verdict["job"]) == ("not_indexed", {"id": accepted["job_id"], "state": "queued"})
        assert why(team, "new", team.client("query"))["verdict"] == "not_indexed"
        service.work()
        assert why(team, "new")["verdict"] == "returned"


def test_a_change_that_the_index_has_not_heard_of_is_no_riddle(tmp_path: Any) -> None:
    with Started(settings_for(tmp_path), worker=False) as service:
        team = service.new_team()
        made = team.put("Annual leave.", external_id="new", acl={"users": ["bob"]})
        service.work()
        team.manager.patch(f"/v1/documents/{made['id']}/acl", json={"public": True}).raise_for_status()
        reader = team.client("query")
        assert team.retrieve("annual leave", reader) == []
        assert why(team, "new", reader)["verdict"] == "not_indexed"
        service.work()
        assert why(team, "new", reader)["verdict"] == "returned"


class ByLength:
    """A reranker with a simple taste."""

    def rerank(self, query: str, passages: Sequence[str]) -> list[float] | None:
        return [float(len(passage)) for passage in passages]


def judged(team: Team, external_id: str, request: RetrievalRequest, reranker: Reranker, candidates: int) -> Verdict:
    runtime = team.service.runtime
    retriever = Retriever(
        runtime.database,
        vectors=runtime.vectors,
        pipelines=runtime.pipelines,
        reranker=reranker,
        candidates=candidates,
        read_text=runtime.blobs.get,
    )
    why_not = WhyNot(runtime.database, runtime.vectors, retriever)
    return why_not.explain(Subject(external_id=external_id), request, Principal(team.id, manages=True), tells_all=True)


def test_what_no_leg_drew_is_ranked_by_a_deeper_look(service: Service) -> None:
    team = service.new_team()
    for n in range(12):
        team.put("Leave " * (12 - n) + "parking " * (n + 1), external_id=f"d{n}")
    team.put("Canteen and leave and a salary and tax and travel.", external_id="far")
    team.drain()
    verdict = judged(team, "far", RetrievalRequest("leave leave parking", top_k=1), NullReranker(), candidates=3)
    assert (verdict.kind, verdict.detail["cut"]) == ("below_cut_off", "candidates")
    assert {leg: place["rank"] for leg, place in verdict.detail["legs"].items()} == {"dense": 13, "lexical": 13}
    assert verdict.detail["legs"]["dense"]["drawn"] == 3
    assert verdict.detail["fused"]["rank"] == 13


def test_what_a_reranker_pushed_out_is_said_to_be_so(service: Service) -> None:
    team = service.new_team()
    team.put("Annual leave.", external_id="short")
    team.put("Annual leave and then many words about parking places.", external_id="long")
    team.drain()
    request = RetrievalRequest("annual leave", top_k=1)
    assert judged(team, "short", request, NullReranker(), candidates=10).kind == "returned"
    verdict = judged(team, "short", request, ByLength(), candidates=10)
    assert (verdict.kind, verdict.detail["cut"], verdict.detail["fused"]["rank"]) == ("below_cut_off", "rerank", 1)


@pytest.mark.parametrize(
    ("query", "missing", "unwanted"),
    [
        ('leave "thirty days" "sick leave"', ["sick leave"], []),
        ("leave -annual -parking", [], ["annual"]),
        ('"sick leave" -"is thirty" annual', ["sick leave"], ["is thirty"]),
    ],
)
def test_words_that_the_question_demands_or_rules_out_are_named(
    office: Team, query: str, missing: list[str], unwanted: list[str]
) -> None:
    for mode in ("hybrid", "dense", "lexical"):
        verdict = why(office, "leave", query=query, mode=mode)
        assert (verdict["verdict"], verdict["missing"], verdict["unwanted"]) == ("wording", missing, unwanted)
        assert verdict["chunk_id"] == office.retrieve("annual leave", top_k=1)[0]["chunk_id"]
        assert all(word in verdict["reason"] for word in missing + unwanted)
    assert why(office, "leave", query=query, operators="off")["verdict"] == "returned"


def test_of_a_long_document_the_passage_counts_that_has_the_demanded_words(team: Team) -> None:
    filler = "Parking is free for all who come early. " * 40
    text = f"# Leave\n\nLeave leave leave. {filler}\n\n# Rest\n\nThe annual leave is long. {filler}"
    team.put(text, external_id="long")
    for n in range(3):
        team.put("Annual leave. " * (n + 1), external_id=f"short{n}")
    team.drain()
    (hit,) = team.retrieve('"annual leave"', filter={"external_id": "long"}, top_k=100)
    verdict = why(team, "long", query='leave "annual leave"', top_k=1)
    assert (verdict["verdict"], verdict["cut"], verdict["chunk_id"]) == ("below_cut_off", "top_k", hit["chunk_id"])
    nearest = why(team, "long", query='leave "no such words"')
    assert (nearest["verdict"], nearest["missing"]) == ("wording", ["no such words"])


def test_what_an_option_took_out_names_that_option(team: Team) -> None:
    team.put("Annual leave is long.", external_id="short", metadata={"published": "2001-01-01"})
    team.put("Annual leave is long indeed.", external_id="alike", metadata={"published": "2024-01-01"})
    team.put("Leave the annual party early.", external_id="party", metadata={"published": "2026-01-01"})
    team.drain()
    query = "annual leave is long"
    assert [hit["external_id"] for hit in team.retrieve(query)] == ["short", "alike", "party"]
    recency = {"field": "published", "weight": 1.0, "half_life_days": 100}
    assert why(team, "short", query=query, top_k=1, recency=recency)["cut"] == "recency"
    assert why(team, "alike", query=query, collapse_duplicates=0.5)["cut"] == "collapse_duplicates"
    assert why(team, "alike", query=query, top_k=2, diversity=0.9)["cut"] == "diversity"
    for options in ({}, {"diversity": 0.9}, {"collapse_duplicates": 1.0}, {"recency": {**recency, "weight": 0.01}}):
        assert why(team, "party", query=query, top_k=1, **options)["cut"] == "top_k"


def test_what_the_reranker_never_read_is_said_to_lie_too_deep(service: Service) -> None:
    team = service.new_team()
    for n in range(6):
        team.put("Annual leave " * (6 - n) + "parking " * n, external_id=f"d{n}")
    team.drain()
    order = [hit["external_id"] for hit in team.retrieve("annual leave", rerank=False)]
    request = RetrievalRequest("annual leave", top_k=1, options=Options(rerank_depth=3))
    for place, name in enumerate(order):
        verdict = judged(team, name, request, ByLength(), candidates=10)
        assert verdict.kind == "returned" or verdict.detail["cut"] == ("depth" if place > 2 else verdict.detail["cut"])
        assert place <= 2 or verdict.detail["cut"] == "depth"


def test_ranks_beyond_the_draw_are_counted_with_the_weights_that_were_settled(service: Service) -> None:
    """A question that names something leans on words: with the usual weights the deep look would rank otherwise."""
    team, query = service.new_team(), "E1234 canteen"
    for n in range(9):
        team.put("E1234 " * (n % 3 + 1) + "canteen " * (n // 3) + "and other words " * (n % 4), external_id=f"d{n}")
    team.put("Canteen.", external_id="c")
    team.drain()
    settled = [hit["external_id"] for hit in team.retrieve(query, top_k=100)]
    usual = team.retrieve(query, top_k=100, fusion={"weights": {"dense": 0.7, "lexical": 0.3}})
    assert settled != [hit["external_id"] for hit in usual], "else this test shows nothing"
    request, ranks = RetrievalRequest(query, top_k=1), {}
    for name in settled[1:]:
        detail = judged(team, name, request, NullReranker(), candidates=2).detail
        if detail["cut"] == "candidates":
            ranks[name] = detail["fused"]["rank"]
    assert len(ranks) > 5
    assert ranks == {name: settled.index(name) + 1 for name in ranks}


def test_two_documents_of_one_external_id_must_be_told_apart(service: Service, tmp_path: Any) -> None:
    team = service.new_team()
    (tmp_path / "leave.md").write_text("Annual leave.")
    config = {"name": "s", "type": "files", "config": {"root": str(tmp_path)}, "acl": {"users": ["bob"]}}
    source = team.admin.post("/v1/sources", json=config).json()["id"]
    team.admin.post(f"/v1/sources/{source}/sync", json={}).raise_for_status()
    team.drain()
    team.put("Annual leave.", external_id="leave.md")
    team.drain()
    body = {"query": "annual leave", "external_id": "leave.md"}
    refused = team.manager.post("/v1/retrieve:why_not", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "ambiguous")
    reader = team.client("query").post("/v1/retrieve:why_not", json=body)
    assert (reader.status_code, reader.json()["verdict"]) == (200, "returned"), "only one is there for this asker"
