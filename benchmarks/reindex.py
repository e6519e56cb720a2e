"""Another model for a collection that is asked and written all the while, the service killed on the way.

    python -m benchmarks.reindex --chunks 50000 --kills 5
    python -m benchmarks.reindex --chunks 5000 --model local      the default model and a turned copy of it

Documents of generated text go in over HTTP; then `--questions` questions and `--writes` writes (new texts, readers,
documents, deletions) per second run without end while an index version of other dimensions is built by a model behind
an embeddings API, and promoted. Every answer is held against what was written: index versions and versions of documents
mixed in one answer, documents that the asker may not read, answers without any passage, errors. What is asked while the
process is dead or starting is counted apart. Recall@10 is that of dense questions among the documents that nobody
changes, against all of their vectors compared one by one.
"""

from __future__ import annotations

import argparse
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import second_model
from benchmarks.killable import Killable
from benchmarks.ledger import PUBLIC, Ledger
from benchmarks.recall import Embed, Exact
from benchmarks.results import add_json_option, write
from benchmarks.traffic import GROUPS, Traffic, acl, text

_WORDS = tuple(f"word{number}" for number in range(3_000))
_CHUNKS_PER_DOCUMENT = 5
_BATCH = 200
_VERSIONS = "/v1/admin/index-versions"
_CHANGING = 400  # at most, and a tenth of all documents
_QUIET_S = 15.0
# How often recall is measured while the new index version is built; the worst is told.
_LOOKS = 4


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--chunks", type=int, default=50_000)
    arguments.add_argument("--kills", type=int, default=5)
    arguments.add_argument("--questions", type=float, default=20.0, help="per second")
    arguments.add_argument("--writes", type=float, default=5.0, help="per second")
    arguments.add_argument("--model", choices=("hashing", "local"), default="hashing")
    arguments.add_argument("--threads", type=int, default=2, help="documents that are built at a time")
    add_json_option(arguments)
    given = arguments.parse_args()
    models = Path(tempfile.gettempdir()) / "rag-bench-models"
    with tempfile.TemporaryDirectory(prefix="rag-bench-", ignore_cleanup_errors=True) as folder:
        settings = {"RAG_EMBEDDER": given.model, "RAG_MODELS_DIR": str(models)}
        service = Killable(Path(folder), settings)
        with _embeddings_api(given.model, models) as url:
            try:
                rows = _Course(service, given, url, models).run()
            finally:
                service.stop()
    _print(rows)
    write(given.json, rows)


@contextmanager
def _embeddings_api(kind: str, models: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "benchmarks.second_model", "--port", str(port), "--kind", kind]
    with subprocess.Popen([*command, "--models", str(models)]) as process:
        try:
            _until(lambda: _answers(f"http://127.0.0.1:{port}/"), 120)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@dataclass
