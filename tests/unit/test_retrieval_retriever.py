"""The read path over a real metadata database: who gets which passages, in which order, and what it says of itself."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from connectors.base import Acl
from rag_service.access import MANAGE, PUBLIC, AccessScope, Principal, tokens_of
from rag_service.chunking.structure import StructureChunker
from rag_service.db import Database, chunks, collections, documents, indexed, teams
from rag_service.embedding.base import TextKind
from rag_service.embedding.hashing import HashingEmbedder
from rag_service.embedding.lexical import Bm25Encoder
from rag_service.errors import Conflict, CredentialsRefused, FatalError, NotFound, RagError, RetryableError
from rag_service.observe.logs import JsonLines
from rag_service.pipelines import Pipelines
from rag_service.reranking.base import NullReranker, Reranker
from rag_service.retrieval import retriever
from rag_service.retrieval.course import Course
from rag_service.retrieval.filters import parse_filter
from rag_service.retrieval.fusion import Fused
from rag_service.retrieval.plan import FusionSpec, RetrievalRequest
from rag_service.retrieval.refining import Found
from rag_service.retrieval.retriever import Retrieval, Retriever
from rag_service.types import Chunk, ChunkText, ConfirmedChunk, IndexVersion, utc_now
from rag_service.vectors.base import Candidate, IndexSpec, SearchRequest, VectorPoint
from rag_service.vectors.edge import EdgeVectorStore

EVERYBODY = Acl(public=True)
ANN = Principal("acme", "ann", frozenset({"staff"}))
NOBODY = Principal("acme")
CHUNKER = StructureChunker(HashingEmbedder().token_spans, 160)
LEXICAL = Bm25Encoder(average_length=5)
MANAGER = Principal("acme", manages=True)


class Shelf(EdgeVectorStore):
    """The embedded store, which notes what it is asked and can be told to forget its access filter."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.searches: list[SearchRequest] = []
        self.leaks = False

    def search(self, index: str, request: SearchRequest, scope: AccessScope) -> list[Candidate]:
        self.searches.append(request)
        return super().search(index, request, AccessScope(scope.team, frozenset({MANAGE})) if self.leaks else scope)


class BrokenEmbedder(HashingEmbedder):
    def __init__(self, error: type[RagError] = RetryableError) -> None:
        super().__init__()
        self._error = error

    def embed(self, texts: Sequence[str], kind: TextKind) -> np.ndarray[Any, np.dtype[np.float32]]:
        raise self._error("The embedding model does not answer.")


