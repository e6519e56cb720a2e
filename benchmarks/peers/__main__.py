"""Side by side with what one would use instead: quality and speed, same model, same texts, same question of access.

    pip install -e '.[bench-peers]' -c benchmarks/peers/constraints.txt
    pip install --no-deps -c benchmarks/peers/constraints.txt llama-index-retrievers-bm25
    python -m benchmarks.peers --data ../shared/data/collections --collection scifact_train --queries 100

Every peer has this process and the machine to itself, one after the other. A passage is readable by one group of ten;
filtered questions are asked by somebody in three. A peer that cannot be imported or fails is listed with the reason.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.beir import TestCollection, load
from benchmarks.peers.base import Passage, Peer
from benchmarks.results import add_json_option, write
from rag_service.embedding.model_folder import find_model
from rag_service.evaluation.metrics import ndcg

PEERS = {
    "ours": "benchmarks.peers.ours:RagService",
    "chroma": "benchmarks.peers.chroma:Chroma",
    "txtai": "benchmarks.peers.txtai:Txtai",
    "lancedb": "benchmarks.peers.lance:LanceDb",
    "langchain": "benchmarks.peers.langchain:LangChain",
    "llamaindex": "benchmarks.peers.llama_index:LlamaIndex",
    "haystack": "benchmarks.peers.haystack:Haystack",
    "edge": "benchmarks.peers.edge:QdrantEdge",
}
GROUPS = ("g1", "g4", "g7")
TOP_K = 10
CLIENTS = 8
WARM_UP = 10


def main() -> None:
    given = _arguments()
    collection = load(given.data / given.collection)
    passages = _passages(collection, given.passages)
    questions = dict(list(collection.queries.items())[: given.queries])
    kept = {passage.id for passage in passages}
    grades = {key: {d: g for d, g in collection.qrels[key].items() if d in kept} for key in questions}
    model = str(find_model("all-MiniLM-L6-v2"))
    print("| | version | nDCG@10 | docs/s | p50 ms | p95 ms | p50, ACL | p95, ACL | requests/s, 8 clients | ACL |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    for name in given.only or PEERS:
        row = measured(name, partial(made, PEERS[name], model), passages, questions, grades)
        rows.append({"collection": collection.name, "passages": len(passages), **row})
        print(_line(row), flush=True)
    write(given.json, rows)


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="folder of collections in BEIR form")
    arguments.add_argument("--collection", default="scifact_train")
    arguments.add_argument("--queries", type=int, default=100)
    arguments.add_argument("--passages", type=int, help="at most so many, those that answer the questions first")
    arguments.add_argument("--only", type=lambda text: text.split(","), help=f"of {','.join(PEERS)}")
    add_json_option(arguments)
    given = arguments.parse_args()
    if unknown := set(given.only or ()) - PEERS.keys():
        arguments.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    return given


def made(address: str, model: str) -> Peer:
    module, name = address.split(":")
    peer: Peer = getattr(importlib.import_module(module), name)(model)
    return peer


def measured(
    name: str,
    make: Callable[[], Peer],
    passages: Sequence[Passage],
    questions: Mapping[str, str],
    grades: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """All figures of one peer, or its name and under `failed` why there are none."""
    try:
        peer = make()
        try:
            return {"peer": peer.name, "version": peer.version, **_figures(peer, passages, questions, grades)}
        finally:
            peer.close()
    except Exception as error:  # noqa: BLE001 - whatever stops a foreign library is its result
        return {"peer": name, "failed": f"{type(error).__name__}: {error}"}


def _figures(
    peer: Peer,
    passages: Sequence[Passage],
    questions: Mapping[str, str],
    grades: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    began = time.perf_counter()
    peer.ingest(passages)
    rate = len(passages) / (time.perf_counter() - began)
    rankings = {key: peer.search(query, TOP_K, None) for key, query in questions.items()}
    figures = {
        "ndcg": statistics.fmean(ndcg(ranking, grades[key]) for key, ranking in rankings.items()),
        "docs_s": rate,
    }
    readers = {passage.id: set(passage.groups) for passage in passages}
    for suffix, groups in (("", None), ("_acl", GROUPS)):
        asked = [*questions.values()]
        for query in asked[:WARM_UP]:
            found = peer.search(query, TOP_K, groups)
            if groups and any(readers[each].isdisjoint(groups) for each in found):
                raise AssertionError("the filter let through what nobody asking may read")
        cuts = statistics.quantiles([_milliseconds(peer, query, groups) for query in asked], n=20)
        figures |= {f"p50{suffix}_ms": cuts[9], f"p95{suffix}_ms": cuts[18]}
        figures[f"requests_s{suffix}"] = _requests_per_second(peer, asked, groups)
    return figures


def _milliseconds(peer: Peer, query: str, groups: Sequence[str] | None) -> float:
    began = time.perf_counter()
    peer.search(query, TOP_K, groups)
    return (time.perf_counter() - began) * 1000


def _requests_per_second(peer: Peer, queries: Sequence[str], groups: Sequence[str] | None) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda query: peer.search(query, TOP_K, groups), queries))
    return len(queries) / (time.perf_counter() - began)


def _passages(collection: TestCollection, limit: int | None) -> list[Passage]:
    answers = {document for grades in collection.qrels.values() for document in grades}
    held = sorted(collection.documents, key=lambda document: document["_id"] not in answers)[:limit]
    texts = [(str(document["_id"]), f"{document['title']}\n{document['text']}".strip()) for document in held]
    return [Passage(key, text, (f"g{place % 10}",)) for place, (key, text) in enumerate(texts) if text]


def _line(row: Mapping[str, Any]) -> str:
    if "failed" in row:
        return f"| {row['peer']} | not measured: {' '.join(row['failed'].split())[:200]} |" + " |" * 8
    names = ("docs_s", "p50_ms", "p95_ms", "p50_acl_ms", "p95_acl_ms", "requests_s", "requests_s_acl")
    shown = " | ".join(f"{row[name]:.1f}" for name in names)
    return f"| {row['peer']} | {row['version']} | {row['ndcg']:.4f} | {shown} |"


if __name__ == "__main__":
    main()
