"""LangChain: its ensemble of BM25 and an in-memory vector store."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_classic.retrievers import EnsembleRetriever
from langchain_community.retrievers import BM25Retriever
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_huggingface import HuggingFaceEmbeddings

from benchmarks.peers.base import Passage, versions


class LangChain:
    name = "LangChain ensemble"

    def __init__(self, model: str) -> None:
        self.version = versions("langchain-classic", "langchain-community")
        self._store = InMemoryVectorStore(HuggingFaceEmbeddings(model_name=model))

    def ingest(self, passages: Sequence[Passage]) -> None:
        documents = [
            Document(each.text, metadata={"id": each.id, "groups": set(each.groups)}, id=each.id) for each in passages
        ]
        self._store.add_documents(documents)
        self._words = BM25Retriever.from_documents(documents)

    def search(self, query: str, k: int, groups: Sequence[str] | None) -> list[str]:
        wanted = set(groups or ())

        def readable(document: Document) -> bool:
            return groups is None or not wanted.isdisjoint(document.metadata["groups"])

        # BM25Retriever has no filter: what it draws is filtered afterwards, so with groups it draws more.
        words = self._words.model_copy(update={"k": k if groups is None else 10 * k})
        filtered = words | (lambda documents: [each for each in documents if readable(each)][:k])
        options = {"k": k} if groups is None else {"k": k, "filter": readable}
        meaning = self._store.as_retriever(search_kwargs=options)
        both = EnsembleRetriever(retrievers=[filtered, meaning], weights=[0.5, 0.5], id_key="id")
        return [str(each.metadata["id"]) for each in both.invoke(query)][:k]

    def close(self) -> None:
        """Everything is in memory."""
