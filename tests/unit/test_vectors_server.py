"""How the server store tells what a Qdrant server, or the way to it, has answered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from rag_service.access import PUBLIC, AccessScope
from rag_service.errors import ConfigError, FatalError, NotFound, QuotaExceeded, RagError, RetryableError
from rag_service.vectors.base import IndexSpec, SearchRequest
from rag_service.vectors.server import ServerVectorStore, connect_to

ANYONE = AccessScope("acme", frozenset({PUBLIC}))
REQUEST = SearchRequest(np.ones(3, dtype=np.float32), None, None, 10)


class Server(ThreadingHTTPServer):
    """Tells its version, and answers everything else with one status."""

    version = "1.19.0"
    status = 200
    retry_after = "7"
    requests: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(self.path)
        about = self.path == "/"
        body = {"title": "qdrant", "version": self.server.version} if about else {"status": {"error": "as told"}}
        content = json.dumps(body).encode()
        self.send_response(200 if about else self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Retry-After", self.server.retry_after)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server calls
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Answer) as server:
        server.requests = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def store(server: Server) -> Iterator[ServerVectorStore]:
    store = ServerVectorStore(connect_to(server.url, timeout_s=5), prefix="rag_")
    yield store
    store.close()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, NotFound),
        (401, ConfigError),
        (403, ConfigError),
        (400, FatalError),
        (422, FatalError),
        (408, RetryableError),
        (429, QuotaExceeded),
        (500, RetryableError),
        (503, RetryableError),
    ],
)
def test_every_status_becomes_an_error_of_ours(
    server: Server, store: ServerVectorStore, status: int, expected: type[RagError]
) -> None:
    server.status = status
    with pytest.raises(expected) as raised:
        store.search("docs", REQUEST, ANYONE)
    assert type(raised.value) is expected
    assert server.requests[-1].startswith("/collections/rag_docs/")


def test_a_busy_server_says_when_to_come_back(server: Server, store: ServerVectorStore) -> None:
    server.status = 429
    with pytest.raises(RetryableError) as raised:
        store.delete("docs", "a")
    assert raised.value.retry_after == 7


@pytest.mark.parametrize(("asked", "told"), [("7", 7), ("100000", 300), ("Wed, 21 Oct 2026 07:28:00 GMT", 2), ("", 2)])
def test_a_server_that_is_overloaded_says_so_too(
    server: Server, store: ServerVectorStore, asked: str, told: int
) -> None:
    server.status, server.retry_after = 503, asked
    with pytest.raises(RetryableError) as raised:
        store.search("docs", REQUEST, ANYONE)
    assert raised.value.retry_after == told


def test_a_server_that_is_away_is_retryable(server: Server) -> None:
    server.server_close()
    store = ServerVectorStore(connect_to(server.url, timeout_s=2))
    with pytest.raises(RetryableError, match="RAG_QDRANT_URL"):
        store.create("docs", IndexSpec(3))
    with pytest.raises(RetryableError):
        store.search("docs", REQUEST, ANYONE)
    store.close()


@pytest.mark.parametrize("version", ["1.18.3", "1.9.0", "0.11.0"])
def test_a_server_whose_idf_would_leak_is_refused(server: Server, store: ServerVectorStore, version: str) -> None:
    server.version = version
    with pytest.raises(ConfigError, match=r"at least 1\.19"):
        store.search("docs", REQUEST, ANYONE)
    assert set(server.requests) == {"/"}


def test_a_constructor_connects_to_nothing(server: Server) -> None:
    ServerVectorStore(connect_to(server.url)).close()
    assert server.requests == []