class Library:
    """A database and a shelf with the same documents, as indexing would leave them."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite:///{folder / 'rag.db'}")
        self.database.migrate()
        self.shelf = Shelf(folder / "vectors")
        self.embedder = HashingEmbedder()
        self.reranker: Reranker = NullReranker()
        self.indexes: dict[tuple[str, str], IndexVersion] = {}

    def collection(self, team: str, name: str = "default") -> IndexVersion:
        if (team, name) not in self.indexes:
            with self.database.transaction() as transaction:
                made = collections.create(transaction.connection, team, name, description="", language="english")
                self.indexes[team, name] = collections.add_index(
                    transaction.connection,
                    made.id,
                    embedder=self.embedder.identity,
                    chunker="plain",
                    analyser=LEXICAL.identity,
                    average_length=10,
                )
            self.shelf.create(self.indexes[team, name].id, IndexSpec(self.embedder.identity.dimensions))
        return self.indexes[team, name]

    def add(self, name: str, *texts: str, acl: Acl = EVERYBODY, team: str = "acme", collection: str = "default") -> str:
        """A document `name` with one chunk per text; its id."""
        index = self.collection(team, collection)
        document_id = f"{team}-{name}"
        values = {
            "team_id": team,
            "collection_id": index.collection_id,
            "source_id": "src",
            "external_id": name,
            "title": name.title(),
            "uri": f"file:///{name}",
            "media_type": "text/plain",
            "metadata": {"n": name},
            "acl": acl,
            "content_hash": "c0ffee",
            "blob_key": "",
            "size_bytes": 1,
            "parser": "text",
        }
        with self.database.transaction() as transaction:
            stored = documents.add(transaction.connection, document_id, values, tokens_of(acl))
        assert stored is not None
        self._index(stored, index, texts, acl)
        return document_id

    def update(self, document_id: str, *texts: str, acl: Acl = EVERYBODY) -> None:
        """A next version; the points of the former stay on the shelf."""
        with self.database.read() as connection:
            stored = documents.load(connection, document_id)
        assert stored is not None
        index = next(one for one in self.indexes.values() if one.collection_id == stored.collection_id)
        self._index(replace(stored, version=stored.version + 1), index, texts, acl)

    def _index(self, stored: documents.Document, index: IndexVersion, texts: Sequence[str], acl: Acl) -> None:
        version, new = stored.version, []
        for ordinal, text in enumerate(texts):
            chunk_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{stored.id}/{version}/{ordinal}"))
            new.append(Chunk(chunk_id, stored.id, version, ordinal, ChunkText(text, 0, len(text), 1, ("Top",)), "hash"))
        access, fields = tokens_of(acl), {"title": stored.title, "metadata": dict(stored.metadata)}
        dense, lexical = self.embedder.embed(texts, "document"), LEXICAL.encode(texts, "document")
        points = [
            VectorPoint(one.id, stored.team_id, stored.id, version, "hash", dense[n], lexical[n], access, fields)
            for n, one in enumerate(new)
        ]
        self.shelf.upsert(index.id, points)
        held = {"version": version, "content_hash": "c0ffee", "text_key": None, "parser": "text", "outline": None}
        held |= {"chunk_count": len(new), "term_count": 0, "calibration": 0, "searchable_at": utc_now()}
        with self.database.transaction() as transaction:
            connection = transaction.connection
            values = {"version": version, "status": "ready", **indexed.repeated(index, held)}
            assert documents.change(connection, stored, values)
            chunks.replace(connection, index.id, stored.id, new)
            indexed.note(connection, index, stored.id, held)

    def revoke(self, *document_ids: str) -> None:
        """Take a document from everybody, in the database only: the shelf has not heard of it yet."""
        with self.database.transaction() as transaction:
            for document_id in document_ids:
                stored = documents.load(transaction.connection, document_id)
                assert stored is not None
                assert documents.change(transaction.connection, stored, {"acl": Acl()}, tokens_of(Acl()))

    def retriever(self, kind: type[Retriever] = Retriever, candidates: int = 100) -> Retriever:
        return kind(
            self.database,
            vectors=self.shelf,
            pipelines=Pipelines(lambda _: self.embedder, lambda _: CHUNKER, lambda _: LEXICAL),
            reranker=self.reranker,
            candidates=candidates,
            read_text=self.read_text,
        )

    def read_text(self, key: str) -> bytes:
        raise NotFound(key)

    def ask(self, query: str, who: Principal = ANN, **wanted: Any) -> Retrieval:
        return self.retriever().retrieve(RetrievalRequest(query, **wanted), who)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    made = Library(tmp_path)
    with made.database.transaction() as transaction:
        for team in ("acme", "rival"):
            teams.create(transaction.connection, team, team)
    made.collection("acme")
    yield made
    made.shelf.close()
    made.database.close()


def names(answer: Retrieval) -> list[str]:
    return [hit.chunk.external_id for hit in answer.hits]


# --- the answer ---------------------------------------------------------------------------


def test_the_best_passage_comes_first_with_everything_a_citation_needs(library: Library) -> None:
    library.add("parking", "parking is free")
    document_id = library.add("leave", "annual leave is long", "sick leave is paid")
    answer = library.ask("annual leave")
    first = answer.hits[0]
    assert answer.query_id.startswith("q_")
    assert [hit.rank for hit in answer.hits] == [1, 2, 3]
    assert (first.chunk.external_id, first.chunk.title, first.chunk.uri) == ("leave", "Leave", "file:///leave")
    assert first.chunk.chunk.content.text == "annual leave is long"
    assert (first.chunk.chunk.document_id, first.chunk.chunk.id) == (document_id, first.candidate.chunk_id)
    assert first.chunk.collection == "default"
    assert first.chunk.index_version == library.collection("acme").id
    assert first.chunk.embedding_model == library.embedder.identity.name
    assert (first.candidate.dense_rank, first.candidate.lexical_rank) == (1, 1)
    assert first.score == first.fused == pytest.approx(0.7 * (first.candidate.dense or 0) + 0.3)
    assert answer.degraded == ()


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_scores_fall_along_the_ranks_in_every_mode(library: Library, mode: str) -> None:
    for n in range(8):
        library.add(f"d{n}", "leave " * (n + 1) + "and other words " * (8 - n))
    answer = library.ask("leave", mode=mode)
    assert len(answer.hits) == 8
    assert [hit.score for hit in answer.hits] == sorted((hit.score for hit in answer.hits), reverse=True)


@pytest.mark.parametrize(
    ("mode", "asked"), [("dense", (True, False)), ("lexical", (False, True)), ("hybrid", (True, True))]
)
def test_a_mode_asks_its_legs_only(library: Library, mode: str, asked: tuple[bool, bool]) -> None:
    library.add("leave", "annual leave")
    hit = library.ask("leave", mode=mode).hits[0]
    assert [(one.dense is not None, one.lexical is not None) for one in library.shelf.searches] == [asked]
    assert (hit.candidate.dense is not None, hit.candidate.lexical is not None) == asked
    if mode != "hybrid":
        assert hit.score == (hit.candidate.dense if mode == "dense" else hit.candidate.lexical)


def test_top_k_cuts_the_answer(library: Library) -> None:
    for n in range(5):
        library.add(f"d{n}", "leave")
    assert len(library.ask("leave", top_k=3).hits) == 3
    assert len(library.ask("leave", top_k=100).hits) == 5


def test_min_score_drops_what_scores_lower(library: Library) -> None:
    library.add("leave", "annual leave")
    library.add("parking", "parking is free")
    scores = [hit.score for hit in library.ask("annual leave").hits]
    assert len(library.ask("annual leave", min_score=scores[1]).hits) == 2
    assert names(library.ask("annual leave", min_score=scores[1] + 1e-9)) == ["leave"]
    assert names(library.ask("annual leave", min_score=scores[0] + 1e-9)) == []


def test_a_cap_per_document_lets_other_documents_through(library: Library) -> None:
    library.add("long", *[f"leave leave leave {n}" for n in range(60)])
    for n in range(5):
        library.add(f"short{n}", "leave and parking and lunch")
    answer = library.retriever(candidates=10).retrieve(
        RetrievalRequest("leave", top_k=7, max_chunks_per_document=2), ANN
    )
    assert sorted(names(answer)) == ["long", "long", "short0", "short1", "short2", "short3", "short4"]


def test_a_question_of_stop_words_has_no_lexical_leg(library: Library) -> None:
    library.add("leave", "annual leave")
    assert library.ask("the", mode="lexical").hits == ()
    answer = library.ask("the")
    assert [one.lexical for one in library.shelf.searches] == [None]
    assert names(answer) == ["leave"]
    assert answer.degraded == ()


@pytest.mark.parametrize(
    ("written", "finds"),
    [
        ({"n": "leave"}, {"leave"}),
        ({"n": {"$ne": "leave"}}, {"parking", "lunch"}),
        ({"n": {"$in": ["leave", "lunch"]}}, {"leave", "lunch"}),
        ({"title": "Parking"}, {"parking"}),
        ({"$or": [{"title": "Parking"}, {"metadata.n": "lunch"}]}, {"parking", "lunch"}),
        ({"$not": {"title": "Parking"}, "n": {"$exists": True}}, {"leave", "lunch"}),
        ({"absent": {"$exists": False}}, {"leave", "parking", "lunch"}),
        ({"absent": None, "n": {"$not": {"$eq": "lunch"}}}, {"leave", "parking"}),
        ({"absent": {"$gt": 1}}, set()),
    ],
)
@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_a_filter_narrows_every_leg(library: Library, mode: str, written: object, finds: set[str]) -> None:
    for name in ("leave", "parking", "lunch"):
        library.add(name, "all about the office")
    library.add("closed", "all about the office", acl=Acl(users=("bob",)))
    assert set(names(library.ask("office", mode=mode, filter=parse_filter(written)))) == finds


def test_an_empty_collection_answers_with_nothing(library: Library) -> None:
    assert library.ask("leave").hits == ()


def test_highlights_are_spans_of_the_chunk_and_come_on_request(library: Library) -> None:
    library.add("leave", "The office is open. Annual leave is long. Parking is free.")
    hit = library.ask("annual leave", highlight=True).hits[0]
    assert [hit.chunk.chunk.content.text[start:end] for start, end in hit.highlights] == ["Annual leave is long."]
    assert library.ask("annual leave").hits[0].highlights == ()


@pytest.mark.parametrize("fusion", [FusionSpec(), FusionSpec("rrf", dense_weight=2, k=10)])
def test_an_explanation_adds_up_to_the_score(library: Library, fusion: FusionSpec) -> None:
    library.add("leave", "annual leave")
    library.add("parking", "parking is free")
    for hit in library.ask("annual leave", fusion=fusion, explain=True).hits:
        explain: Any = hit.explain
        assert set(explain["legs"]) == {"dense", "lexical"}
        assert sum(leg["contribution"] for leg in explain["legs"].values()) == pytest.approx(hit.fused)
        assert [leg["weight"] for leg in explain["legs"].values()] == list(fusion.weights)
        assert explain["legs"]["dense"]["score"] == hit.candidate.dense
        assert explain["legs"]["lexical"]["rank"] == hit.candidate.lexical_rank
    assert library.ask("annual leave").hits[0].explain is None


def test_the_answer_tells_its_plan_and_its_timings(library: Library) -> None:
    library.add("leave", "annual leave")
    answer = library.ask("leave", fusion=FusionSpec("rrf"))
    usage = answer.usage
    assert 0 < usage.embed_ms + usage.search_ms + usage.confirm_ms <= usage.total_ms
    assert answer.plan["legs"] == ["dense", "lexical"]
    assert answer.plan["collections"] == ["default"]
    assert answer.plan["fusion"] == {
        "method": "rrf",
        "weights": {"dense": 1.0, "lexical": 1.0},
        "because": "the method's own",
        "k": 60,
    }
    assert library.ask("leave", mode="dense").plan["fusion"] is None


def test_the_log_has_counts_and_timings_but_no_text(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    library.add("leave", "confidential salary figures", acl=Acl(users=("ann",)))
    with caplog.at_level(logging.DEBUG, logger="rag_service"):
        answer = library.ask("confidential salary question")
    line = JsonLines().format(caplog.records[-1])
    told = json.loads(line)
    assert told["query_id"] == answer.query_id
    assert told["hits"] == 1
    assert told["total_ms"] > 0
    for secret in ("confidential", "salary", "question", "figures", "ann"):
        assert secret not in line


# --- access -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "reads"),
    [
        (NOBODY, {"public"}),
        (ANN, {"public", "anns", "staffs"}),
        (Principal("acme", "bob", frozenset({"staff"})), {"public", "staffs", "not anns"}),
        (MANAGER, {"public", "anns", "staffs", "not anns", "nobodys"}),
        (Principal("rival", "ann", frozenset({"staff"})), {"rivals"}),
    ],
)
def test_everyone_finds_exactly_what_they_may_read(library: Library, who: Principal, reads: set[str]) -> None:
    library.add("public", "leave")
    library.add("anns", "leave", acl=Acl(users=("ann",)))
    library.add("staffs", "leave", acl=Acl(groups=("staff",)))
    library.add("not anns", "leave", acl=Acl(groups=("staff",), deny_users=("ann",)))
    library.add("nobodys", "leave", acl=Acl())
    library.add("rivals", "leave", team="rival")
    assert set(names(library.ask("leave", who))) == reads


def test_readable_documents_are_found_however_rare_they_are(library: Library) -> None:
    for n in range(300):
        library.add(f"closed{n}", "leave leave leave", acl=Acl(users=("bob",)))
    for n in range(4):
        library.add(f"open{n}", "parking leave", acl=Acl(users=("ann",)))
    answer = library.retriever(candidates=10).retrieve(RetrievalRequest("leave", top_k=4), ANN)
    assert sorted(names(answer)) == ["open0", "open1", "open2", "open3"]


class Trusting(Retriever):
    """Deliberately broken: believes the vector store."""

    def _confirm(
        self, passing: Sequence[Fused], window: int, request: RetrievalRequest, scope: AccessScope, course: Course
    ) -> list[Found]:
        everything = AccessScope(scope.team, frozenset({PUBLIC, "manage", "user:ann"}))
        return super()._confirm(passing, window, request, everything, course)


def revoked_is_hidden(library: Library, kind: type[Retriever]) -> bool:
    revoked = library.add("revoked", "leave leave leave")
    library.add("kept", "leave")
    library.revoke(revoked)
    return names(library.retriever(kind).retrieve(RetrievalRequest("leave"), ANN)) == ["kept"]


def test_a_revocation_holds_although_the_vector_store_has_not_heard_of_it(library: Library) -> None:
    assert revoked_is_hidden(library, Retriever)


def test_the_revocation_test_catches_a_retriever_that_does_not_confirm(library: Library) -> None:
    assert not revoked_is_hidden(library, Trusting)


def test_a_store_that_forgets_its_filter_leaks_nothing(library: Library) -> None:
    library.shelf.leaks = True
    library.add("open", "leave")
    library.add("bobs", "leave leave", acl=Acl(users=("bob",)))
    library.add("denied", "leave leave", acl=Acl(public=True, deny_groups=("staff",)))
    assert names(library.ask("leave")) == ["open"]


def test_deleted_documents_are_gone_at_once(library: Library) -> None:
    deleted = library.add("deleted", "leave")
    library.add("kept", "leave")
    with library.database.transaction() as transaction:
        documents.mark_deleted(transaction.connection, document_id=deleted)
    assert names(library.ask("leave", MANAGER)) == ["kept"]


def test_only_the_version_that_answers_is_found(library: Library) -> None:
    document_id = library.add("leave", "leave is short", "leave is old")
    library.update(document_id, "leave is long")
    answer = library.ask("leave is")
    assert [(hit.chunk.chunk.version, hit.chunk.chunk.content.text) for hit in answer.hits] == [(2, "leave is long")]


def found_while_it_is_replaced(library: Library, monkeypatch: pytest.MonkeyPatch, times: int) -> list[tuple[str, int]]:
    """Names and versions of an answer whose document is replaced each time after the index has been searched."""
    document_id = library.add("leave", "leave is short")
    library.add("kept", "leave")
    search, left = library.shelf.search, iter(range(times))

    def overtaken(*arguments: Any) -> list[Candidate]:
        drawn = search(*arguments)
        if next(left, None) is not None:
            library.update(document_id, "leave is long")
        return drawn

    monkeypatch.setattr(library.shelf, "search", overtaken)
    return sorted((hit.chunk.external_id, hit.chunk.chunk.version) for hit in library.ask("leave").hits)


@pytest.mark.parametrize("times", [1, 2])
def test_a_document_that_is_replaced_after_the_search_is_not_missed(
    library: Library, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    assert found_while_it_is_replaced(library, monkeypatch, times) == [("kept", 1), ("leave", 1 + times)]


def test_a_retriever_that_does_not_look_again_is_caught(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retriever, "_LOOKS_AGAIN", 0)
    assert found_while_it_is_replaced(library, monkeypatch, 1) == [("kept", 1)]


def test_what_stays_refused_is_drawn_again_once_only(library: Library) -> None:
    library.revoke(library.add("revoked", "leave leave leave"))
    library.add("kept", "leave")
    assert names(library.ask("leave")) == ["kept"]
    assert len(library.shelf.searches) == 2


def test_a_cap_per_document_is_not_used_up_by_a_version_that_is_gone(library: Library) -> None:
    document_id = library.add("leave", "leave leave leave")
    library.update(document_id, "parking and leave")
    answer = library.ask("leave", max_chunks_per_document=1)
    assert [hit.chunk.chunk.version for hit in answer.hits] == [2]


@pytest.mark.parametrize("gone", [3, 30, 150])
def test_hits_that_confirmation_drops_are_refilled(library: Library, gone: int) -> None:
    stale = [library.add(f"stale{n}", "leave leave leave") for n in range(gone)]
    for n in range(6):
        library.add(f"kept{n}", "leave and parking and lunch")
    library.revoke(*stale)
    answer = library.retriever(candidates=10).retrieve(RetrievalRequest("leave", top_k=5), ANN)
    assert len(answer.hits) == 5
    assert all(name.startswith("kept") for name in names(answer))


# --- one statement ------------------------------------------------------------------------


@pytest.fixture
def confirmed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The chunk ids of every confirming statement."""
    statements: list[list[str]] = []
    genuine = chunks.confirm

    def recorded(connection: Any, chunk_ids: Sequence[str], scope: AccessScope) -> dict[str, ConfirmedChunk]:
        statements.append(list(chunk_ids))
        return genuine(connection, chunk_ids, scope)

    monkeypatch.setattr(chunks, "confirm", recorded)
    return statements


