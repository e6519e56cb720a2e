"""An embeddings API on loopback with a model of other dimensions, for builds of a second index version.

    python -m benchmarks.second_model --port 9001 --kind hashing

`hashing` counts words as the test double does; `local` is the model that the service uses by default, its vectors
turned and cut to fewer dimensions by a fixed random projection: another vector space, and the real cost of a model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rag_service.embedding.hashing import HashingEmbedder

DIMENSIONS = 192
Embed: TypeAlias = Callable[[Sequence[str]], NDArray[np.float32]]


def hashing() -> Embed:
    inner = HashingEmbedder(DIMENSIONS)
    return lambda texts: inner.embed(texts, "document")


def local(models: Path) -> Embed:
    from rag_service.runtime.variants import make_embedder
    from rag_service.settings import Settings

    inner = make_embedder(Settings(models_dir=models))
    turned = np.random.default_rng(7).normal(size=(inner.identity.dimensions, DIMENSIONS)).astype(np.float32)

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = inner.embed(texts, "document") @ turned
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    return embed


def serve(embed: Embed, port: int) -> ThreadingHTTPServer:
    """The server, not yet serving."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else every answer waits 40 ms for the acknowledgement of its head

        def do_GET(self) -> None:
            self._answer({"status": "ready"})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            vectors = embed(asked["input"])
            data = [{"index": place, "embedding": vector.tolist()} for place, vector in enumerate(vectors)]
            self._answer({"model": asked["model"], "data": data})

        def _answer(self, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Whoever asked was killed."""

    return Server(("127.0.0.1", port), Handler)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--kind", choices=("hashing", "local"), default="hashing")
    arguments.add_argument("--models", type=Path, default=Path("models"), help="folder of compiled models")
    given = arguments.parse_args()
    embed = hashing() if given.kind == "hashing" else local(given.models)
    embed(["warm"])
    serve(embed, given.port).serve_forever()


if __name__ == "__main__":
    main()
