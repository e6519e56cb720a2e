"""LanceDB in this process: hybrid search by its own full-text index and reciprocal rank fusion."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import lancedb
import pyarrow as pa
from lancedb.index import FTS, LabelList
from lancedb.rerankers import RRFReranker
from sentence_transformers import SentenceTransformer

from benchmarks.peers.base import Passage, versions


class LanceDb:
    name = "LanceDB (hybrid)"

    def __init__(self, model: str) -> None:
        self.version = versions("lancedb")
        self._model = SentenceTransformer(model)
        self._folder = tempfile.TemporaryDirectory(prefix="rag-bench-")
        self._fusion = RRFReranker()
        schema = pa.schema(
            {
                "id": pa.string(),
                "text": pa.string(),
                "groups": pa.list_(pa.string()),
                "vector": pa.list_(pa.float32(), self._model.get_sentence_embedding_dimension()),
            }
        )
        self._table = lancedb.connect(self._folder.name).create_table("bench", schema=schema)

    def ingest(self, passages: Sequence[Passage]) -> None:
        vectors = self._model.encode([each.text for each in passages])
        self._table.add(
            [
                {"id": each.id, "text": each.text, "groups": list(each.groups), "vector": vector}
                for each, vector in zip(passages, vectors, strict=True)
            ]
        )
        self._table.create_index("text", config=FTS())
        self._table.create_index("groups", config=LabelList())

    def search(self, query: str, k: int, groups: Sequence[str] | None) -> list[str]:
        search = self._table.search(query_type="hybrid", vector_column_name="vector", fts_columns="text")
        search = search.vector(self._model.encode(query)).text(query)
        if groups is not None:
            listed = ", ".join(f"'{group}'" for group in groups)
            search = search.where(f"array_has_any(groups, [{listed}])", prefilter=True)
        return [row["id"] for row in search.rerank(self._fusion).limit(k).to_list()]

    def close(self) -> None:
        self._folder.cleanup()
