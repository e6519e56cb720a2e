"""Writers that come late: whatever the order in which writes arrive, the latest revision of a document stands."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from rag_service.access import AccessScope, AccessTokens
from rag_service.types import Compare
from rag_service.vectors import server as server_module
from rag_service.vectors import shard as shard_module
from rag_service.vectors.base import VectorPoint, VectorStore
from rag_service.vectors.conditions import EVERYTHING, Without
from rag_service.vectors.edge import EdgeVectorStore
from rag_service.vectors.server import ServerVectorStore
from tests.contracts import vector_variants
from tests.contracts.vector_variants import OPEN, SPEC, found, point

pytestmark = vector_variants.QUIET
variant, store, index = vector_variants.variant, vector_variants.store, vector_variants.index


def only(user: str) -> AccessTokens:
    return AccessTokens(allow=(f"user:{user}",), deny=())


def written(revision: int) -> VectorPoint:
    """Document `a` as somebody wrote it who read it at `revision`, when only `reader-<revision>` might read it."""
    return point("a", access=only(f"reader-{revision}"), fields={"revision": revision}, revision=revision)


def readers(store: VectorStore, index: str) -> list[int]:
    """The revisions whose reader finds the document."""
    scopes = {revision: AccessScope("acme", frozenset({f"user:reader-{revision}"})) for revision in range(1, 6)}
    return [revision for revision, scope in scopes.items() if found(store, index, scope=scope)]


Write = Callable[[VectorStore, str], None]


def upsert(revision: int) -> Write:
    return lambda store, index: store.upsert(index, [written(revision)])


def update(revision: int) -> Write:
    return lambda store, index: store.update(
        index, "a", access=only(f"reader-{revision}"), fields={"revision": revision}, revision=revision
    )


# One worker wrote at revision 1 and sleeps; meanwhile the access list changes twice and others write.
HISTORY = (upsert(2), update(3), upsert(4), update(4))


def wrong_orders(store: VectorStore, index: str) -> int:
    """In how many orders of arrival somebody else than the last revision's reader is left."""
    wrong = 0
    for order in permutations(HISTORY):
        store.delete(index, "a")
        store.upsert(index, [written(1)])
        for write in order:
            write(store, index)
        wrong += readers(store, index) != [4]
    return wrong


def test_in_every_order_of_arrival_the_latest_revision_stands(store: VectorStore, index: str) -> None:
    assert wrong_orders(store, index) == 0


def test_a_late_writer_changes_neither_access_nor_fields_nor_vectors(store: VectorStore, index: str) -> None:
    store.upsert(index, [written(2)])
    late = point("a", access=OPEN, fields={"late": True}, dense=vector_variants.unit(0, 0, 0, 1), revision=1)
    store.upsert(index, [late])
    store.update(index, "a", access=OPEN, fields={"late": True}, revision=1)
    assert readers(store, index) == [2]
    assert found(store, index) == []
    reader = AccessScope("acme", frozenset({"user:reader-2"}))
    assert found(store, index, Compare("late", "exists", True), reader) == []
    (stored,) = store.stored(index, "a", vectors=True)
    assert stored.dense is not None and stored.dense.tolist() == [1, 0, 0, 0]


def test_the_same_revision_may_write_again(store: VectorStore, index: str) -> None:
    store.upsert(index, [written(3)])
    store.upsert(index, [point("a", access=OPEN, revision=3)])
    assert found(store, index) == ["a"]
    store.update(index, "a", access=only("reader-3"), revision=3)
    assert readers(store, index) == [3]


def test_points_from_before_there_were_revisions_are_overwritten(store: VectorStore, index: str) -> None:
    store.upsert(index, [point("a")])
    store.update(index, "a", access=only("reader-1"))  # names no revision: as all did
    store.update(index, "a", access=only("reader-2"), revision=2)
    assert readers(store, index) == [2]
    store.upsert(index, [written(3)])
    assert readers(store, index) == [3]


def test_points_of_several_revisions_go_in_at_once(store: VectorStore, index: str) -> None:
    store.upsert(index, [point("a", revision=5), point("b", revision=1), point("c", revision=5)])
    late = [point(name, access=only("nobody"), revision=3) for name in "abc"]
    store.upsert(index, late)
    assert found(store, index) == ["a", "c"]


@pytest.mark.parametrize(
    "make", [EdgeVectorStore, lambda _: ServerVectorStore(lambda: QdrantClient(":memory:"))], ids=["edge", "client"]
)
def test_stores_that_do_not_compare_are_caught(
    make: Callable[[Path], VectorStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everything(_revision: int) -> Without:
        return EVERYTHING

    monkeypatch.setattr(shard_module, "not_later", everything)
    monkeypatch.setattr(server_module, "not_later", everything)
    broken = make(tmp_path / "vectors")
    broken.create("index", SPEC)
    assert wrong_orders(broken, "index") > 0
    broken.close()
