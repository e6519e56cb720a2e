"""Chroma in this process: dense search over HNSW, access as a list in the metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import chromadb
from chromadb.config import Settings
from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction

from benchmarks.peers.base import Passage, versions

BATCH = 500


class Chroma:
    name = "Chroma (dense)"

    def __init__(self, model: str) -> None:
        self.version = versions("chromadb")
        self._client = chromadb.EphemeralClient(Settings(anonymized_telemetry=False))
        embed: Any = SentenceTransformerEmbeddingFunction(model_name=model)
        self._collection = self._client.create_collection(
            "bench", embedding_function=embed, configuration={"hnsw": {"space": "cosine"}}
        )

    def ingest(self, passages: Sequence[Passage]) -> None:
        for start in range(0, len(passages), BATCH):
            part = passages[start : start + BATCH]
            self._collection.add(
                ids=[each.id for each in part],
                documents=[each.text for each in part],
                metadatas=[{"groups": list(each.groups)} for each in part],
            )

    def search(self, query: str, k: int, groups: Sequence[str] | None) -> list[str]:
        where: Any = None
        if groups is not None:
            where = {"$or": [{"groups": {"$contains": group}} for group in groups]}
        found = self._collection.query(query_texts=[query], n_results=k, where=where, include=[])
        return [str(each) for each in found["ids"][0]]

    def close(self) -> None:
        self._client.delete_collection("bench")
