"""Who may read what holds with a graph too: random searches, the same model, the same broken stores."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from rag_service.access import PUBLIC, AccessTokens
from rag_service.vectors import graph, legs, shard
from rag_service.vectors.base import IndexSpec, VectorPoint
from rag_service.vectors.conditions import Either, Every
from rag_service.vectors.edge import EdgeVectorStore
from rag_service.vectors.legs import LegQuery
from tests.security import test_vector_access as access
from tests.security.test_vector_access import DIMENSIONS, World, violations

CHANGED = 40


@pytest.fixture(scope="module")
def world() -> World:
    return access._world(random.Random("graph"), 0.5, 300)


@pytest.fixture(scope="module")
def store(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeVectorStore]:
    """A graph of the world as it was before a part of it changed hands."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(graph, "FIRST", len(world.documents))
        patched.setattr(graph, "LEAST", len(world.documents))
        patched.setattr(graph, "_ANSWER_S", 60.0)
        store = EdgeVectorStore(tmp_path_factory.mktemp("vectors"))
        store.create(world.index, IndexSpec(DIMENSIONS))
        former = [_formerly(document) for document in world.documents[:CHANGED]]
        store.upsert(world.index, [*former, *world.documents[CHANGED:]])
        _wait_for_the_graph(store, world)
        for document in world.documents[:CHANGED]:
            store.update(world.index, document.document_id, access=document.access)
        yield store
        store.close()


def _formerly(document: VectorPoint) -> VectorPoint:
    open_to_all = AccessTokens((PUBLIC, *access.PEOPLE), ())
    return replace(document, access=open_to_all if int(document.document_id[-1]) % 2 else AccessTokens((), ()))


def _wait_for_the_graph(store: EdgeVectorStore, world: World) -> None:
    deadline = time.monotonic() + 120
    while store._shard(world.index)._graph._seeker is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def fewer_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "QUERIES_PER_WORLD", 500)


def test_random_searches_find_what_may_be_read_now_and_nothing_else(store: EdgeVectorStore, world: World) -> None:
    assert list(violations(store, [world])) == []


@pytest.mark.parametrize("forgotten", ["deny", "team"])
def test_a_store_that_forgets_a_condition_is_caught(
    store: EdgeVectorStore, world: World, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    monkeypatch.setattr(legs, "mandatory", access._mandatory_without(forgotten))
    assert access._first(violations(store, [world])) == "leak"


def test_a_store_that_lets_the_graph_decide_is_caught(
    store: EdgeVectorStore, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = shard._near

    def trusting(query: LegQuery, proposal: graph.Proposal | None) -> LegQuery | None:
        near = asked(query, proposal)
        if near is None or not isinstance(near.where.conditions[0], Either):
            return near
        return replace(near, where=Every(near.where.conditions[0].conditions[:1]))

    monkeypatch.setattr(shard, "_near", trusting)
    assert "leak" in {violation.kind for violation in violations(store, [world])}
