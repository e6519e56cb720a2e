"""Plain Qdrant Edge, no service around it: two prefetches and its own reciprocal rank fusion."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Sequence

import qdrant_edge as qdrant
from sentence_transformers import SentenceTransformer

from benchmarks.peers.base import Passage, versions

DRAWN = 100
BATCH = 500


class QdrantEdge:
    name = "Qdrant Edge (RRF)"

    def __init__(self, model: str) -> None:
        self.version = versions("qdrant-edge-py")
        self._model = SentenceTransformer(model)
        self._words = qdrant.Bm25(qdrant.Bm25Config())
        self._folder = tempfile.TemporaryDirectory(prefix="rag-bench-")
        size = self._model.get_sentence_embedding_dimension()
        assert size is not None
        config = qdrant.EdgeConfig(
            vectors={"dense": qdrant.EdgeVectorParams(size=size, distance=qdrant.Distance.Cosine)},
            sparse_vectors={"words": qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf)},
        )
        self._shard = qdrant.EdgeShard.create(self._folder.name, config)
        self._shard.update(qdrant.UpdateOperation.create_field_index("groups", qdrant.PayloadSchemaType.Keyword))

    def ingest(self, passages: Sequence[Passage]) -> None:
        for start in range(0, len(passages), BATCH):
            part = passages[start : start + BATCH]
            vectors = self._model.encode([each.text for each in part])
            points = [
                qdrant.Point(
                    str(uuid.uuid5(uuid.NAMESPACE_OID, each.id)),
                    {"dense": vector.tolist(), "words": self._words.embed_document(each.text)},
                    {"id": each.id, "groups": list(each.groups)},
                )
                for each, vector in zip(part, vectors, strict=True)
            ]
            self._shard.update(qdrant.UpdateOperation.upsert_points(points))

    def search(self, query: str, k: int, groups: Sequence[str] | None) -> list[str]:
        allowed = None
        if groups is not None:
            condition = qdrant.FieldCondition("groups", match=qdrant.MatchAny(list(groups)))
            allowed = qdrant.Filter(must=[condition])
        dense = qdrant.Query.Nearest(self._model.encode(query).tolist(), using="dense")
        words = qdrant.Query.Nearest(self._words.embed_query(query), using="words")
        request = qdrant.QueryRequest(
            limit=k,
            query=qdrant.Fusion.Rrf(k=60),  # type: ignore[arg-type] # its stub forgets that Rrf is a Fusion
            prefetches=[qdrant.Prefetch(DRAWN, query=leg, filter=allowed) for leg in (dense, words)],
            with_payload=True,
        )
        return [str((hit.payload or {})["id"]) for hit in self._shard.query(request)]

    def close(self) -> None:
        self._shard.close()
        self._folder.cleanup()
