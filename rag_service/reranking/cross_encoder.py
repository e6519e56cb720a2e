"""Reranking by a sentence-transformers cross-encoder in this process, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

from rag_service.errors import RetryableError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

_BATCH = 16
_ADVICE = "Set RAG_RERANKER_MODEL to a cross-encoder that scores relevance."


class CrossEncoderReranker:
    """A model by folder or by its name on the hub, loaded by the first question that needs it.

    One thread runs it. A question that would wait longer than `timeout_s` seconds, for the model to load, for questions
    before it or for its own turn, goes without; so does every question while a former one is still being computed.
    """

    def __init__(self, model: str, timeout_s: float = 2.0) -> None:
        self._name = model
        self._timeout_s = timeout_s
        self._asking = Lock()
        self._running: Future[list[float]] | None = None

    def rerank(self, query: str, passages: Sequence[str]) -> list[float] | None:
        """Raises RetryableError when the model cannot be loaded or takes too long."""
        if not passages:
            return []
        if not self._asking.acquire(timeout=self._timeout_s):
            raise RetryableError("The reranking model is busy.")
        try:
            if self._running is not None and not self._running.done():
                raise RetryableError("The reranking model is busy.")
            self._running = self._computing.submit(self._scores, query, list(passages))
            return self._running.result(timeout=self._timeout_s)
        except TookTooLong:
            raise RetryableError(f"The reranking model took longer than {self._timeout_s:g} s.") from None
        finally:
            self._asking.release()

    def warm_up(self) -> None:
        """Load the model, however long that takes. Raises RetryableError when it cannot be had."""
        self._computing.submit(self._scores, "warm", ["up"]).result()

    def close(self) -> None:
        self._computing.shutdown()

    def _scores(self, query: str, passages: list[str]) -> list[float]:
        # No tokenizer accepts half of a surrogate pair.
        pairs = [(query, passage.encode("utf-8", "replace").decode()) for passage in passages]
        scores = self._model.predict(pairs, batch_size=_BATCH, show_progress_bar=False)
        return [float(score) for score in scores]

    @cached_property
    def _computing(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="reranker")

    @cached_property
    def _model(self) -> CrossEncoder:
        from sentence_transformers import CrossEncoder  # takes seconds, and most services rerank nothing

        try:
            model: CrossEncoder = CrossEncoder(self._name, device="cpu")
        except (OSError, ValueError) as error:
            raise RetryableError(f"The reranking model {self._name!r} cannot be loaded. {_ADVICE}") from error
        if model.num_labels != 1:
            raise RetryableError(f"The reranking model {self._name!r} gives more than one score. {_ADVICE}")
        return model
