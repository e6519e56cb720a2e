"""Latency of POST /v1/retrieve over HTTP with an ACL filter, the query's embedding included.

    python -m benchmarks.latency --data ../shared/data/collections --chunks 20000

Real passages of several collections go into one collection until it holds the wanted number of chunks; every document
is readable by one of ten groups, and each query is asked as a user who is in three of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.beir import load
from benchmarks.results import add_json_option, write
from benchmarks.service import Service, running_service

SOURCES = ("vaswani", "cacm", "scifact_train", "hotpotqa_mini", "cisi", "cranfield")
AS_USER = {"user": "bench", "groups": ["g1", "g4", "g7"]}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="folder of collections in BEIR form")
    arguments.add_argument("--chunks", type=int, default=20_000)
    arguments.add_argument("--queries", type=int, default=1_000)
    arguments.add_argument("--keep", type=Path, help="data folder to fill once and to measure again")
    add_json_option(arguments)
    given = arguments.parse_args()
    filled = given.keep is not None and (given.keep / "rag.db").exists()
    with running_service(given.keep) as service:
        count = given.chunks if filled else _fill(service, given.data, given.chunks)
        queries = questions(given.data, given.queries)
        for query in queries[:50]:
            ask(service, query)
        timings = [ask(service, query) for query in queries]
        print(f"chunks: {count}, queries: {len(queries)}, one client")
        for name in ("embed_ms", "search_ms", "confirm_ms", "total_ms", "http_ms"):
            print_spread(name, [timing[name] for timing in timings])
        requests_s = rate(service, queries, 8)
        print(f"8 clients: {requests_s:.0f} requests/s")
        write(given.json, [{"chunks": count, "requests_s": requests_s, **_quantiles("http_ms", timings)}])


def _fill(service: Service, data: Path, wanted: int) -> int:
    count = 0
    for name in SOURCES:
        passages = [passage for passage in load(data / name).documents if passage["text"]][: wanted - count]
        service.upload("default", [record(name, place, passage) for place, passage in enumerate(passages)])
        service.wait_until_idle()
        count += len(passages)
        if count >= wanted:
            break
    return count


def record(collection: str, place: int, passage: dict[str, Any]) -> dict[str, Any]:
    return {
        "external_id": f"{collection}/{passage['_id']}",
        "title": passage["title"],
        "text": " ".join(passage["text"].split()[:120]),  # one chunk each
        "media_type": "text/plain",
        "acl": {"groups": [f"g{place % 10}"]},
    }


def questions(data: Path, wanted: int) -> list[str]:
    asked = [query for name in SOURCES[:3] for query in load(data / name).queries.values()]
    return list(islice(cycle(asked), wanted))


def ask(service: Service, query: str) -> dict[str, float]:
    answer, http_ms = service.timed_post("/v1/retrieve", {"query": query, "top_k": 10, "as_user": AS_USER})
    return {**answer["usage"], "http_ms": http_ms}


def print_spread(name: str, values: list[float]) -> None:
    cuts = statistics.quantiles(values, n=100)
    print(f"{name:>10}: p50 {cuts[49]:6.2f}  p95 {cuts[94]:6.2f}  p99 {cuts[98]:6.2f}")


def _quantiles(name: str, timings: list[dict[str, float]]) -> dict[str, float]:
    cuts = statistics.quantiles([timing[name] for timing in timings], n=100)
    return {"p50_ms": cuts[49], "p95_ms": cuts[94], "p99_ms": cuts[98]}


def rate(service: Service, queries: list[str], clients: int) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda query: ask(service, query), queries))
    return len(queries) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