class _Course:
    service: Killable
    given: argparse.Namespace
    url: str
    models: Path
    ledger: Ledger = field(default_factory=Ledger)
    rows: list[dict[str, Any]] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    version: str = ""

    def run(self) -> list[dict[str, Any]]:
        self.service.start()
        self.service.make_team()
        fixed, changing = self._fill()
        first = self._exact(fixed, self._first)
        traffic = Traffic(self.service, self.ledger, _WORDS, changing)
        traffic.start(self.given.questions, self.given.writes)
        try:
            self._phase("before", traffic, first, lambda: time.sleep(_QUIET_S))
            self._phase("building", traffic, first, lambda: self._build(first))
            self._phase("promoting", traffic, None, self._promote)
            second = self._exact(fixed, self._second)
            self._phase("after", traffic, second, lambda: time.sleep(_QUIET_S))
        finally:
            traffic.stop()
        return self.rows

    def _fill(self) -> tuple[dict[str, str], list[str]]:
        """Documents that nobody changes, with their texts, and the names of those that are."""
        chance = random.Random(5)
        count = max(1, self.given.chunks // _CHUNKS_PER_DOCUMENT)
        changing = [f"changing-{place}" for place in range(min(_CHANGING, count // 10))]
        fixed = {f"fixed-{place}": text(chance, _WORDS, _CHUNKS_PER_DOCUMENT) for place in range(count - len(changing))}
        documents = {**fixed, **{name: text(chance, _WORDS, 1) for name in changing}}
        wanted = []
        for name, content in documents.items():
            reader = chance.choice((*GROUPS, PUBLIC))
            self.ledger.acknowledged(name, self.ledger.sent(name, reader))
            about = {"fixed": name in fixed}
            wanted.append({"external_id": name, "text": content, "acl": acl(reader), "metadata": about})
        for start in range(0, len(wanted), _BATCH):
            self._send("POST", "/v1/documents:batch", {"documents": wanted[start : start + _BATCH]})
        _until(lambda: not self._open_jobs(), 7_200)
        return fixed, changing

    def _exact(self, fixed: dict[str, str], embed: Callable[[], Embed]) -> Exact:
        """What questions ought to find among the passages that the active index version has now."""
        return Exact(self._passages(fixed), embed())

    def _first(self) -> Embed:
        from rag_service.runtime.variants import make_embedder
        from rag_service.settings import Settings

        model = make_embedder(Settings(embedder=self.given.model, models_dir=self.models))
        return lambda texts: model.embed(texts, "document")

    def _second(self) -> Embed:
        return second_model.hashing() if self.given.model == "hashing" else second_model.local(self.models)

    def _passages(self, fixed: dict[str, str]) -> list[tuple[str, str]]:
        """(document, passage) as the service cut them."""
        found = []
        for document in self._listed("/v1/documents"):
            if document["external_id"] in fixed:
                chunks = self._send("GET", f"/v1/documents/{document['id']}/chunks?limit=100")["data"]
                found += [(document["external_id"], chunk["text"]) for chunk in chunks]
        return found

    def _listed(self, path: str) -> Iterator[dict[str, Any]]:
        after = ""
        while True:
            page = self._send("GET", f"{path}?limit=1000{after}")
            yield from page["data"]
            if not page["has_more"]:
                return
            after = f"&after={page['next_cursor']}"

    def _build(self, exact: Exact) -> None:
        embedding = {
            "embedder": "http",
            "model": "second",
            "url": self.url,
            "dimensions": second_model.DIMENSIONS,
            "window": 512,
        }
        wanted = {
            "pipeline": {"embedding": embedding},
            "priority": "high",
            "max_concurrency": self.given.threads,
        }
        estimate = self._send("POST", _VERSIONS, {**wanted, "dry_run": True})["estimate"]
        began = time.monotonic()
        self.version = self._send("POST", _VERSIONS, wanted)["id"]
        down, killed, looks = 0.0, 0, 0
        while (shown := self._version())["state"] != "ready":
            if shown["state"] == "failed":
                raise RuntimeError(str(shown["error"]))
            share = shown["progress"]["done"] / max(1, shown["progress"]["total"])
            if looks < _LOOKS and share >= (looks + 0.5) / _LOOKS:
                self.recalls.append(exact.recall(self._retrieve))
                looks += 1
            if killed < self.given.kills and share >= (killed + 1) / (self.given.kills + 1):
                down += self.service.kill_and_start()
                killed += 1
            time.sleep(0.2)
        took = time.monotonic() - began
        self.rows.append(
            {"what": "build", "chunks": shown["progress"]["chunks_done"], "seconds": took, "down_s": down}
            | {"kills": killed, "estimated_s": estimate["seconds"], "failed": shown["progress"]["failed"]}
        )

    def _retrieve(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._send("POST", "/v1/retrieve", body)

    def _version(self) -> dict[str, Any]:
        return self._send("GET", f"{_VERSIONS}/{self.version}")

    def _promote(self) -> None:
        began = time.monotonic()
        self._send("POST", f"{_VERSIONS}/{self.version}:promote", {})
        self.rows.append({"what": "promote", "seconds": time.monotonic() - began})

    def _phase(self, name: str, traffic: Traffic, exact: Exact | None, work: Callable[[], None]) -> None:
        faults, began, written = traffic.faults.counted(), time.monotonic(), traffic.written
        work()
        if exact is not None:
            self.recalls.append(exact.recall(self._retrieve))
        recall, self.recalls = min(self.recalls, default=None), []
        spent = [ms for at, ms in list(traffic.latencies) if at >= began]
        counted = {kind: count - faults[kind] for kind, count in traffic.faults.counted().items()}
        spread = {f"p{share}_ms": round(float(np.percentile(spent, share)), 1) for share in (50, 95) if spent}
        times = {"seconds": time.monotonic() - began, "writes": traffic.written - written}
        self.rows.append({"what": name, **times, **counted, **spread, "recall@10": recall})
        for example in traffic.faults.examples:
            print(f"{name}: {example}", file=sys.stderr)

    def _open_jobs(self) -> bool:
        return any(self._send("GET", f"/v1/jobs?state={state}&limit=1")["data"] for state in ("queued", "running"))

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self.service.http.request(method, path, json=body)
        if answer.is_error:
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:500]}")
        return dict(answer.json())


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False


def _until(holds: Callable[[], bool], at_most_s: float) -> None:
    deadline = time.monotonic() + at_most_s
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not so within {at_most_s} s")
        time.sleep(0.2)


def _print(rows: list[dict[str, Any]]) -> None:
    columns = ["what", "seconds", "answers", "errors", "while_down", "empty", "mixed", "forbidden"]
    columns += ["writes", "p50_ms", "p95_ms", "recall@10"]
    print(f"| {' | '.join(columns)} |")
    print(f"|{'---|' * len(columns)}")
    for row in rows:
        cells = ["" if row.get(name) is None else row[name] for name in columns]
        print(f"| {' | '.join(f'{cell:.3g}' if isinstance(cell, float) else str(cell) for cell in cells)} |")
    for row in rows:
        if row["what"] == "build":
            print(
                f"\n{row['chunks']} chunks in {row['seconds']:.0f} s ({row['estimated_s']:.0f} s estimated), killed"
                f" {row['kills']} times and not ready for {row['down_s']:.1f} s in all; {row['failed']} failed"
            )


if __name__ == "__main__":
    main()
