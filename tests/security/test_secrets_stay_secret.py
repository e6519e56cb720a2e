"""Twenty canary secrets go through a real service at log level debug; none is found where it does not belong."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import pytest

from rag_service.vault import new_key
from tests import guarded_source

# Where secrets are kept on purpose, for their owner alone.
KEY_FILES = {"admin.key", "secret.key"}
DIMENSIONS = 8


class Upstream(BaseHTTPRequestHandler):
    """An embeddings and rerank API that repeats the key it was sent whenever it fails, as bad ones do."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "webhook-id" in self.headers:
            self._answer(500, {"error": f"bad signature {self.headers['webhook-signature']}"})
            return
        texts = body.get("input") or [body.get("query", ""), *body.get("documents", ())]
        if any("embargo" in text for text in texts):
            self._answer(418, {"error": f"not for {self.headers['Authorization']}"})
        elif "input" in body:
            vectors = [{"index": place, "embedding": [1.0] * DIMENSIONS} for place in range(len(texts))]
            self._answer(200, {"data": vectors})
        elif "sulk" in body["query"]:
            self._answer(401, {"error": f"bad key {self.headers['Authorization']}"})
        else:
            scores = [{"index": place, "relevance_score": 0.5} for place in range(len(texts) - 1)]
            self._answer(200, {"results": scores})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Canaries:
    """Secrets by name; each is unmistakable wherever it turns up."""

    def __init__(self) -> None:
        self.by_name: dict[str, str] = {}

    def new(self, name: str) -> str:
        return self.by_name.setdefault(name, f"canary-{len(self.by_name):02}-{os.urandom(8).hex()}")

    def add(self, name: str, secret: str) -> str:
        return self.by_name.setdefault(name, secret)

    def found_in(self, content: bytes | str) -> set[str]:
        """Names of those in there, as they are or as addresses, base64 or hexadecimal write them."""
        named = {form: name for name, secret in self.by_name.items() for form in forms(secret)}
        pattern = re.compile(b"|".join(map(re.escape, named)))
        return {named[found] for found in pattern.findall(content if isinstance(content, bytes) else content.encode())}


def forms(secret: str) -> list[bytes]:
    raw = secret.encode()
    inner = base64.b64encode(raw)[:-4]  # its end depends on what follows
    return [raw, quote(secret, safe="").encode(), raw.hex().encode(), inner]


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAG_")}
    return {**plain, "RAG_DATA_DIR": str(data_dir), "RAG_LOG_LEVEL": "debug", "PYTHONUNBUFFERED": "1", **settings}


class Run:
    """One service process, what was asked of it, and all that it said."""

    def __init__(self, data_dir: Path, canaries: Canaries, upstream: str, leak: str | None) -> None:
        self.data_dir, self.canaries = data_dir, canaries
        self.log = data_dir.parent / "log.txt"
        self.answers: list[str] = []
        self.http = httpx.Client(timeout=30, trust_env=False)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.settings = {
            "RAG_ADMIN_KEY": canaries.new("admin key of the service"),
            "RAG_SECRET_KEYS": canaries.add("secret key", new_key()),
            "RAG_EMBEDDER": "http",
            "RAG_EMBEDDING_URL": upstream,
            "RAG_EMBEDDING_MODEL": "some-model",
            "RAG_EMBEDDING_API_KEY": canaries.new("embedding API key"),
            "RAG_EMBEDDING_DIMENSIONS": str(DIMENSIONS),
            "RAG_RERANKER": "http",
            "RAG_RERANKER_URL": upstream,
            "RAG_RERANKER_MODEL": "some-reranker",
            "RAG_RERANKER_API_KEY": canaries.new("rerank API key"),
            "RAG_QDRANT_API_KEY": canaries.new("Qdrant API key"),
            "RAG_RETRIEVAL_AUDIT": "true",
            "RAG_TRACE_CONTENT": "true",
            "RAG_SWEEP_S": "0.5",
            "RAG_WEBHOOK_PRIVATE_ADDRESSES": "true",
        }
        self.upstream = upstream
        command = [sys.executable, "-m", "tests.security.launch_guarded", *(["--leak", leak] if leak else [])]
        self.command = [*command, "serve", "--port", str(self.port)]

    @contextmanager
    def running(self) -> Iterator[None]:
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                self.command, env=environment(self.data_dir, **self.settings), stdout=log, stderr=subprocess.STDOUT
            )
            try:
                self._wait(lambda: self._is_ready(process))
                yield
                self._note_arguments(process.pid)
            finally:
                self.http.close()
                process.terminate()
                process.wait(timeout=60)

    def ask(self, method: str, path: str, key: str | None = None, **request: Any) -> httpx.Response:
        """Speaks with the admin key unless another is given. Every answer but those that show a secret is kept."""
        secret = self.settings["RAG_ADMIN_KEY"] if key is None else key
        headers = {"Authorization": f"Bearer {secret}", **request.pop("headers", {})}
        if key is None and path != "/v1/teams":
            headers["X-Rag-Team"] = "acme"
        url = f"http://127.0.0.1:{self.port}{path}"
        answer = self.http.request(method, url, headers=headers, **request)
        if not (method == "POST" and path.endswith(("/keys", "/webhooks", ":rotate"))):
            self.answers.append(f"{answer.headers} {answer.text}")
        return answer

    def wait_for_job(self, job_id: str) -> None:
        ended = ("succeeded", "completed_with_errors", "failed")
        self._wait(lambda: self.ask("GET", f"/v1/jobs/{job_id}").json()["state"] in ended)

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, self.log.read_text()
        try:
            return self.http.get(f"http://127.0.0.1:{self.port}/livez").is_success
        except httpx.TransportError:
            return False

    def _wait(self, holds: Any) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            time.sleep(0.05)

    def _note_arguments(self, pid: int) -> None:
        process = psutil.Process(pid)
        self.answers += [" ".join(one.cmdline()) for one in (process, *process.children(recursive=True))]


