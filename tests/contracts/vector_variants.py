"""The variants that every vector-store contract runs over, and the points it writes into them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid4, uuid5

import numpy as np
import pytest
from qdrant_client import QdrantClient

from rag_service.access import PUBLIC, AccessScope, AccessTokens
from rag_service.types import Filter, SparseVector
from rag_service.vectors.base import Candidate, IndexSpec, SearchRequest, VectorPoint, VectorStore
from rag_service.vectors.edge import EdgeVectorStore
from rag_service.vectors.server import ServerVectorStore, connect_to

# The client's in-process engine says so at every index and every search.
QUIET = pytest.mark.filterwarnings(
    "ignore:Payload indexes have no effect in the local Qdrant:UserWarning",
    "ignore:Local mode performs exact .brute-force. search:UserWarning",
)

SPEC = IndexSpec(dimensions=4)
OPEN = AccessTokens(allow=(PUBLIC,), deny=())
ANYONE = AccessScope(team="acme", tokens=frozenset({PUBLIC}))


@dataclass(frozen=True)
class Variant:
    """A store and what its engine can do: the client's in-process engine breaks when threads meet in it."""

    make: Callable[[Path], VectorStore]
    threads: bool = True


VARIANTS = {
    "edge": Variant(EdgeVectorStore),
    "client": Variant(lambda _: ServerVectorStore(lambda: QdrantClient(":memory:")), threads=False),
    "server": Variant(
        lambda _: ServerVectorStore(connect_to(os.environ["RAG_TEST_QDRANT_URL"]), prefix=f"test{uuid4().hex[:8]}_")
    ),
}


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Variant:
    if request.param == "server" and "RAG_TEST_QDRANT_URL" not in os.environ:
        pytest.skip("RAG_TEST_QDRANT_URL names no server")
    return VARIANTS[request.param]


@pytest.fixture(scope="module")
def store(variant: Variant, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorStore]:
    store = variant.make(tmp_path_factory.mktemp("vectors"))
    yield store
    store.close()


@pytest.fixture
def index(store: VectorStore) -> Iterator[str]:
    name = f"index-{uuid4().hex[:8]}"
    store.create(name, SPEC)
    yield name
    store.drop(name)


# Of every point made here: a store answers with chunk ids.
_documents: dict[str, str] = {}


def point(name: str, **changes: Any) -> VectorPoint:
    """A public point of the team `acme`; `name` is its document too, unless said otherwise."""
    made = VectorPoint(
        chunk_id=str(uuid5(NAMESPACE_OID, name)),
        team="acme",
        document_id=name,
        version=1,
        text_hash=f"hash of {name}",
        dense=unit(1, 0, 0, 0),
        lexical=SparseVector((1,), (1.0,)),
        access=OPEN,
        fields={},
    )
    made = replace(made, **changes)
    _documents[made.chunk_id] = made.document_id
    return made


def document_of(candidate: Candidate) -> str:
    return _documents[candidate.chunk_id]


def unit(*values: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    vector = np.asarray(values, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def found(
    store: VectorStore,
    index: str,
    narrowing: Filter | None = None,
    scope: AccessScope = ANYONE,
) -> list[str]:
    """The documents that a dense search returns, by name."""
    request = SearchRequest(unit(1, 0, 0, 0), None, narrowing, 100)
    return sorted(document_of(candidate) for candidate in store.search(index, request, scope))
