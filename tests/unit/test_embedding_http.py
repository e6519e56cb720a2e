"""The HTTP embedder against a real server on the loopback interface: good answers, bad answers, none at all."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpx
import numpy as np
import pytest

from rag_service.embedding import http
from rag_service.embedding.http import HttpEmbedder
from rag_service.errors import ConfigError, FatalError, RetryableError

SECRET_TEXT = "the merger is on Friday"
KEY = "sk-very-secret"
GOOD = {"data": [{"index": 0, "embedding": [3.0, 4.0]}]}


class Script(BaseHTTPRequestHandler):
    """Answers each request with the next of `answers` (status, headers, body); the last one for ever."""

    protocol_version = "HTTP/1.1"
    answers: ClassVar[list[tuple[int, dict[str, str], Any]]] = []
    requests: ClassVar[list[dict[str, Any]]] = []
    keys: ClassVar[list[str | None]] = []

    def do_POST(self) -> None:
        self.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.keys.append(self.headers["Authorization"])
        status, headers, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the base class gives it
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(http, "_FIRST_PAUSE_S", 0.01)
    Script.answers, Script.requests, Script.keys = [(200, {}, GOOD)], [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), Script) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/"
        server.shutdown()


@pytest.fixture
def embedder(url: str) -> Iterator[HttpEmbedder]:
    embedder = HttpEmbedder(url, "the-model", KEY, 2, 512, timeout_s=2)
    yield embedder
    embedder.close()


def test_it_asks_as_the_api_wants_and_makes_the_answer_unit_length(embedder: HttpEmbedder) -> None:
    np.testing.assert_allclose(embedder.embed(["hello"], "query"), [[0.6, 0.8]], atol=1e-7)
    assert Script.requests == [{"model": "the-model", "input": ["hello"], "encoding_format": "float"}]
    assert Script.keys == [f"Bearer {KEY}"]


def test_without_a_key_none_is_sent(url: str) -> None:
    embedder = HttpEmbedder(url, "the-model", None, 2, 512)
    embedder.embed(["hello"], "query")
    embedder.close()
    assert Script.keys == [None]


def test_empty_texts_and_lone_surrogates_are_sent_as_something_servers_accept(embedder: HttpEmbedder) -> None:
    for text in ("", "a\ud800b"):
        embedder.embed([text], "document")
    assert [request["input"] for request in Script.requests] == [[" "], ["a?b"]]


def test_a_busy_server_is_asked_again(embedder: HttpEmbedder) -> None:
    Script.answers = [(429, {"Retry-After": "0"}, {}), (503, {}, {}), (500, {}, {}), (200, {}, GOOD)]
    assert embedder.embed(["hello"], "query").shape == (1, 2)
    assert len(Script.requests) == 4


def test_a_server_that_stays_busy_is_given_up_after_four_requests(embedder: HttpEmbedder) -> None:
    Script.answers = [(503, {}, {})]
    with pytest.raises(RetryableError, match="503"):
        embedder.embed(["hello"], "query")
    assert len(Script.requests) == 4


def test_retry_after_is_waited_for(embedder: HttpEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    Script.answers = [(429, {"Retry-After": "3"}, {}), (200, {}, GOOD)]
    embedder.embed(["hello"], "query")
    assert pauses == [3.0]


def test_a_server_that_asks_for_a_long_rest_is_not_waited_for_but_the_caller_is_told(embedder: HttpEmbedder) -> None:
    Script.answers = [(429, {"Retry-After": "3600"}, {})]
    with pytest.raises(RetryableError) as busy:
        embedder.embed(["hello"], "query")
    assert busy.value.retry_after == 3600
    assert len(Script.requests) == 1


def test_retry_after_may_be_a_date_or_nonsense() -> None:
    def asked(value: str) -> float:
        return http._retry_after(httpx.Response(429, headers={"Retry-After": value}))

    assert 8 < asked(format_datetime(datetime.now(UTC) + timedelta(seconds=10))) <= 10
    assert asked(format_datetime(datetime.now(UTC) - timedelta(hours=1))) == 0
    assert asked("soon") == 0
    assert asked("-5") == 0


def test_nobody_listening_is_retryable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_FIRST_PAUSE_S", 0.01)
    embedder = HttpEmbedder("http://127.0.0.1:9", "the-model", KEY, 2, 512)
    with pytest.raises(RetryableError, match="does not answer"):
        embedder.embed(["hello"], "query")
    embedder.close()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_a_matter_of_configuration(embedder: HttpEmbedder, status: int) -> None:
    Script.answers = [(status, {}, {"error": "bad key"})]
    with pytest.raises(ConfigError, match="RAG_EMBEDDING_API_KEY"):
        embedder.embed(["hello"], "query")
    assert len(Script.requests) == 1


@pytest.mark.parametrize("status", [301, 400, 404, 422])
def test_other_refusals_are_final(embedder: HttpEmbedder, status: int) -> None:
    Script.answers = [(status, {"Location": "http://127.0.0.1:9/"}, {"error": "no"})]
    with pytest.raises(FatalError, match=str(status)):
        embedder.embed(["hello"], "query")
    assert len(Script.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>welcome to the proxy</html>",
        {},
        [],
        {"data": None},
        {"data": []},
        {"data": ["vector"]},
        {"data": [{"index": 0}]},
        {"data": [{"embedding": [1.0, 2.0]}]},
        {"data": [{"index": 1, "embedding": [1.0, 2.0]}]},
        {"data": [{"index": 0, "embedding": [1.0, 2.0]}, {"index": 0, "embedding": [1.0, 2.0]}]},
        {"data": [{"index": 0, "embedding": ["one", "two"]}]},
        {"data": [{"index": 0, "embedding": [0.0, 0.0]}]},
        b'{"data": [{"index": 0, "embedding": [NaN, 1.0]}]}',
        b'{"data": [{"index": 0, "embedding": [Infinity, 1.0]}]}',
    ],
)
def test_an_answer_that_cannot_be_used_is_refused(embedder: HttpEmbedder, answer: Any) -> None:
    Script.answers = [(200, {}, answer)]
    with pytest.raises(FatalError, match="cannot be used"):
        embedder.embed(["hello"], "query")


@pytest.mark.parametrize("vector", [[1.0], [1.0, 2.0, 3.0], 1.0, [[1.0, 2.0]]])
def test_vectors_of_another_length_name_the_setting(embedder: HttpEmbedder, vector: Any) -> None:
    Script.answers = [(200, {}, {"data": [{"index": 0, "embedding": vector}]})]
    with pytest.raises(FatalError, match="RAG_EMBEDDING_DIMENSIONS"):
        embedder.embed(["hello"], "query")


@pytest.mark.parametrize("status", [200, 400, 401, 503])
def test_neither_text_nor_key_is_ever_said(
    embedder: HttpEmbedder, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    Script.answers = [(status, {}, {"error": f"cannot embed {SECRET_TEXT!r} with {KEY}"})]
    with pytest.raises((FatalError, RetryableError)) as failed:
        embedder.embed([SECRET_TEXT], "document")
    for said in (str(failed.value), caplog.text):
        assert SECRET_TEXT not in said
        assert KEY not in said
    assert "127.0.0.1" not in str(failed.value), "whoever asks may see the message"


def test_tokens_are_counted_on_the_safe_side() -> None:
    embedder = HttpEmbedder("http://127.0.0.1:9", "the-model", None, 2, 512)
    text = "unbelievable 2024 東京, Привет"
    pieces = [text[start:end] for start, end in embedder.token_spans(text)]
    assert pieces == ["unbe", "liev", "able", "202", "4", "東", "京", ",", *"Привет"]


@pytest.mark.parametrize("text", ["many words " * 1_000, "東京" * 1_000, "1234" * 1_000])
def test_a_text_beyond_the_window_is_cut_there(embedder: HttpEmbedder, text: str) -> None:
    embedder.embed([text], "query")
    (sent,) = Script.requests[0]["input"]
    assert text.startswith(sent)
    assert len(embedder.token_spans(sent)) == embedder.window