def test_a_usual_query_searches_once_and_confirms_once(library: Library, confirmed: list[list[str]]) -> None:
    for n in range(120):
        library.add(f"d{n}", f"leave {n}")
    assert len(library.ask("leave").hits) == 10
    assert len(library.shelf.searches) == 1
    assert [len(ids) for ids in confirmed] == [20]


def test_all_hits_of_an_answer_come_from_one_statement(library: Library, confirmed: list[list[str]]) -> None:
    stale = [library.add(f"stale{n}", "leave leave leave") for n in range(25)]
    for n in range(10):
        library.add(f"kept{n}", "leave and parking and lunch")
    library.revoke(*stale)
    answer = library.ask("leave")
    assert len(answer.hits) == 10
    assert len(confirmed) > 1, "else this test shows nothing"
    assert {hit.candidate.chunk_id for hit in answer.hits} <= set(confirmed[-1])


def test_what_lacks_the_words_demanded_is_looked_at_once(library: Library, confirmed: list[list[str]]) -> None:
    for n in range(300):
        library.add(f"d{n}", f"annual report and leave {n}")
    assert library.retriever(candidates=10).retrieve(RetrievalRequest('"annual leave"'), ANN).hits == ()
    looked_at = [chunk_id for ids in confirmed for chunk_id in ids]
    assert len(looked_at) == 300
    assert len(set(looked_at)) == 300


