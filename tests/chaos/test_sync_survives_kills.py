"""Kill the process again and again in the middle of a sync: nothing is lost, nothing is doubled."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from rag_service.db import Database, chunks, documents
from rag_service.types import DocumentStatus
from rag_service.vectors.edge import EdgeVectorStore
from tests.chaos.process import ServiceProcess, service_process

DOCUMENTS = 1000
KILLS = 20
TEAM = "chaos"


def write_documents(root: Path) -> None:
    for number in range(DOCUMENTS):
        folder = root / f"part-{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        sections = [
            f"## Section {n}\n\nDocument {number} says {n} times that " + "words matter. " * 40 for n in range(3)
        ]
        (folder / f"{number:04}.md").write_text(f"# Document {number}\n\n" + "\n\n".join(sections))


def begin_sync(service: ServiceProcess, root: Path) -> str:
    service.request("POST", "/v1/teams", json={"id": TEAM, "name": "Chaos"})
    source = service.request(
        "POST",
        "/v1/sources",
        json={"name": "tree", "type": "files", "config": {"root": str(root)}, "acl": {"public": True}},
    )
    return str(service.request("POST", f"/v1/sources/{source['id']}/sync", json={})["job_id"])


def wait_for(service: ServiceProcess, job_id: str) -> dict[str, object]:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        job = service.request("GET", f"/v1/jobs/{job_id}")
        if job["state"] not in ("queued", "running"):
            return job
        time.sleep(0.1)
    raise AssertionError("the sync did not end")


def run_with_kills(data_dir: Path, root: Path, kills: int, seed: int, *, random_ids: bool = False) -> dict[str, object]:
    moments = random.Random(seed)
    with service_process(data_dir, random_ids=random_ids) as service:
        service.start()
        job_id = begin_sync(service, root)
        for _ in range(kills):
            time.sleep(moments.uniform(0.05, 0.6))
            service.kill()
            service.start()
        job = wait_for(service, job_id)
        service.stop()
    return job


def doubled_or_missing(data_dir: Path) -> list[str]:
    """Compare the index with the catalogue: what each document has too many or too few of."""
    database = Database(f"sqlite:///{data_dir / 'rag.db'}")
    store = EdgeVectorStore(data_dir / "vectors")
    wrong = []
    try:
        with database.read() as connection:
            rows = documents.page(
                connection, TEAM, documents.DocumentFilter(), scope=None, limit=DOCUMENTS + 1, after=None
            ).data
            assert len(rows) == DOCUMENTS
            assert {row.status for row in rows} == {DocumentStatus.READY}
            held: dict[str, Counter[str]] = {}
            for point in store.stored(str(rows[0].index_version)):
                held.setdefault(point.document_id, Counter())[point.text_hash] += 1
            for row in rows:
                listed = chunks.page(connection, row.id, limit=1000, after=None).data
                assert len(listed) == row.chunk_count > 0
                if held.get(row.id) != Counter(chunk.text_hash for chunk in listed):
                    wrong.append(row.external_id)
            assert set(held) == {row.id for row in rows}
    finally:
        store.close()
        database.close()
    return wrong


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    root, data_dir = tmp_path / "docs", tmp_path / "data"
    write_documents(root)
    job = run_with_kills(data_dir, root, KILLS, seed=20_11)
    assert job["state"] == "succeeded"
    assert doubled_or_missing(data_dir) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_kills_catch_chunk_ids_that_are_made_up_anew(tmp_path: Path) -> None:
    """The broken variant: with random ids, what a killed worker had written is never written over."""
    root, data_dir = tmp_path / "docs", tmp_path / "data"
    write_documents(root)
    run_with_kills(data_dir, root, KILLS, seed=20_11, random_ids=True)
    assert doubled_or_missing(data_dir) != []