def credentials_of(canaries: Canaries, prefix: str) -> dict[str, Any]:
    return {
        "token": canaries.new(f"{prefix} token"),
        "password": canaries.new(f"{prefix} password"),
        "headers": {"X-Webhook-Secret": canaries.new(f"{prefix} webhook secret")},
        "proxy": {"host": "proxy", "password": canaries.new(f"{prefix} proxy password")},
    }


def work(run: Run) -> None:
    """A day in the life of a service, with all that can go wrong."""
    canaries = run.canaries
    keys = {}
    for scope in ("query", "ingest", "manage", "admin"):
        made = run.ask("POST", "/v1/teams/acme/keys", json={"name": scope, "scopes": [scope]}).json()
        keys[scope] = canaries.add(f"{scope} key", made["key"])
    uploaded = run.ask("POST", "/v1/documents", keys["ingest"], json={"text": "Turnips grow.", "acl": {"public": True}})
    embargoed = run.ask("POST", "/v1/documents", keys["ingest"], json={"text": "Under embargo."})
    for answer in (uploaded, embargoed):
        run.wait_for_job(answer.json()["job_id"])
    for query in ("turnips", "turnips that sulk", "an embargo", ""):
        run.ask("POST", "/v1/retrieve", keys["query"], json={"query": query})
    run.ask("POST", "/v1/retrieve", keys["query"], json={"query": "x", "top_k": canaries.new("misplaced value")})
    run.ask("POST", "/v1/retrieve", canaries.new("guessed key"), json={"query": "x"})
    run.ask("POST", "/v1/retrieve", keys["query"], headers={"X-Signature": canaries.new("signature of a webhook")})
    run.ask("DELETE", "/v1/documents/doc_x", keys["query"])
    work_of_webhooks(run)
    listed = run.ask("GET", "/v1/teams/acme/keys").json()["data"]
    revoked = next(key["id"] for key in listed if key["name"] == "ingest")
    run.ask("DELETE", f"/v1/teams/acme/keys/{revoked}")
    run.ask("POST", "/v1/documents", keys["ingest"], json={"text": "Too late."})
    for path in ("/openapi.json", "/metrics", "/readyz", "/v1/admin/audit", "/v1/jobs", "/v1/documents", "/v1/nowhere"):
        run.ask("GET", path)


def work_of_webhooks(run: Run) -> None:
    """One that refuses whatever it is told, while its secret is replaced."""
    body = {"url": f"{run.upstream}/hook", "events": ["document.ready", "sync.finished"]}
    made = run.ask("POST", "/v1/webhooks", json=body).json()
    path = f"/v1/webhooks/{made['id']}"
    run.canaries.add("webhook secret", made["secret"])
    run.canaries.add("webhook secret without its prefix", made["secret"].removeprefix("whsec_"))
    run.canaries.add("second webhook secret", run.ask("POST", f"{path}:rotate").json()["secret"])
    job = run.ask("POST", "/v1/documents", json={"text": "Parsnips grow."}).json()["job_id"]
    run.wait_for_job(job)
    run._wait(lambda: any(one["attempts"] for one in run.ask("GET", f"{path}/deliveries").json()["data"]))
    run.ask("POST", "/v1/webhooks", json={**body, "secret": run.canaries.new("secret of the caller's own")})
    for method, address in (("POST", f"{path}:test"), ("GET", path), ("GET", "/v1/webhooks")):
        run.ask(method, address)


