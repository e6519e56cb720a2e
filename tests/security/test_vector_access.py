"""Nobody finds a chunk that she may not read, and everybody finds all that she may: against a plain-Python model.

The same check is run on stores that are broken on purpose; a check that they pass would be worth nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from rag_service.access import MANAGE, PUBLIC, AccessScope, AccessTokens
from rag_service.types import AllOf, AnyOf, Compare, Filter, Not, SparseVector
from rag_service.vectors import conditions, legs
from rag_service.vectors.base import Candidate, IndexSpec, SearchRequest, VectorPoint, VectorStore
from rag_service.vectors.conditions import EVERYTHING, Every, Match
from rag_service.vectors.edge import EdgeVectorStore
from tests.access_model import matches, visible

DIMENSIONS = 8
QUERIES_PER_WORLD = 2000
COMMON_TERM = 0  # in every document, so that the lexical leg can draw each of them
PEOPLE = [f"user:{number}" for number in range(12)]
GROUPS = [f"group:{number}" for number in range(6)]


@dataclass(frozen=True)
class World:
    """Documents of two teams in one index, about `share` of them open to everybody of their team."""

    index: str
    share: float
    documents: tuple[VectorPoint, ...]
    scopes: tuple[AccessScope, ...]
    filters: tuple[Filter | None, ...]


@dataclass(frozen=True)
class Violation:
    kind: str
    world: str
    chunk_ids: frozenset[str]


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    sizes = {0.0: 1000, 0.01: 1000, 0.1: 300, 0.5: 100, 0.98: 100}
    return [_world(random.Random(f"world {share}"), share, size) for share, size in sizes.items()]


@pytest.fixture(scope="module")
def store(worlds: list[World], tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeVectorStore]:
    store = EdgeVectorStore(tmp_path_factory.mktemp("vectors"))
    for world in worlds:
        store.create(world.index, IndexSpec(DIMENSIONS))
        store.upsert(world.index, world.documents)
    yield store
    store.close()


def test_ten_thousand_random_searches_find_what_may_be_read_and_nothing_else(
    store: EdgeVectorStore, worlds: list[World]
) -> None:
    assert QUERIES_PER_WORLD * len(worlds) == 10_000
    assert list(violations(store, worlds)) == []


def test_the_worlds_reach_from_one_readable_document_in_a_thousand_to_nine_in_ten(worlds: list[World]) -> None:
    shares = [
        sum(visible(scope, document) for document in world.documents) / len(world.documents)
        for world in worlds
        for scope in world.scopes
    ]
    assert 0 < min(share for share in shares if share) <= 0.001
    assert max(shares) >= 0.9
    assert {0.01, 0.1, 0.5} == {
        mark for mark in (0.01, 0.1, 0.5) if any(mark / 2 < share < mark * 2 for share in shares)
    }


def test_a_store_that_forgets_the_deny_condition_is_caught(
    store: EdgeVectorStore, worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legs, "mandatory", _mandatory_without("deny"))
    assert _first(violations(store, worlds)) == "leak"


def test_a_store_that_forgets_the_team_condition_is_caught(
    store: EdgeVectorStore, worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legs, "mandatory", _mandatory_without("team"))
    assert _first(violations(store, worlds)) == "leak"


def test_a_store_that_forgets_the_filter_once_in_a_thousand_searches_is_caught(
    store: EdgeVectorStore, worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = count(1)

    def sometimes(scope: AccessScope, narrowing: Filter | None) -> Every:
        return Every((EVERYTHING,)) if next(searches) % 1000 == 0 else conditions.mandatory(scope, narrowing)

    monkeypatch.setattr(legs, "mandatory", sometimes)
    assert _first(violations(store, worlds)) == "leak"


def test_a_store_that_filters_after_drawing_is_caught(
    store: EdgeVectorStore, worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legs, "mandatory", lambda scope, narrowing: Every((EVERYTHING,)))
    assert _first(violations(_FilteringLate(store, worlds), worlds)) == "missing"


def test_a_readers_scores_do_not_move_when_a_thousand_documents_arrive_that_she_cannot_read(
    store: EdgeVectorStore,
) -> None:
    before, after = _scores_around_foreign_documents(store, "unmoved")
    assert after == before


def test_scores_that_count_foreign_documents_are_caught(
    store: EdgeVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legs, "readable", lambda scope: Every((EVERYTHING,)))
    before, after = _scores_around_foreign_documents(store, "moved")
    assert after != before


def violations(store: VectorStore | _FilteringLate, worlds: Sequence[World]) -> Iterator[Violation]:
    """Random searches, half of them deep enough to return every match; each answer compared with the model."""
    for world in worlds:
        rng = random.Random(f"queries {world.index}")
        readable = [{d.chunk_id for d in world.documents if visible(scope, d)} for scope in world.scopes]
        matching = [{d.chunk_id for d in world.documents if matches(f, d.fields)} for f in world.filters]
        for _ in range(QUERIES_PER_WORLD):
            who, what = rng.randrange(len(readable)), rng.randrange(len(matching))
            expected = readable[who] & matching[what]
            limit = len(expected) + 3 if rng.random() < 0.5 else rng.randrange(1, 8)
            dense, lexical = rng.choice([(True, True), (True, False), (False, True)])
            request = SearchRequest(
                _vector(rng) if dense else None, _terms(rng) if lexical else None, world.filters[what], limit
            )
            answer = store.search(world.index, request, world.scopes[who])
            yield from _judge(world, expected, request, answer)


def _judge(
    world: World, expected: set[str], request: SearchRequest, answer: Sequence[Candidate]
) -> Iterator[Violation]:
    if leaked := {candidate.chunk_id for candidate in answer} - expected:
        yield Violation("leak", world.index, frozenset(leaked))
    for asked, leg in ((request.dense, "dense_rank"), (request.lexical, "lexical_rank")):
        drawn = {candidate.chunk_id for candidate in answer if getattr(candidate, leg) is not None}
        if asked is not None and len(drawn) < min(request.limit, len(expected)):
            yield Violation("missing", world.index, frozenset(expected - drawn))


class _FilteringLate:
    """Draws candidates from everything and drops the forbidden ones afterwards."""

    def __init__(self, store: VectorStore, worlds: Sequence[World]) -> None:
        self._store = store
        self._documents = {world.index: {d.chunk_id: d for d in world.documents} for world in worlds}

    def search(self, index: str, request: SearchRequest, scope: AccessScope) -> list[Candidate]:
        documents = self._documents[index]
        return [
            candidate
            for candidate in self._store.search(index, request, scope)
            if visible(scope, documents[candidate.chunk_id])
            and matches(request.narrowing, documents[candidate.chunk_id].fields)
        ]


def _first(found: Iterator[Violation]) -> str | None:
    return next((violation.kind for violation in found), None)


def _mandatory_without(key: str) -> Any:
    def broken(scope: AccessScope, narrowing: Filter | None) -> Every:
        kept = [c for c in conditions.mandatory(scope, narrowing).conditions if _key(c) != key]
        return Every(tuple(kept))

    return broken


def _key(condition: conditions.Condition) -> str | None:
    inner = condition.condition if isinstance(condition, conditions.Without) else condition
    return inner.key if isinstance(inner, Match) else None


def _world(rng: random.Random, share: float, size: int) -> World:
    index = f"world-{int(share * 100)}"
    scopes = [
        AccessScope("acme", frozenset({PUBLIC, person, *rng.sample(GROUPS, rng.randrange(3) if share else 0)}))
        for person in PEOPLE
    ]
    scopes += [AccessScope("acme", frozenset({PUBLIC})), AccessScope("acme", frozenset({PUBLIC, MANAGE}))]
    scopes += [
        AccessScope("acme", frozenset({"user:stranger"})),
        AccessScope("other", frozenset({PUBLIC, *PEOPLE[:2]})),
    ]
    documents = tuple(_document(rng, index, number, share) for number in range(size))
    filters = [None, *(_filter(rng, depth=2) for _ in range(30))]
    return World(index, share, documents, tuple(scopes), tuple(filters))


def _document(rng: random.Random, index: str, number: int, share: float) -> VectorPoint:
    allow = [MANAGE]
    if rng.random() < share:
        allow.append(PUBLIC)
    if number < len(PEOPLE):
        allow.append(PEOPLE[number])
    if rng.random() < share:
        allow.append(rng.choice(GROUPS))
    deny = rng.sample([*PEOPLE, *GROUPS], 2) if rng.random() < 0.1 and number >= len(PEOPLE) else []
    return VectorPoint(
        chunk_id=str(UUID(int=rng.getrandbits(128))),
        team="other" if number >= len(PEOPLE) and rng.random() < 0.05 + 0.3 * (share < 0.9) else "acme",
        document_id=f"{index}/{number}",
        version=1,
        text_hash="",
        dense=_vector(rng),
        lexical=_terms(rng),
        access=AccessTokens(tuple(allow), tuple(deny)),
        fields={
            "kind": rng.choice(["memo", "report", "mail"]),
            "metadata": {"size": rng.randrange(10), "tags": rng.sample(["x", "y", "z"], rng.randrange(3))},
            "day": f"2026-01-{rng.randrange(1, 29):02}",
        },
    )


def _filter(rng: random.Random, depth: int) -> Filter:
    if depth == 0 or rng.random() < 0.5:
        return _comparison(rng)
    parts = tuple(_filter(rng, depth - 1) for _ in range(rng.randrange(3)))
    made: list[Filter] = [AllOf(parts), AnyOf(parts), Not(_filter(rng, depth - 1))]
    return rng.choice(made)


def _comparison(rng: random.Random) -> Filter:
    return rng.choice(
        [
            Compare("kind", rng.choice(["eq", "ne"]), rng.choice(["memo", "report", "mail"])),
            Compare("metadata.size", rng.choice(["gt", "gte", "lt", "lte", "eq"]), rng.randrange(10)),
            Compare("metadata.tags", rng.choice(["in", "nin"]), tuple(rng.sample(["x", "y", "z"], 2))),
            Compare("day", rng.choice(["gt", "lte"]), f"2026-01-{rng.randrange(1, 29):02}"),
        ]
    )


def _vector(rng: random.Random) -> np.ndarray[Any, np.dtype[np.float32]]:
    vector = np.array([rng.gauss(0, 1) for _ in range(DIMENSIONS)], dtype=np.float32)
    return vector / np.linalg.norm(vector)


def _terms(rng: random.Random) -> SparseVector:
    terms = [COMMON_TERM, *rng.sample(range(1, 40), 4)]
    return SparseVector(terms, [1 + rng.random() for _ in terms])


def _scores_around_foreign_documents(
    store: EdgeVectorStore, index: str
) -> tuple[list[list[Candidate]], list[list[Candidate]]]:
    """What Ann finds by 200 searches, before and after others add 1,000 documents full of the same terms."""
    rng = random.Random(index)
    ann = AccessScope("acme", frozenset({PUBLIC, "user:ann", "group:hr"}))
    requests = [SearchRequest(_vector(rng), _terms(rng), None, 20) for _ in range(200)]
    store.create(index, IndexSpec(DIMENSIONS))
    own = [_document(rng, index, number, 1.0) for number in range(300)]
    store.upsert(index, [replace(d, team="acme", access=AccessTokens((PUBLIC,), ())) for d in own])
    before = [store.search(index, request, ann) for request in requests]
    foreign = [
        replace(_document(rng, index, 300 + number, 1.0), team=team, access=access)
        for number, (team, access) in enumerate(
            [
                ("other", AccessTokens((PUBLIC,), ())),
                ("acme", AccessTokens((MANAGE, "user:bob"), ())),
                ("acme", AccessTokens((PUBLIC, "group:hr"), ("user:ann",))),
                ("acme", AccessTokens((), ())),
            ]
            * 250
        )
    ]
    store.upsert(index, foreign)
    assert not any(visible(ann, document) for document in foreign)
    return before, [store.search(index, request, ann) for request in requests]
