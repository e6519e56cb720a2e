"""Stands in for a Qdrant server where none can be started, so that several processes share one vector store.

It answers the REST routes that the service uses, over the in-process engine of the official client: the client's own
models parse the requests and write the answers, and the engine searches. What it cannot show is the server's
speed, its durability, its payload indexes and its cluster; for these, name a real one in RAG_TEST_QDRANT_URL.
"""

from __future__ import annotations

import json
import sys
import threading
import warnings
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse

from pydantic import BaseModel, TypeAdapter
from qdrant_client import QdrantClient, models

VERSION = {"title": "qdrant - vector search engine", "version": "1.19.0", "commit": None}
_SELECTOR: TypeAdapter[Any] = TypeAdapter(models.PointsSelector)
_INSERT: TypeAdapter[Any] = TypeAdapter(models.PointInsertOperations)


class Engine:
    """The client's in-process engine, one call at a time: it breaks when threads meet in it."""

    def __init__(self) -> None:
        self._client = QdrantClient(":memory:")
        self._lock = threading.Lock()
        self._indexed: dict[str, dict[str, str]] = {}

    def answer(self, method: str, path: str, body: Any) -> Any:
        """The `result` of a request. Raises KeyError for a collection or route that is not there."""
        if path == "/":
            return VERSION
        _, _, name, *rest = path.split("/")
        route = (method, "/".join(rest))
        with self._lock:
            if route == ("GET", "exists"):
                return {"exists": self._client.collection_exists(name)}
            if route == ("PUT", ""):
                return self._make(name, models.CreateCollection.model_validate(body))
            if not self._client.collection_exists(name):
                if route == ("DELETE", ""):
                    return False
                raise KeyError(f"Not found: Collection `{name}` doesn't exist!")
            return _ROUTES[route](self, name, body)

    def _make(self, name: str, wanted: models.CreateCollection) -> bool:
        if self._client.collection_exists(name):
            raise FileExistsError(f"Collection `{name}` already exists!")
        assert wanted.vectors is not None
        self._indexed[name] = {}
        return self._client.create_collection(name, wanted.vectors, wanted.sparse_vectors)

    def _describe(self, name: str, _body: Any) -> Any:
        info = json.loads(self._client.get_collection(name).model_dump_json())
        info["payload_schema"] = {
            key: {"data_type": kind, "points": 0} for key, kind in self._indexed.get(name, {}).items()
        }
        return info

    def _drop(self, name: str, _body: Any) -> bool:
        self._indexed.pop(name, None)
        return self._client.delete_collection(name)

    def _index(self, name: str, body: Any) -> Any:
        wanted = models.CreateFieldIndex.model_validate(body)
        kind = wanted.field_schema
        self._indexed[name][wanted.field_name] = kind.value if isinstance(kind, models.PayloadSchemaType) else "keyword"
        return _DONE

    def _upsert(self, name: str, body: Any) -> Any:
        wanted = _INSERT.validate_python(body)
        points = wanted.points if isinstance(wanted, models.PointsList) else wanted.batch
        self._client.upsert(name, points)
        return _DONE

    def _delete(self, name: str, body: Any) -> Any:
        self._client.delete(name, _SELECTOR.validate_python(body))
        return _DONE

    def _set_payload(self, name: str, body: Any) -> Any:
        wanted = models.SetPayload.model_validate(body)
        points: Any = wanted.points if wanted.points is not None else wanted.filter
        self._client.set_payload(name, wanted.payload, points, wanted.key)
        return _DONE

    def _update_vectors(self, name: str, body: Any) -> Any:
        self._client.update_vectors(name, models.UpdateVectors.model_validate(body).points)
        return _DONE

    def _scroll(self, name: str, body: Any) -> Any:
        wanted = models.ScrollRequest.model_validate(body)
        records, offset = self._client.scroll(
            name,
            wanted.filter,
            limit=wanted.limit or 10,
            offset=wanted.offset,
            with_payload=True if wanted.with_payload is None else wanted.with_payload,
            with_vectors=wanted.with_vector or False,
        )
        return {"points": records, "next_page_offset": offset}

    def _count(self, name: str, body: Any) -> Any:
        return self._client.count(name, models.CountRequest.model_validate(body or {}).filter)

    def _query(self, name: str, body: Any) -> Any:
        return self._client.query_batch_points(name, models.QueryRequestBatch.model_validate(body).searches)


_DONE = {"operation_id": 0, "status": "completed"}
_ROUTES: dict[tuple[str, str], Callable[[Engine, str, Any], Any]] = {
    ("GET", ""): Engine._describe,
    ("DELETE", ""): Engine._drop,
    ("PUT", "index"): Engine._index,
    ("PUT", "points"): Engine._upsert,
    ("POST", "points/delete"): Engine._delete,
    ("POST", "points/payload"): Engine._set_payload,
    ("PUT", "points/vectors"): Engine._update_vectors,
    ("POST", "points/scroll"): Engine._scroll,
    ("POST", "points/count"): Engine._count,
    ("POST", "points/query/batch"): Engine._query,
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave as two packets: without this the second waits for the first one's receipt, 40 ms.
    disable_nagle_algorithm = True
    engine: Engine

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlparse(self.path).path
        try:
            result = self.engine.answer(self.command, path, json.loads(body) if body else None)
        except KeyError as error:
            self._reply(404, {"status": {"error": str(error)}, "time": 0.0})
        except FileExistsError as error:
            self._reply(409, {"status": {"error": str(error)}, "time": 0.0})
        except ValueError as error:
            self._reply(400, {"status": {"error": str(error)}, "time": 0.0})
        else:
            self._reply(200, result if path == "/" else {"result": result, "status": "ok", "time": 0.0})

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815 - the names that the base class calls

    def _reply(self, status: int, content: Any) -> None:
        written = json.dumps(content, default=_written).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(written)))
        self.end_headers()
        self.wfile.write(written)

    def log_message(self, *_: object) -> None:
        """Nothing: only what goes wrong is worth a line, and that raises."""


def _written(value: object) -> Any:
    return json.loads(value.model_dump_json()) if isinstance(value, BaseModel) else str(value)


def main(port: int) -> None:
    warnings.filterwarnings("ignore", message="Payload indexes have no effect")
    Handler.engine = Engine()
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
