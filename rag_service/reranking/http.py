"""Reranking through an HTTP API in the shape that Cohere and Jina share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import httpx

from rag_service.errors import RetryableError


class HttpReranker:
    """Asks `POST {url}` with {model, query, documents, top_n} for {results: [{index, relevance_score}]}.

    One attempt within `timeout_s` seconds: a question cannot wait. Neither texts nor the key are part of a message.
    """

    def __init__(self, url: str, model: str, api_key: str | None, *, timeout_s: float = 2.0) -> None:
        self._url = url
        self._model = model
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._opening = Lock()

    def rerank(self, query: str, passages: Sequence[str]) -> list[float] | None:
        """Raises RetryableError when the server is silent, refuses, or does not score every passage."""
        if not passages:
            return []
        documents = [passage.encode("utf-8", "replace").decode() for passage in passages]
        body = {"model": self._model, "query": query, "documents": documents, "top_n": len(documents)}
        with self._opening:
            client = self._client
        try:
            response = client.post(self._url, json=body)
        except httpx.HTTPError as error:
            raise RetryableError("The rerank API does not answer.") from error
        if not response.is_success:
            raise RetryableError(f"The rerank API answered {response.status_code}.")
        return _scores(response, len(passages))

    def close(self) -> None:
        with self._opening:
            if "_client" in self.__dict__:
                self._client.close()
                del self._client

    @cached_property
    def _client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        return httpx.Client(timeout=self._timeout_s, headers=headers)


def _scores(response: httpx.Response, count: int) -> list[float]:
    try:
        results: list[dict[str, Any]] = response.json()["results"]
        scores = {int(result["index"]): float(result["relevance_score"]) for result in results}
    except (ValueError, TypeError, KeyError) as error:
        raise RetryableError("The rerank API gave an answer that cannot be used.") from error
    if scores.keys() != set(range(count)) or not all(map(math.isfinite, scores.values())):
        raise RetryableError("The rerank API did not score every passage.")
    return [scores[place] for place in range(count)]