def test_a_high_min_score_does_not_make_the_search_go_deeper(library: Library) -> None:
    for n in range(60):
        library.add(f"d{n}", "parking is free" if n else "leave")
    answer = library.retriever(candidates=10).retrieve(RetrievalRequest("leave", min_score=0.9), ANN)
    assert names(answer) == ["d0"]
    assert len(library.shelf.searches) == 1


# --- collections --------------------------------------------------------------------------


def test_named_collections_are_ranked_together(library: Library) -> None:
    library.add("a", "parking and annual leave and lunch", collection="first")
    library.add("b", "annual leave", collection="second")
    library.add("c", "annual leave leave", collection="unasked")
    answer = library.ask("annual leave", collections=("first", "second", "first"))
    assert names(answer) == ["b", "a"]
    assert [hit.chunk.collection for hit in answer.hits] == ["second", "first"]
    assert [hit.candidate.lexical_rank for hit in answer.hits] in ([1, 2], [2, 1])
    assert len(library.shelf.searches) == 2


def test_a_foreign_collection_answers_exactly_like_an_unknown_one(library: Library) -> None:
    library.collection("rival", "secret")
    messages = []
    for name in ("secret", "absent", library.collection("rival", "secret").collection_id):
        with pytest.raises(NotFound) as caught:
            library.ask("leave", collections=("default", name))
        messages.append(caught.value.message.replace(name, "X"))
    assert len(set(messages)) == 1
    assert library.shelf.searches == []


