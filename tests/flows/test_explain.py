"""Explanations: which words made a score, which token admitted a hit, what a reranker moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rag_service.access import Principal
from rag_service.embedding.lexical import Bm25Encoder
from rag_service.retrieval.explain import spellings
from rag_service.retrieval.plan import RetrievalRequest
from rag_service.retrieval.retriever import Retrieval, Retriever
from rag_service.vectors.base import SearchRequest
from tests.conftest import Service, Team


@pytest.fixture(scope="module")
def office(service: Service) -> Team:
    team = service.new_team()
    team.put("The leaves of the tree fall. Leave is long.", external_id="leave", title="Annual holidays")
    team.put("Parking leaves room for all.", external_id="parking", acl={"groups": ["staff", "hr"], "users": ["ada"]})
    team.put("Nothing to see.", external_id="nothing")
    team.put("東京の休暇は長い。", external_id="tokyo")
    team.drain()
    return team


def explained(team: Team, query: str, client: Any = None, **more: Any) -> dict[str, dict[str, Any]]:
    """Explanations by external id, each with the scores of its hit."""
    hits = team.retrieve(query, client, explain=True, top_k=100, **more)
    return {hit["external_id"]: {**hit["explain"], "scores": hit["scores"]} for hit in hits}


@pytest.mark.parametrize("mode", ["hybrid", "lexical"])
@pytest.mark.parametrize(
    "query", ["leave", "annual leaves in the parking", "leave leave room", "休暇 leave", "holidays tree nowhere"]
)
def test_the_contributions_of_the_terms_add_up_to_the_lexical_score(office: Team, mode: str, query: str) -> None:
    found = explained(office, query, mode=mode)
    assert any(one["terms"] for one in found.values())
    for one in found.values():
        total = sum(term["contribution"] for term in one["terms"]) + one["other_terms"]
        assert total == pytest.approx(one["scores"]["lexical"], rel=1e-4, abs=1e-6)
        assert one["other_terms"] == 0.0


def test_forms_of_a_word_in_another_language_are_named_by_the_word(service: Service) -> None:
    team = service.new_team()
    team.put("Die Urlaube der Eltern sind nicht kurz und werden von der Firma bezahlt.", external_id="german")
    team.drain()
    (term,) = explained(team, "Urlaub")["german"]["terms"]
    assert (term["query_words"], term["chunk_words"]) == (["Urlaub"], ["Urlaube"])


def test_words_that_feedback_added_have_a_part_and_no_word_of_the_question(office: Team) -> None:
    found = explained(office, "holidays", feedback={"passages": 1, "terms": 5, "weight": 1.0})
    added = [term for term in found["leave"]["terms"] if not term["query_words"]]
    assert {"tree", "fall"} & {word for term in added for word in term["chunk_words"]}
    for one in found.values():
        total = sum(term["contribution"] for term in one["terms"])
        assert total == pytest.approx(one["scores"]["lexical"], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("question", [{"query": "RAG_DATA_DIR leave"}, {"query": "the of"}, {"query": "annual leave"}])
def test_the_weights_of_the_legs_are_those_that_were_settled(office: Team, question: dict[str, Any]) -> None:
    answer = office.manager.post("/v1/retrieve", json={**question, "explain": True}).json()
    weights = answer["plan"]["fusion"]["weights"]
    for hit in answer["results"]:
        legs = hit["explain"]["legs"]
        assert {leg: legs[leg]["weight"] for leg in legs} == weights
        assert sum(leg["contribution"] for leg in legs.values()) == pytest.approx(hit["scores"]["fused"])


def test_terms_show_the_words_of_both_sides(office: Team) -> None:
    found = explained(office, "Leaving room, annually")
    (leave, room) = sorted(found["parking"]["terms"], key=lambda term: term["query_words"])
    assert (leave["query_words"], leave["chunk_words"], leave["query_weight"]) == (["Leaving"], ["leaves"], 1.0)
    assert (room["query_words"], room["chunk_words"]) == (["room"], ["room"])
    by_title = {tuple(term["query_words"]): term["chunk_words"] for term in found["leave"]["terms"]}
    assert by_title == {("Leaving",): ["leaves", "Leave"], ("annually",): ["Annual"]}
    assert found["nothing"]["terms"] == []


def test_the_heaviest_term_comes_first_and_repeating_a_word_makes_it_heavier(office: Team) -> None:
    once = explained(office, "leave room")["parking"]["terms"]
    assert [term["query_words"] for term in once] == [["room"], ["leave"]], "room is rarer"
    twice = explained(office, "leave leave leave leave room")["parking"]["terms"]
    assert twice[0]["query_words"] == ["leave"]
    assert twice[0]["query_weight"] == pytest.approx(4, rel=0.01)
    assert twice[0]["contribution"] == pytest.approx(4 * once[1]["contribution"], rel=0.01)


def test_scripts_without_blanks_are_shown_by_their_characters_and_pairs(office: Team) -> None:
    terms = explained(office, "休暇")["tokyo"]["terms"]
    assert sorted(term["query_words"] for term in terms) == [["休"], ["休暇"], ["暇"]]
    assert all(term["chunk_words"] == term["query_words"] for term in terms)


def test_documents_that_the_asker_may_not_read_move_no_contribution(service: Service) -> None:
    team = service.new_team()
    team.put("Leave is long.", external_id="open")
    team.put("Parking is free.", external_id="other")
    team.drain()
    reader = team.client("query")
    before = explained(team, "leave", reader)["open"]["terms"]
    for n in range(20):
        team.put(f"Leave leave {n}.", acl={"users": ["bob"]})
    team.drain()
    assert explained(team, "leave", reader)["open"]["terms"] == before
    assert explained(team, "leave")["open"]["terms"][0]["contribution"] < before[0]["contribution"] / 2


@pytest.mark.parametrize(
    ("identity", "admitted"),
    [
        ({"user": "ada"}, ["user:ada"]),
        ({"groups": ["hr"]}, ["group:hr"]),
        ({"user": "ada", "groups": ["staff", "guests"]}, ["group:staff", "user:ada"]),
    ],
)
def test_the_tokens_that_admitted_a_hit_are_those_its_asker_holds(
    office: Team, identity: dict[str, Any], admitted: list[str]
) -> None:
    found = explained(office, "parking leave", office.client("query", **identity))
    assert found["parking"]["admitted_by"] == admitted
    assert found["leave"]["admitted_by"] == ["public"]
    assert explained(office, "parking")["parking"]["admitted_by"] == ["manage"]


def test_filters_and_plan_are_told(office: Team) -> None:
    question = {"query": "leave", "explain": True, "filter": {"title": {"$ne": "x"}, "$or": [{"n": 1}, {"n": None}]}}
    answer = office.manager.post("/v1/retrieve", json=question).json()
    clauses = [
        {"title": {"$ne": "x"}},
        {"$or": [{"metadata.n": {"$eq": 1}}, {"metadata.n": {"$exists": False}}]},
    ]
    assert all(hit["explain"]["filter"] == clauses for hit in answer["results"])
    assert answer["plan"]["stages_ms"].keys() == {"embed", "search", "confirm", "explain"}
    assert answer["plan"]["index_versions"] == [answer["results"][0]["provenance"]["index_version"]]
    assert [hit["explain"]["fused_rank"] for hit in answer["results"]] == [hit["rank"] for hit in answer["results"]]
    assert all(hit["explain"]["moves"] == {} for hit in answer["results"])


class ByLength:
    """A reranker with a simple taste."""

    def rerank(self, query: str, passages: Sequence[str]) -> list[float] | None:
        return [float(len(passage)) for passage in passages]


def test_what_a_reranker_moved_is_told(office: Team) -> None:
    runtime = office.service.runtime
    retriever = Retriever(
        runtime.database,
        vectors=runtime.vectors,
        pipelines=runtime.pipelines,
        reranker=ByLength(),
        candidates=100,
        read_text=runtime.blobs.get,
    )
    answer: Retrieval = retriever.retrieve(
        RetrievalRequest("parking room", explain=True), Principal(office.id, manages=True)
    )
    notes: list[Any] = [hit.explain for hit in answer.hits]
    assert sorted(note["fused_rank"] for note in notes) == [1, 2, 3, 4]
    assert notes[0]["moves"]["rerank_score"] == answer.hits[0].score == len(answer.hits[0].chunk.chunk.content.text)
    assert [note["moves"]["rerank_delta"] for note in notes] == [
        note["fused_rank"] - rank for rank, note in enumerate(notes, start=1)
    ]
    assert any(note["moves"]["rerank_delta"] for note in notes), "else this test shows nothing"


def test_an_explanation_costs_nothing_unless_asked_for(office: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, searches = office.service.runtime, []
    genuine = runtime.vectors.search

    def counted(index: str, request: SearchRequest, scope: Any) -> Any:
        searches.append(request)
        return genuine(index, request, scope)

    monkeypatch.setattr(runtime.vectors, "search", counted)
    office.retrieve("leave parking room")
    assert len(searches) == 1
    office.retrieve("leave parking room", explain=True)
    assert len(searches) == 1 + 1 + 3, "one more for each term"


def test_a_word_names_a_term_only_where_no_smaller_one_does() -> None:
    encoder = Bm25Encoder(10)
    (vector,) = encoder.encode(["user name"], "document")
    user, name = sorted(vector.indices, key=lambda term: term not in encoder.encode(["user"], "query")[0].indices)
    wanted = frozenset({user, name})
    assert spellings(["user-name"], encoder, wanted) == {user: ["user"], name: ["name"]}
    assert spellings(["user_name of Users"], encoder, wanted) == {user: ["user", "Users"], name: ["name"]}
    assert spellings(["UserName"], encoder, wanted) == {user: ["User"], name: ["Name"]}
    assert spellings(["nothing here"], encoder, wanted) == {}
