"""Haystack's in-memory document store: BM25 and embeddings joined by reciprocal rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haystack import Document, Pipeline
from haystack.components.joiners import DocumentJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.embedders.sentence_transformers import (
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersTextEmbedder,
)

from benchmarks.peers.base import Passage, versions


class Haystack:
    name = "Haystack in memory"

    def __init__(self, model: str) -> None:
        self.version = versions("haystack-ai")
        self._store = InMemoryDocumentStore(embedding_similarity_function="cosine")
        self._documents = SentenceTransformersDocumentEmbedder(model=model, progress_bar=False)
        self._pipeline = _pipeline(self._store, model)

    def ingest(self, passages: Sequence[Passage]) -> None:
        self._documents.warm_up()
        # Its filters cannot look into a list: each group is a field of its own.
        documents = [
            Document(id=each.id, content=each.text, meta=dict.fromkeys(each.groups, True)) for each in passages
        ]
        self._store.write_documents(self._documents.run(documents=documents)["documents"])

    def search(self, query: str, k: int, groups: Sequence[str] | None) -> list[str]:
        options: dict[str, Any] = {"top_k": k}
        if groups is not None:
            conditions = [{"field": f"meta.{group}", "operator": "==", "value": True} for group in groups]
            options["filters"] = {"operator": "OR", "conditions": conditions}
        asked = {"embedder": {"text": query}, "words": {"query": query, **options}, "meaning": options}
        found = self._pipeline.run({**asked, "join": {"top_k": k}})["join"]["documents"]
        return [document.id for document in found]

    def close(self) -> None:
        self._store.delete_all_documents()


def _pipeline(store: InMemoryDocumentStore, model: str) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("embedder", SentenceTransformersTextEmbedder(model=model, progress_bar=False))
    pipeline.add_component("words", InMemoryBM25Retriever(document_store=store))
    pipeline.add_component("meaning", InMemoryEmbeddingRetriever(document_store=store))
    pipeline.add_component("join", DocumentJoiner(join_mode="reciprocal_rank_fusion"))
    pipeline.connect("embedder.embedding", "meaning.query_embedding")
    pipeline.connect("words", "join")
    pipeline.connect("meaning", "join")
    return pipeline
