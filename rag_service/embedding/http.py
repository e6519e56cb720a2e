"""Embeddings from an OpenAI-compatible HTTP API."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from threading import Lock
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from rag_service.embedding.base import TextKind
from rag_service.errors import CredentialsRefused, FatalError, QuotaExceeded, RetryableError
from rag_service.observe.metrics import embedded
from rag_service.types import EmbedderIdentity

_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 20.0
_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
# Latin words in pieces of four, digits in threes, all other characters singly.
_PIECE = re.compile(r"[A-Za-zÀ-ɏ]{1,4}|[0-9]{1,3}|\S")


class HttpEmbedder:
    """Asks `POST {base_url}/embeddings` for the vectors of at most `batch_size` texts at a time.

    A busy or silent server is asked again, at most four times in all, as late as its Retry-After says (20 s at most).
    Texts are cut at the model's window: a server may refuse longer ones. Neither texts, the key nor the address are
    ever part of a message, which whoever asks may see. Requests of several threads run side by side.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None,
        dimensions: int,
        window: int,
        *,
        timeout_s: float = 30,
        batch_size: int = 64,
    ) -> None:
        self._url = f"{base_url.rstrip('/')}/embeddings"
        self._model = model
        self._api_key = api_key
        self._dimensions = dimensions
        self._window = window
        self._timeout_s = timeout_s
        self._batch_size = batch_size
        self._opening = Lock()

    @property
    def identity(self) -> EmbedderIdentity:
        return EmbedderIdentity(self._model, "remote", self._dimensions)

    @property
    def computation(self) -> str:
        return "remote"

    @property
    def window(self) -> int:
        return self._window

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        """An approximation: the remote tokenizer is unknown, so this counts more pieces than common ones make."""
        return [found.span() for found in _PIECE.finditer(text)]

    def legible(self, text: str) -> float:
        """1: what the remote model was trained on is unknown."""
        return 1.0

    def embed(self, texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        """Raises RetryableError when the server stays busy or silent, CredentialsRefused when it refuses the key,
        FatalError when its answer is not `dimensions` finite numbers for every text.
        """
        vectors = np.empty((len(texts), self._dimensions), dtype=np.float32)
        for start in range(0, len(texts), self._batch_size):
            batch = texts[start : start + self._batch_size]
            embedded(len(batch))
            vectors[start : start + len(batch)] = self._vectors(self._ask(batch), len(batch))
        return vectors

    def close(self) -> None:
        with self._opening:
            if "_client" in self.__dict__:
                self._client.close()
                del self._client

    @cached_property
    def _client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        return httpx.Client(timeout=self._timeout_s, headers=headers)

    def _ask(self, texts: Sequence[str]) -> httpx.Response:
        with self._opening:
            client = self._client
        # An empty input is refused by most servers, a blank one by none.
        inputs = [self._cut(text).encode("utf-8", "replace").decode() or " " for text in texts]
        body = {"model": self._model, "input": inputs, "encoding_format": "float"}
        pause = _FIRST_PAUSE_S
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                response = client.post(self._url, json=body)
            except httpx.TransportError as error:
                if attempt == _ATTEMPTS:
                    raise RetryableError("The embeddings API does not answer.") from error
            else:
                if response.status_code not in _BUSY:
                    return self._accepted(response)
                pause = max(pause, _retry_after(response))
                if attempt == _ATTEMPTS or pause > _LONGEST_PAUSE_S:
                    busy = QuotaExceeded if response.status_code == 429 else RetryableError
                    told = f"The embeddings API is busy: it answered {response.status_code}."
                    raise busy(told, retry_after=max(1, round(pause)))
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        raise AssertionError("the last attempt returns or raises")

    def _cut(self, text: str) -> str:
        spans = self.token_spans(text)
        return text if len(spans) <= self._window else text[: spans[self._window - 1][1]]

    def _accepted(self, response: httpx.Response) -> httpx.Response:
        if response.status_code in (401, 403):
            raise CredentialsRefused(
                f"The embeddings API refused the key ({response.status_code}). Set RAG_EMBEDDING_API_KEY."
            )
        if not response.is_success:
            raise FatalError(
                f"The embeddings API answered {response.status_code}. "
                "Check RAG_EMBEDDING_URL, RAG_EMBEDDING_MODEL and RAG_EMBEDDING_WINDOW."
            )
        return response

    def _vectors(self, response: httpx.Response, count: int) -> NDArray[np.float32]:
        """The answer's vectors in the order asked, made unit length."""
        try:
            rows: list[dict[str, Any]] = sorted(response.json()["data"], key=lambda row: int(row["index"]))
            places = [int(row["index"]) for row in rows]
            vectors = np.array([row["embedding"] for row in rows], dtype=np.float64)
        except (ValueError, TypeError, KeyError) as error:
            raise self._malformed("it is not a list of embeddings") from error
        if places != list(range(count)):
            raise self._malformed(f"{count} texts were sent and {len(places)} vectors came back, or not one for each")
        if vectors.shape != (count, self._dimensions):
            found = vectors.shape[-1] if vectors.ndim == 2 else "uneven"
            raise FatalError(
                f"The model {self._model!r} gives vectors of {found} dimensions, not {self._dimensions}. "
                "Set RAG_EMBEDDING_DIMENSIONS to what the model gives.",
                code="wrong_dimensions",
            )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and lengths.all()):
            raise self._malformed("a vector is zero or not finite")
        unit: NDArray[np.float32] = (vectors / lengths).astype(np.float32)
        return unit

    def _malformed(self, why: str) -> FatalError:
        return FatalError(f"The embeddings API gave an answer that cannot be used: {why}.", code="bad_answer")


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the server asks to wait: a number or a date (RFC 9110, 10.2.3); 0 when it says nothing usable."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
