"""The reranker port: reorders hits by reading query and passage together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Reranker(Protocol):
    def rerank(self, query: str, passages: Sequence[str]) -> list[float] | None:
        """One score per passage, higher is better; None leaves the order as it is.

        Raises RetryableError when the model does not answer: the answer is then given unreranked, and says so.
        """
        ...


class NullReranker:
    """Leaves the order as it is."""

    def rerank(self, query: str, passages: Sequence[str]) -> list[float] | None:
        return None