# --- when a part fails --------------------------------------------------------------------


@pytest.mark.parametrize("error", [RetryableError, CredentialsRefused, FatalError])
def test_a_hybrid_query_goes_on_without_the_embedder_and_says_so(library: Library, error: type[RagError]) -> None:
    library.add("leave", "annual leave")
    library.add("parking", "parking is free and annual")
    library.embedder = BrokenEmbedder(error)
    answer = library.ask("annual leave", explain=True)
    assert answer.degraded == ("dense leg unavailable: The embedding model does not answer.",)
    assert names(answer) == ["leave", "parking"]
    assert answer.hits[0].score == pytest.approx(1.0), "on the scale of a hybrid answer"
    plan: Any = answer.plan
    assert (plan["legs"], plan["fusion"]["because"]) == (["lexical"], "the dense leg is unavailable")
    explain: Any = answer.hits[0].explain
    assert set(explain["legs"]) == {"lexical"}


def test_a_dense_query_without_the_embedder_is_told_to_come_back(library: Library) -> None:
    library.embedder = BrokenEmbedder()
    with pytest.raises(RetryableError) as caught:
        library.ask("leave", mode="dense")
    assert caught.value.status == 503


def test_a_lexical_query_does_not_need_the_embedder(library: Library) -> None:
    library.add("leave", "annual leave")
    library.embedder = BrokenEmbedder()
    answer = library.ask("leave", mode="lexical")
    assert names(answer) == ["leave"]
    assert answer.degraded == ()


