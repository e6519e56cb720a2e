"""txtai: a hybrid index with its content in SQLite, access as a clause of its SQL."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from txtai import Embeddings

from benchmarks.peers.base import Passage, versions


class Txtai:
    name = "txtai (hybrid)"

    def __init__(self, model: str) -> None:
        self.version = versions("txtai")
        self._index = Embeddings(path=model, hybrid=True, content=True)
        self._one_at_a_time = threading.Lock()  # its SQLite cursor fails when threads share it

    def ingest(self, passages: Sequence[Passage]) -> None:
        # A list has no column of its own: the groups stand between bars in a text.
        self._index.index(
            (each.id, {"text": each.text, "readers": "|".join(["", *each.groups, ""])}) for each in passages
        )

    def search(self, query: str, k: int, groups: Sequence[str] | None) -> list[str]:
        with self._one_at_a_time:
            return self._found(query, k, groups)

    def _found(self, query: str, k: int, groups: Sequence[str] | None) -> list[str]:
        if groups is None:
            return [str(hit["id"]) for hit in self._index.search(query, k)]
        readable = " or ".join(f"readers like '%|{group}|%'" for group in groups)
        # A clause is applied to what was drawn, so more is drawn than asked for, as its documentation advises.
        statement = f"select id from txtai where similar(:query, {10 * k}) and ({readable}) limit {k}"
        return [str(hit["id"]) for hit in self._index.search(statement, k, parameters={"query": query})]

    def close(self) -> None:
        self._index.close()
