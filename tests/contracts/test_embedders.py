"""What every embedder keeps: unit vectors in order, honest identity, true token spans, any thread, any text."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from rag_service.embedding.base import Embedder
from rag_service.embedding.hashing import HashingEmbedder
from rag_service.embedding.http import HttpEmbedder
from rag_service.embedding.local import LocalEmbedder

TEXTS = [
    "The cat sat on the mat.",
    "",
    "   ",
    "!!! ???",
    "Größe, naïveté and Ærøskøbing",
    "日本語のテキストです。",
    "a\x00b\ud800c \U0001f600",
    "word " * 3000,
]


class _Server(BaseHTTPRequestHandler):
    """Answers as an OpenAI-compatible server does, with vectors from the hashing embedder, out of order."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        vectors = HashingEmbedder(48).embed(asked["input"], "document")
        rows = [{"index": place, "embedding": [7 * float(x) for x in row]} for place, row in enumerate(vectors)]
        body = json.dumps({"data": rows[::-1]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the base class gives it
        pass


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@cache
def local_embedder() -> LocalEmbedder:
    return LocalEmbedder("all-MiniLM-L6-v2")


@pytest.fixture(params=["local", "http", "hashing"])
def embedder(request: pytest.FixtureRequest) -> Iterator[Embedder]:
    if request.param == "local":
        yield local_embedder()
    elif request.param == "hashing":
        yield HashingEmbedder(48)
    else:
        remote = HttpEmbedder(request.getfixturevalue("endpoint"), "some-model", None, 48, 512, batch_size=3)
        yield remote
        remote.close()


def test_every_text_becomes_a_float32_unit_vector_in_its_place(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS, "document")
    assert vectors.shape == (len(TEXTS), embedder.identity.dimensions)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = np.vstack([embedder.embed([text], "document") for text in TEXTS])
    assert (alone * vectors).sum(axis=1).min() > 0.999


def test_no_texts_are_no_vectors_of_the_right_width(embedder: Embedder) -> None:
    assert embedder.embed([], "query").shape == (0, embedder.identity.dimensions)


def test_a_query_is_closest_to_the_document_that_shares_its_words(embedder: Embedder) -> None:
    documents = ["Bananas are yellow fruit.", "The parliament passed a tax law.", "Rust compiles to machine code."]
    scores = embedder.embed(documents, "document") @ embedder.embed(["which tax law was passed"], "query")[0]
    assert int(scores.argmax()) == 1


def test_identity_is_stable_and_complete(embedder: Embedder) -> None:
    assert embedder.identity == embedder.identity
    assert embedder.identity.name
    assert embedder.identity.revision
    assert embedder.identity.dimensions > 0
    assert embedder.window >= 16


@pytest.mark.parametrize("text", TEXTS)
def test_token_spans_are_ordered_within_the_text_and_cover_its_letters(embedder: Embedder, text: str) -> None:
    spans = list(embedder.token_spans(text))
    assert spans == sorted(spans)
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    covered = {place for start, end in spans for place in range(start, end)}
    assert {place for place, char in enumerate(text) if char.isalnum()} <= covered


def test_threads_get_their_own_vectors(embedder: Embedder) -> None:
    jobs = [
        [f"text number {thread} {place} " + "about nothing " * (place * 9) for place in range(5)] for thread in range(8)
    ]
    expected = [embedder.embed(texts, "document") for texts in jobs]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda texts: embedder.embed(texts, "document"), jobs))
    for mine, reference in zip(got, expected, strict=True):
        assert (mine * reference).sum(axis=1).min() > 0.999
