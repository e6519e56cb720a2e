"""rag-service as applications use it: over HTTP, from another process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import rag_service
from benchmarks.peers.base import Passage
from benchmarks.service import running_service

EVERYBODY = "reader-of-all"


class RagService:
    name = "rag-service (HTTP)"

    def __init__(self, model: str) -> None:
        self.version = f"rag-service {rag_service.__version__}"
        self._stack = ExitStack()
        self._service = self._stack.enter_context(running_service(embedding_model=model, log_level="warning"))

    def ingest(self, passages: Sequence[Passage]) -> None:
        self._service.upload("default", [_document(each) for each in passages])
        self._service.wait_until_idle()
        if failed := self._service.get("/v1/documents", status="failed")["data"]:
            raise RuntimeError(f"not ingested: {failed[0]['error']}")

    def search(self, query: str, k: int, groups: Sequence[str] | None) -> list[str]:
        body: dict[str, Any] = {"query": query, "top_k": k, "max_chunks_per_document": 1}
        # There is no search without an asker here: the unfiltered question is asked by one who may read everything.
        body["as_user"] = {"user": EVERYBODY} if groups is None else {"groups": list(groups)}
        return [result["external_id"] for result in self._service.post("/v1/retrieve", body)["results"]]

    def close(self) -> None:
        self._stack.close()


def _document(passage: Passage) -> dict[str, Any]:
    return {
        "external_id": passage.id,
        "text": passage.text,
        "media_type": "text/plain",
        "acl": {"groups": list(passage.groups), "users": [EVERYBODY]},
    }
