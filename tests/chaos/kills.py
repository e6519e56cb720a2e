"""SIGKILL, again and again: in the middle of a sync, and in the middle of one long job."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from pathlib import Path

from rag_service.db import Database, chunks, documents
from rag_service.types import DocumentStatus
from rag_service.vectors.edge import EdgeVectorStore
from tests.chaos.process import TEAM, ServiceProcess, service_process
from tests.chaos.report import Report, percentile


def killed_in_a_sync(folder: Path, seed: int, *, files: int, kills: int, mutant: str = "") -> Report:
    """Kill the service at random moments while it reads a folder. Nothing is lost, nothing is doubled."""
    root, data_dir, moments = folder / "docs", folder / "data", random.Random(seed)
    _write_documents(root, files)
    began = time.monotonic()
    with service_process(data_dir, *([f"--mutant={mutant}"] if mutant else [])) as service:
        service.start()
        job_id = _begin_sync(service, root)
        for _ in range(kills):
            _wait_until_at_work(data_dir)
            time.sleep(moments.uniform(0, 0.3))
            service.kill()
            service.start()
        job = _wait_for(service, job_id)
        service.stop()
    wrong = _doubled_or_missing(data_dir, files)
    if job["state"] != "succeeded":
        wrong.append(f"the sync ended as {job['state']}: {job['error']}")
    numbers = {"documents": files, "SIGKILLs": kills, "wrong": len(wrong), "seconds": round(time.monotonic() - began)}
    return Report("killed in a sync", seed, "the process killed at random moments", numbers, tuple(wrong))


def killed_with_a_job(folder: Path, seed: int, *, runs: int) -> Report:
    """Kill the holder of one long job and measure how long the job lies until somebody works on it again."""
    data_dir, moments, waits = folder / "data", random.Random(seed), []
    words = [f"word{n}" for n in range(5_000)]
    with service_process(data_dir) as service:
        service.start()
        service.make_team()
        for run in range(runs):
            text = " ".join(moments.choice(words) for _ in range(400_000))
            job_id = service.request("POST", "/v1/documents", json={"text": text, "external_id": str(run)})["job_id"]
            before = _wait_for_fence(data_dir, job_id, 1)
            time.sleep(moments.uniform(0, 0.3))
            service.kill()
            killed = time.monotonic()
            service.start()
            _wait_for_fence(data_dir, job_id, before + 1)
            waits.append(time.monotonic() - killed)
            job = _wait_for(service, job_id)
            assert job["state"] == "succeeded", job
        service.stop()
    p99 = percentile(waits, 0.99)
    wrong = () if p99 <= 60 else (f"99 % of the jobs were taken up within {p99:.0f} s, not 60",)
    numbers = {"runs": runs, "p50 s": round(percentile(waits, 0.5), 1), "p99 s": round(p99, 1)}
    return Report("killed with a job", seed, "the holder of one job killed, the service started again", numbers, wrong)


def _write_documents(root: Path, files: int) -> None:
    for number in range(files):
        folder = root / f"part-{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        sections = [
            f"## Section {n}\n\nDocument {number} says {n} times that " + "words matter. " * 40 for n in range(3)
        ]
        (folder / f"{number:04}.md").write_text(f"# Document {number}\n\n" + "\n\n".join(sections))


def _begin_sync(service: ServiceProcess, root: Path) -> str:
    service.make_team()
    wanted = {"name": "tree", "type": "files", "config": {"root": str(root)}, "acl": {"public": True}}
    source = service.request("POST", "/v1/sources", json=wanted)
    return str(service.request("POST", f"/v1/sources/{source['id']}/sync", json={})["job_id"])


def _wait_for(service: ServiceProcess, job_id: str) -> dict[str, object]:
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        job = service.request("GET", f"/v1/jobs/{job_id}")
        if job["state"] not in ("queued", "running"):
            return job
        time.sleep(0.1)
    raise AssertionError("the job did not end")


def _wait_until_at_work(data_dir: Path) -> None:
    """Until documents become ready, or there is nothing left to do."""
    counted = "SELECT COALESCE(SUM(state = 'succeeded'), 0), COALESCE(SUM(state IN ('queued', 'running')), 0) FROM jobs"
    deadline = time.monotonic() + 60
    with sqlite3.connect(data_dir / "rag.db", timeout=30) as database:
        before, left = database.execute(counted).fetchone()
        while left and time.monotonic() < deadline:
            done, left = database.execute(counted).fetchone()
            if done > before:
                return
            time.sleep(0.01)


def _wait_for_fence(data_dir: Path, job_id: str, at_least: int) -> int:
    """Wait until the job has been claimed that often."""
    deadline = time.monotonic() + 120
    with sqlite3.connect(data_dir / "rag.db", timeout=30) as database:
        while time.monotonic() < deadline:
            (fence,) = database.execute("SELECT fence FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if fence >= at_least:
                return int(fence)
            time.sleep(0.01)
    raise AssertionError("nobody claimed the job")


def _doubled_or_missing(data_dir: Path, files: int) -> list[str]:
    """Compare the index with the catalogue: what each document has too many or too few of."""
    database = Database(f"sqlite:///{data_dir / 'rag.db'}")
    store = EdgeVectorStore(data_dir / "vectors")
    try:
        with database.read() as connection:
            everything = documents.DocumentFilter()
            rows = documents.page(connection, TEAM, everything, scope=None, limit=files + 1, after=None).data
            held: dict[str, Counter[str]] = {}
            for point in store.stored(next(str(row.index_version) for row in rows if row.index_version)):
                held.setdefault(point.document_id, Counter())[point.text_hash] += 1
            wrong = [] if len(rows) == files else [f"{len(rows)} documents instead of {files}"]
            wrong += [f"{row.external_id} is {row.status}" for row in rows if row.status != DocumentStatus.READY]
            wrong += ["points of no document"] * len(set(held) - {row.id for row in rows})
            for row in rows:
                listed = chunks.page(connection, row.id, limit=1000, after=None).data
                same = held.get(row.id) == Counter(chunk.text_hash for chunk in listed)
                wrong += [] if same and len(listed) == row.chunk_count > 0 else [f"{row.external_id}: other points"]
    finally:
        store.close()
        database.close()
    return wrong
