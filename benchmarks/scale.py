"""What grows with an index: time of a search, memory, start-up, and how long writing holds everybody up.

    python -m benchmarks.scale --engine --sizes 10000 100000 1000000
    python -m benchmarks.scale --service --chunks 100000 --data ../shared/data/collections

--engine: the embedded store alone, on generated vectors (384 dimensions around 1,000 centres, 60 terms per chunk drawn
by Zipf's law). Every tenth chunk has the same group; searches ask hybrid as somebody in three of ten groups, once the
graph of a large index is made. The longest stall is taken twice: while batches are written one after the other, and,
where a graph is due and up to 100,000 chunks, while 500 chunks a second are written and a graph of all is made.
--service: `rag serve` over a collection of generated passages (real sentences in random order, generated vectors, the
whole pipeline otherwise), asked real questions over HTTP with the real model: alone, by 8 clients, and while documents
are ingested.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.beir import load
from benchmarks.generated import BATCH, DIMENSIONS, TEAM, Generator, fill, wait_for_graphs
from benchmarks.latency import SOURCES, ask, print_spread, questions, rate, record
from benchmarks.results import add_json_option, write
from benchmarks.service import Service, running_service
from rag_service.access import AccessScope, Principal, scope_of
from rag_service.settings import Settings
from rag_service.vectors import graph
from rag_service.vectors.base import IndexSpec, SearchRequest
from rag_service.vectors.edge import EdgeVectorStore

SEARCHES = 200
CANDIDATES = Settings.model_fields["candidates"].default  # that each leg draws
STALL_BATCHES = 30
PAUSE_S = 0.2
GRAPH_STALL_UP_TO = 100_000  # a graph of ten times as many takes a quarter of an hour


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--engine", action="store_true")
    arguments.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    arguments.add_argument("--service", action="store_true")
    arguments.add_argument("--chunks", type=int, default=100_000)
    arguments.add_argument("--data", type=Path, help="folder of collections in BEIR form, for --service")
    arguments.add_argument("--keep", type=Path, help="data folder to fill once and to measure again, for --service")
    arguments.add_argument("--queries", type=int, default=500)
    add_json_option(arguments)
    arguments.add_argument("--plot", type=Path, help="draw what --engine measures to this PNG; needs the extra `bench`")
    given = arguments.parse_args()
    if not given.engine and not given.service:
        arguments.error("Say what to measure: --engine, --service or both.")
    if given.service and (given.data is None or not (given.data / SOURCES[0]).is_dir()):
        arguments.error(f"--service needs --data FOLDER, one that holds {SOURCES[0]}.")
    if given.engine:
        rows = _engine(sorted(given.sizes))
        write(given.json, rows)
        if given.plot is not None:
            from benchmarks.plots import growth, save

            save(growth, rows, given.plot)
    if given.service:
        with tempfile.TemporaryDirectory(prefix="rag-bench-") as fresh:
            _service(given.keep or Path(fresh), given.data, given.chunks, given.queries)


# --- the embedded store alone


def _engine(sizes: list[int]) -> list[dict[str, float]]:
    searches = "search p50 ms | p95 ms | dense p50 ms"
    print(f"| chunks | points/s | {searches} | MB | load s | graph s | stall ms | with a graph made ms |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    generator = Generator()
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="rag-bench-") as folder:
        store = EdgeVectorStore(Path(folder))
        store.create("scale", IndexSpec(DIMENSIONS))
        held = 0
        for size in sizes:
            began = time.perf_counter()
            for points in generator.batches(size - held):
                store.upsert("scale", points)
            filled = (size - held) / max(time.perf_counter() - began, 1e-9)
            held = size
            store.close()
            store, load_s = _reopened(Path(folder))
            row = {"chunks": size, "points_s": filled, "load_s": load_s, "graph_s": _graph_made_s(store)}
            row |= {**_searched(store, generator), "mb": _resident_mb()}
            row["stall_ms"] = _longest_stall(store, generator)
            held += STALL_BATCHES * BATCH
            if graph.FIRST <= size <= GRAPH_STALL_UP_TO:
                row["graph_stall_ms"], written = _longest_stall_with_a_graph(store, generator)
                held += written
            rows.append(row)
            _print_row(row)
        store.close()
    return rows


def _graph_made_s(store: EdgeVectorStore) -> float:
    """Wait for the graph that is due; 0 where none is."""
    began = time.perf_counter()
    wait_for_graphs(store)
    return time.perf_counter() - began


def _resident_mb() -> float:
    """Of this process and of the one that has the graph."""
    here = psutil.Process()
    return sum(process.memory_info().rss for process in (here, *here.children())) / 1e6


def _print_row(row: dict[str, float]) -> None:
    made = f"{row['graph_stall_ms']:.0f}" if "graph_stall_ms" in row else ""
    print(
        f"| {row['chunks']:,.0f} | {row['points_s']:,.0f} | {row['p50_ms']:.1f} | {row['p95_ms']:.1f} | "
        f"{row['dense_p50_ms']:.1f} | {row['mb']:,.0f} | {row['load_s']:.2f} | {row['graph_s']:.0f} | "
        f"{row['stall_ms']:.0f} | {made} |",
        flush=True,
    )


def _reopened(folder: Path) -> tuple[EdgeVectorStore, float]:
    began = time.perf_counter()
    store = EdgeVectorStore(folder)
    next(store.stored("scale", "nothing"), None)
    return store, time.perf_counter() - began


def _searched(store: EdgeVectorStore, generator: Generator) -> dict[str, float]:
    scope = scope_of(Principal(TEAM, None, frozenset({"g1", "g4", "g7"})))
    hybrid, dense = [], []
    for _ in range(SEARCHES):
        query = generator.vectors(1)[0]
        hybrid.append(_search_ms(store, SearchRequest(query, generator.terms(8), None, CANDIDATES), scope))
        dense.append(_search_ms(store, SearchRequest(query, None, None, CANDIDATES), scope))
    cuts = statistics.quantiles(hybrid, n=100)
    return {"p50_ms": cuts[49], "p95_ms": cuts[94], "dense_p50_ms": statistics.median(dense)}


def _search_ms(store: EdgeVectorStore, request: SearchRequest, scope: AccessScope) -> float:
    began = time.perf_counter()
    store.search("scale", request, scope)
    return (time.perf_counter() - began) * 1000


def _longest_stall(store: EdgeVectorStore, generator: Generator) -> float:
    """Milliseconds: the longest that a thread which wants to run every millisecond could not, while another writes."""
    batches = list(generator.batches(STALL_BATCHES * BATCH))
    with _heartbeat() as gaps:
        for points in batches:
            store.upsert("scale", points)
    return max(gaps) * 1000


def _longest_stall_with_a_graph(store: EdgeVectorStore, generator: Generator) -> tuple[float, int]:
    """Milliseconds, and how many points were written meanwhile."""
    kept, written = store._shard("scale")._graph, 0
    former = kept._seeker
    with _heartbeat() as gaps:
        kept.grow()
        while kept.busy and kept._seeker is former:  # what is written meanwhile may make the next one due
            for points in generator.batches(BATCH):
                store.upsert("scale", points)
            written += BATCH
            time.sleep(PAUSE_S)
    return max(gaps) * 1000, written


@contextmanager
def _heartbeat() -> Iterator[list[float]]:
    gaps, over = [0.0], threading.Event()

    def beat() -> None:
        last = time.perf_counter()
        while not over.wait(0.001):
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield gaps
    finally:
        over.set()
        thread.join()


# --- the whole service


def _service(folder: Path, data: Path, chunks: int, queries: int) -> None:
    if not (folder / "rag.db").exists():
        began = time.perf_counter()
        passages = [passage["text"] for name in SOURCES[:3] for passage in load(data / name).documents]
        fill(folder, passages, chunks)
        print(f"filled with {chunks:,} generated chunks in {time.perf_counter() - began:.0f} s")
    began = time.perf_counter()
    with running_service(folder) as service:
        print(f"start to ready: {time.perf_counter() - began:.1f} s")
        asked = questions(data, queries)
        for query in asked[:50]:
            ask(service, query)
        _report(service, asked, "alone")
        print(f"8 clients: {rate(service, asked, 8):.0f} requests/s")
        print(f"memory: {service.memory_mb():,.0f} MB")
        with _uploading(service, data):
            _report(service, asked, "while documents are ingested")


def _report(service: Service, asked: list[str], when: str) -> None:
    timings = [ask(service, query) for query in asked]
    print(f"{when}, one client, in three of ten groups:")
    for name in ("embed_ms", "search_ms", "confirm_ms", "total_ms", "http_ms"):
        print_spread(name, [timing[name] for timing in timings])


@contextmanager
def _uploading(service: Service, data: Path) -> Iterator[None]:
    """Keep the workers busy with real documents, twenty at a time, until the block ends."""
    passages = [passage for name in SOURCES for passage in load(data / name).documents if passage["text"]]
    over, run = threading.Event(), uuid.uuid4().hex  # what a kept folder has from a former run costs nothing now

    def put() -> None:
        for start in range(0, len(passages), 20):
            if over.is_set():
                return
            part = [{**one, "text": f"{run} {one['text']}"} for one in passages[start : start + 20]]
            service.upload("default", [record(run, start + place, one) for place, one in enumerate(part)])
            while not over.wait(0.1) and service.get("/v1/jobs", state="queued", limit="1")["data"]:
                pass

    thread = threading.Thread(target=put)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    main()