def test_a_collection_of_another_model_is_refused(library: Library) -> None:
    library.add("leave", "annual leave")
    library.embedder = HashingEmbedder(dimensions=library.embedder.identity.dimensions * 2)
    with pytest.raises(Conflict, match="'default' was embedded with"):
        library.ask("leave")
    assert names(library.ask("leave", mode="lexical")) == ["leave"]


def test_a_vector_store_that_does_not_answer_is_a_503_never_an_empty_answer(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> list[Candidate]:
        raise RetryableError("The vector store does not answer.")

    monkeypatch.setattr(library.shelf, "search", unavailable)
    with pytest.raises(RetryableError):
        library.ask("leave")


class ByLength:
    """A reranker with a simple taste."""

    def rerank(self, query: str, passages: Sequence[str]) -> list[float] | None:
        return [float(len(passage)) for passage in passages]


class BrokenReranker:
    def rerank(self, query: str, passages: Sequence[str]) -> list[float] | None:
        raise RetryableError("The reranker does not answer.")


def test_a_reranker_reorders_more_than_it_is_asked_to_return(library: Library) -> None:
    for n in range(12):
        library.add(f"d{n:02}", "leave" + " parking" * n)
    library.reranker = ByLength()
    answer = library.ask("leave", top_k=3)
    assert names(answer) == ["d11", "d10", "d09"]
    assert [hit.score for hit in answer.hits] == [float(len("leave" + " parking" * n)) for n in (11, 10, 9)]
    assert all(hit.fused != hit.score for hit in answer.hits)


def test_without_its_reranker_an_answer_keeps_its_order_and_says_so(library: Library) -> None:
    for n in range(4):
        library.add(f"d{n}", "leave " * (n + 1))
    plain = names(library.ask("leave"))
    library.reranker = BrokenReranker()
    answer = library.ask("leave")
    assert names(answer) == plain
    assert answer.degraded == ("reranking unavailable: The reranker does not answer.",)