def work_of_sources(run: Run) -> None:
    """Sources of a system that refuses, breaks off and fails, and that tells its credentials whenever it does."""
    canaries = run.canaries
    kind, credentials = guarded_source.TYPE, credentials_of(canaries, "source")
    ids = {}
    for misbehave in ("", "defect", "item"):
        given = {**credentials, "misbehave": misbehave}
        made = run.ask("POST", "/v1/sources", json={"type": kind, "name": f"s {misbehave}", "config": given})
        ids[misbehave] = made.json()["id"]
    refused = {"token": canaries.new("refused token"), "expects": "another"}
    for path, config in (
        ("/v1/sources/validate", refused),
        ("/v1/sources/validate", {"token": [canaries.new("token of the wrong type")]}),
        ("/v1/sources", {"token": "t", "colour": canaries.new("value of an unknown field")}),
    ):
        run.ask("POST", path, json={"type": kind, "config": config, **_name(path)})
    run.ask("POST", "/v1/sources", json={"type": kind, "name": "refused", "config": refused})
    changed = f"/v1/sources/{ids['']}"
    run.ask("PATCH", changed, json={"config": {"token": canaries.new("changed token"), "password": None}})
    run.ask("PATCH", changed, json={"config": {"url": "https://elsewhere.example.com"}})
    for source in run.ask("GET", "/v1/sources").json()["data"]:
        started = run.ask("POST", f"/v1/sources/{source['id']}/sync").json()
        if source["id"] != ids["defect"]:  # a defect is tried again for minutes
            run.wait_for_job(started["job_id"])
        run.ask("GET", f"/v1/sources/{source['id']}")
    run.ask("DELETE", f"/v1/sources/{ids['item']}")


def _name(path: str) -> dict[str, str]:
    return {} if path.endswith("validate") else {"name": "never"}


def leaks(run: Run) -> dict[str, set[str]]:
    """Where which canaries were found. Places with none are left out."""
    found = {"log": run.canaries.found_in(run.log.read_bytes())}
    for number, answer in enumerate(run.answers):
        found[f"answer {number}"] = run.canaries.found_in(answer)
    for path in run.data_dir.rglob("*"):
        if path.is_file() and path.name not in KEY_FILES:
            found[path.name] = run.canaries.found_in(path.read_bytes())
    with closing(sqlite3.connect(run.data_dir / "rag.db")) as database:
        found["database"] = run.canaries.found_in("\n".join(database.iterdump()))
    return {place: names for place, names in found.items() if names}


@pytest.fixture
def run(request: pytest.FixtureRequest, tmp_path: Path, upstream: str) -> Run:
    leak = getattr(request, "param", None)
    run = Run(tmp_path / "data", Canaries(), upstream, leak)
    with run.running():
        run.ask("POST", "/v1/teams", json={"id": "acme", "name": "acme"})
        work_of_sources(run)
        if leak is None:
            work(run)
    return run


def test_no_canary_is_found_after_real_work(run: Run) -> None:
    assert len(run.canaries.by_name) >= 20
    answers = "\n".join(run.answers)
    # The work was real: things were found, refused, failed and told about.
    assert '"reason":"refused"' in answers
    for proof in ("Turnips grow", '"state":"failed"', "***", "request.refused", "credentials_required", "No valid key"):
        assert proof in answers, proof
    log = run.log.read_text()
    assert "reading with" in log
    assert "CredentialInMessageError" in log
    assert leaks(run) == {}


@pytest.mark.parametrize(
    ("run", "where"), [("log", "log"), ("plain", "database"), ("told", "database")], indirect=["run"]
)
def test_a_service_that_leaks_is_caught(run: Run, where: str) -> None:
    assert where in leaks(run)


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["doctor"], ["admin", "audit", "verify"]])
def test_a_start_that_fails_tells_no_password(tmp_path: Path, command: list[str]) -> None:
    canaries = Canaries()
    settings = {
        "RAG_ADMIN_KEY": canaries.new("admin key of the service"),
        "RAG_DATABASE_URL": f"postgresql+psycopg://rag:{canaries.new('database password')}@127.0.0.1:1/rag",
        "RAG_REDIS_URL": f"redis://:{canaries.new('Redis password')}@127.0.0.1:1/0",
        "RAG_QDRANT_URL": f"http://qdrant:{canaries.new('Qdrant password')}@127.0.0.1:1",
        "RAG_QDRANT_API_KEY": canaries.new("Qdrant API key"),
        "RAG_SECRET_KEYS": canaries.new("malformed secret key"),
        "RAG_EMBEDDER": "hashing",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "tests.security.launch_guarded", *command],
        env=environment(tmp_path / "data", **settings),
        capture_output=True,
        timeout=100,
        check=False,
    )
    told = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert told
    assert canaries.found_in(told) == set(), told.decode()
