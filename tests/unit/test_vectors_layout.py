"""What a Qdrant server is asked for when an index is made; the server itself is not needed to see it."""

from __future__ import annotations

from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from rag_service.access import PUBLIC, AccessScope
from rag_service.types import Compare
from rag_service.vectors.base import IndexSpec, Storage
from rag_service.vectors.conditions import Condition, Either, Every, Match, Range, Without, mandatory, of_document
from rag_service.vectors.server import ServerVectorStore
from tests.contracts.vector_variants import QUIET, point

pytestmark = QUIET


class Recording(QdrantClient):
    """The client's in-process engine, which also remembers what it was asked to make and how it was written to."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.made: list[dict[str, Any]] = []
        self.indexed: dict[str, Any] = {}
        self.orderings: list[Any] = []

    def create_collection(self, collection_name: str, *args: Any, **asked: Any) -> bool:
        self.made.append(asked)
        return super().create_collection(collection_name, *args, **asked)

    def create_payload_index(
        self, collection_name: str, field_name: str, field_schema: Any = None, *args: Any, **asked: Any
    ) -> Any:
        self.indexed[field_name] = field_schema
        return super().create_payload_index(collection_name, field_name, field_schema, *args, **asked)

    def upsert(self, *args: Any, **asked: Any) -> Any:
        self.orderings.append(asked.get("ordering"))
        return super().upsert(*args, **asked)

    def set_payload(self, *args: Any, **asked: Any) -> Any:
        self.orderings.append(asked.get("ordering"))
        return super().set_payload(*args, **asked)

    def delete(self, *args: Any, **asked: Any) -> Any:
        self.orderings.append(asked.get("ordering"))
        return super().delete(*args, **asked)


@pytest.fixture
def client() -> Recording:
    return Recording()


def made(client: Recording, storage: Storage | None = None, **wished: Any) -> dict[str, Any]:
    """What a store with this default is asked for when a collection wishes this."""
    store = ServerVectorStore(lambda: client, storage=storage)
    store.create("index", IndexSpec(4, wished))
    (asked,) = client.made
    return asked


def test_by_default_one_machine_holds_one_shard_in_memory(client: Recording) -> None:
    asked = made(client)
    assert (asked["shard_number"], asked["replication_factor"], asked["write_consistency_factor"]) == (1, 1, 1)
    assert asked["vectors_config"]["dense"].on_disk is None
    assert asked["quantization_config"] is None
    assert asked["sparse_vectors_config"]["lexical"].modifier == models.Modifier.IDF


@pytest.mark.parametrize(("replicas", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_a_write_counts_when_most_replicas_have_it(client: Recording, replicas: int, needed: int) -> None:
    asked = made(client, replicas=replicas, shards=6)
    assert (asked["shard_number"], asked["replication_factor"]) == (6, replicas)
    assert asked["write_consistency_factor"] == needed


def test_what_a_collection_leaves_open_the_settings_decide(client: Recording) -> None:
    asked = made(client, Storage(shards=2, replicas=3, quantisation="int8"), shards=8)
    assert (asked["shard_number"], asked["replication_factor"]) == (8, 3)
    assert isinstance(asked["quantization_config"], models.ScalarQuantization)


def test_on_disk_leaves_vectors_graph_and_words_there(client: Recording) -> None:
    asked = made(client, on_disk=True)
    assert asked["vectors_config"]["dense"].on_disk is True
    assert asked["hnsw_config"].on_disk is True
    assert asked["sparse_vectors_config"]["lexical"].index.on_disk is True


def test_quantised_copies_stay_in_memory(client: Recording) -> None:
    asked = made(client, on_disk=True, quantisation="binary")
    assert asked["quantization_config"].binary.always_ram is True


def keys(condition: Condition) -> set[str]:
    match condition:
        case Match(key) | Range(key):
            return {key}
        case Every(parts) | Either(parts):
            return set().union(*map(keys, parts))
        case Without(part):
            return keys(part)
        case _:
            return set()


def test_every_key_that_a_filter_names_has_an_index(client: Recording) -> None:
    store = ServerVectorStore(lambda: client)
    store.create("index", IndexSpec(4))
    store.upsert("index", [point("a", fields={"colour": "red", "size": 4, "day": "2026-01-31"})])
    scope = AccessScope("acme", frozenset({PUBLIC}))
    asked = [
        mandatory(scope, None),
        mandatory(scope, Compare("colour", "eq", "red")),
        mandatory(scope, Compare("size", "gt", 1)),
        mandatory(scope, Compare("day", "lt", "2026-02-01")),
        of_document("a", older_than=2, revision=3),
        of_document("a", only=2),
    ]
    filtered = set().union(*map(keys, asked))
    assert {"team", "allow", "deny", "document_id", "version", "revision", "terms"} < filtered
    assert filtered <= set(client.indexed)


def test_all_writes_of_a_shard_come_in_one_order(client: Recording) -> None:
    store = ServerVectorStore(lambda: client)
    store.create("index", IndexSpec(4))
    store.upsert("index", [point("a")])
    store.update("index", "a", fields={"n": 1}, revision=1)
    store.delete("index", "a")
    assert client.orderings == [models.WriteOrdering.MEDIUM] * 3
