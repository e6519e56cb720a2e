"""LlamaIndex: its fusion of BM25 and its own in-memory vector index, by reciprocal rank."""

from __future__ import annotations

from collections.abc import Sequence

from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.retrievers.bm25 import BM25Retriever

from benchmarks.peers.base import Passage, versions


class LlamaIndex:
    name = "LlamaIndex fusion"

    def __init__(self, model: str) -> None:
        self.version = versions("llama-index-core", "llama-index-retrievers-bm25")
        self._embed = HuggingFaceEmbedding(model_name=model)

    def ingest(self, passages: Sequence[Passage]) -> None:
        self._groups = {each.id: set(each.groups) for each in passages}
        nodes = [
            TextNode(
                id_=each.id,
                text=each.text,
                metadata={"groups": list(each.groups)},
                excluded_embed_metadata_keys=["groups"],
                excluded_llm_metadata_keys=["groups"],
            )
            for each in passages
        ]
        self._index = VectorStoreIndex(nodes, embed_model=self._embed)
        self._words = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=len(nodes))

    def search(self, query: str, k: int, groups: Sequence[str] | None) -> list[str]:
        words = self._words
        # BM25 has no filter per question: with groups it draws more, and the answer is filtered afterwards.
        words.similarity_top_k = min(k if groups is None else 10 * k, len(self._groups))
        meaning = self._index.as_retriever(similarity_top_k=k, filters=None if groups is None else _filters(groups))
        both = QueryFusionRetriever(
            [meaning, words],
            llm=MockLLM(),
            similarity_top_k=11 * k,
            num_queries=1,
            mode=FUSION_MODES.RECIPROCAL_RANK,
            use_async=False,
        )
        found = [hit.node.node_id for hit in both.retrieve(query)]
        if groups is not None:
            found = [each for each in found if not self._groups[each].isdisjoint(groups)]
        return found[:k]

    def close(self) -> None:
        """Everything is in memory."""


def _filters(groups: Sequence[str]) -> MetadataFilters:
    conditions = [MetadataFilter(key="groups", value=group, operator=FilterOperator.CONTAINS) for group in groups]
    return MetadataFilters(filters=[*conditions], condition=FilterCondition.OR)
