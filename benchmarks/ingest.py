"""How fast a folder goes in, beside the embedder's own rate on the very same chunks in the same run.

    python -m benchmarks.ingest --docs ../shared/data/docs/fastapi_docs_en ../shared/data/docs/owasp_cheatsheets

The pipeline (list, hash, store, parse, chunk, embed, index, commit) is measured from the start of the sync to its
end; then the same embedder, in the same process, embeds the same texts and does nothing else. Rounds of both follow
each other, and CPU seconds (parser processes included) stand beside wall seconds, because shared machines are noisy.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from benchmarks.results import add_json_option, write
from connectors.base import Acl
from rag_service.db import chunks, documents, jobs, sources
from rag_service.db.jobs import Job
from rag_service.garbage import seldom_collected
from rag_service.runtime import Runtime, build
from rag_service.settings import Settings
from rag_service.types import Collection, JobState
from workers.inside import InsideWorker

TEAM = "bench"
T = TypeVar("T")


@dataclass(frozen=True)
class Ingested:
    documents: int
    failed: int
    texts: list[str]
    stages_ms: dict[str, float]


@dataclass(frozen=True)
class Spent:
    """Seconds by the clock on the wall, and of processors, child processes included."""

    wall: float
    cpu: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--docs", type=Path, nargs="+", required=True, help="folders to ingest")
    arguments.add_argument("--rounds", type=int, default=3)
    add_json_option(arguments)
    given = arguments.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rag-bench-") as folder, seldom_collected():  # as the service is
        runtime = build(Settings(data_dir=Path(folder)))
        runtime.open()
        worker = InsideWorker(runtime)
        worker.start()
        try:
            runtime.catalogue.create_team(TEAM, "Benchmark")
            runtime.embedder.embed(["warm up"], "document")
            gc.freeze()
            print("| folder | documents | failed | chunks | docs/s | chunks/s | embedder alone | on top | CPU on top |")
            print("|---|---|---|---|---|---|---|---|---|")
            for docs in given.docs:
                for number in range(given.rounds):
                    rows.append({"folder": docs.name, "round": number + 1, **_round(runtime, docs, number + 1)})
        finally:
            worker.stop()
            runtime.close()
    write(given.json, rows)


def _round(runtime: Runtime, docs: Path, number: int) -> dict[str, float]:
    name = f"{docs.name} {number}"
    # Of its own: a collection computes no vector of a text that it has one of.
    collection = runtime.catalogue.create_collection(TEAM, f"{docs.name}-{number}", description="", language="auto")
    job, whole = _measured(lambda: _synced(runtime, docs, collection))
    result = _result(runtime, job, collection)
    _, alone = _measured(lambda: _embed(runtime, result.texts))
    count = len(result.texts)
    rates = f"{result.documents / whole.wall:.1f} | {count / whole.wall:.1f} | {count / alone.wall:.1f}"
    extra = f"{(whole.wall / alone.wall - 1) * 100:+.0f} % | {(whole.cpu / alone.cpu - 1) * 100:+.0f} %"
    print(f"| {name} | {result.documents} | {result.failed} | {count} | {rates} | {extra} |")
    print(
        f"<!-- milliseconds per stage over {runtime.settings.worker_threads} threads: {result.stages_ms} -->",
        flush=True,
    )
    return {
        "documents": result.documents,
        "docs_s": result.documents / whole.wall,
        "chunks_s": count / whole.wall,
        "alone_s": count / alone.wall,
        "on_top": whole.wall / alone.wall - 1,
    }


def _embed(runtime: Runtime, texts: list[str]) -> None:
    for start in range(0, len(texts), 256):
        runtime.embedder.embed(texts[start : start + 256], "document")


def _measured(work: Callable[[], T]) -> tuple[T, Spent]:
    before, began = _cpu_seconds(), time.perf_counter()
    made = work()
    return made, Spent(time.perf_counter() - began, _cpu_seconds() - before)


def _cpu_seconds() -> float:
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)


def _synced(runtime: Runtime, docs: Path, collection: Collection) -> Job:
    """The sync of a folder, once it has ended."""
    with runtime.database.transaction() as transaction:
        source = sources.create(
            transaction.connection,
            team_id=TEAM,
            collection_id=collection.id,
            name=collection.name,
            source_type="files",
            config={"root": str(docs.resolve())},
            acl=Acl(public=True),
            schedule_s=None,
            max_deleted_percent=20,
        )
    with runtime.database.transaction() as transaction:
        job_id = runtime.syncer.start(transaction, source)
    while True:
        with runtime.database.read() as connection:
            job = jobs.get(connection, TEAM, job_id)
        if job.state == JobState.FAILED:
            raise RuntimeError(f"the sync failed: {job.error}")
        if job.state.is_final:
            return job
        time.sleep(0.2)


def _result(runtime: Runtime, job: Job, collection: Collection) -> Ingested:
    with runtime.database.read() as connection:
        stages = jobs.stages_of_children(connection, job.id)
    texts, count = _texts(runtime, collection)
    return Ingested(count, job.counters.get("failed", 0), texts, stages)


def _texts(runtime: Runtime, collection: Collection) -> tuple[list[str], int]:
    """The texts that were embedded for a collection, and the number of its documents."""
    texts: list[str] = []
    count, after = 0, None
    chunker = runtime.catalogue.chunker
    with runtime.database.read() as connection:
        while True:
            narrowing = documents.DocumentFilter(collection_id=collection.id)
            page = documents.page(connection, TEAM, narrowing, scope=None, limit=500, after=after)
            for document in page.data:
                count += 1
                held = chunks.page(connection, document.id, limit=100_000, after=None).data
                title = chunker.fitting_title(document.title)
                texts += [chunker.embedded(title, chunk.content) for chunk in held]
            after = page.next_cursor
            if after is None:
                return texts, count


if __name__ == "__main__":
    main()
