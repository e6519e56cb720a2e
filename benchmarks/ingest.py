"""How fast a folder goes in, beside the embedder's own rate on the very same chunks in the same run.

    python -m benchmarks.ingest --docs ../shared/data/docs/fastapi_docs_en ../shared/data/docs/owasp_cheatsheets

The pipeline (list, hash, store, parse, chunk, embed, index, commit) is measured from the start of the sync to its
end; then the same embedder, in the same process, embeds the same texts and does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from connectors.base import Acl
from rag_service.chunking.base import embedded_text
from rag_service.db import chunks, collections, documents, jobs, sources
from rag_service.runtime import Runtime, build
from rag_service.settings import Settings
from rag_service.types import JobState
from workers.inside import InsideWorker

TEAM = "bench"


@dataclass(frozen=True)
class Ingested:
    documents: int
    failed: int
    texts: list[str]
    seconds: float
    stages_ms: dict[str, float]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--docs", type=Path, nargs="+", required=True, help="folders to ingest")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="rag-bench-") as folder:
        runtime = build(Settings(data_dir=Path(folder)))
        runtime.open()
        worker = InsideWorker(runtime)
        worker.start()
        try:
            runtime.catalogue.create_team(TEAM, "Benchmark")
            runtime.embedder.embed(["warm up"], "document")
            print("| folder | documents | failed | chunks | pipeline docs/s | chunks/s | embedder chunks/s | on top |")
            print("|---|---|---|---|---|---|---|---|")
            for docs in given.docs:
                _report(runtime, docs)
        finally:
            worker.stop()
            runtime.close()


def _report(runtime: Runtime, docs: Path) -> None:
    result = _ingest(runtime, docs)
    began = time.perf_counter()
    for start in range(0, len(result.texts), 256):
        runtime.embedder.embed(result.texts[start : start + 256], "document")
    alone = time.perf_counter() - began
    count = len(result.texts)
    rates = f"{result.documents / result.seconds:.1f} | {count / result.seconds:.1f} | {count / alone:.1f}"
    extra = (result.seconds / alone - 1) * 100
    print(f"| {docs.name} | {result.documents} | {result.failed} | {count} | {rates} | {extra:+.1f} % |")
    print(f"<!-- milliseconds per stage, summed over {runtime.settings.worker_threads} threads: {result.stages_ms} -->")


def _ingest(runtime: Runtime, docs: Path) -> Ingested:
    with runtime.database.transaction() as transaction:
        collection = collections.get(transaction.connection, TEAM, collections.DEFAULT)
        source = sources.create(
            transaction.connection,
            team_id=TEAM,
            collection_id=collection.id,
            name=docs.name,
            source_type="files",
            config={"root": str(docs.resolve())},
            acl=Acl(public=True),
            schedule_s=None,
            max_deleted_percent=20,
        )
    began = time.perf_counter()
    with runtime.database.transaction() as transaction:
        job_id = runtime.syncer.start(transaction, source)
    while True:
        with runtime.database.read() as connection:
            job = jobs.get(connection, TEAM, job_id)
        if job.state == JobState.FAILED:
            raise RuntimeError(f"the sync failed: {job.error}")
        if job.state.is_final:
            break
        time.sleep(0.05)
    seconds = time.perf_counter() - began
    with runtime.database.read() as connection:
        stages = jobs.stages_of_children(connection, job_id)
    texts, count = _texts(runtime, source.id)
    return Ingested(count, job.counters.get("failed", 0), texts, seconds, stages)


def _texts(runtime: Runtime, source_id: str) -> tuple[list[str], int]:
    """The texts that were embedded for a source, and the number of its documents."""
    texts: list[str] = []
    count, after = 0, None
    with runtime.database.read() as connection:
        while True:
            narrowing = documents.DocumentFilter(source_id=source_id)
            page = documents.page(connection, TEAM, narrowing, scope=None, limit=500, after=after)
            for document in page.data:
                count += 1
                held = chunks.page(connection, document.id, limit=100_000, after=None).data
                title = runtime.indexer.chunker.fitting_title(document.title)
                texts += [embedded_text(title, c.content.heading_path, c.content.text) for c in held]
            after = page.next_cursor
            if after is None:
                return texts, count


if __name__ == "__main__":
    main()
