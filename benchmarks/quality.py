"""Retrieval quality through the HTTP API: nDCG@10 of the hybrid beside each of its legs.

    python -m benchmarks.quality --data ../shared/data/collections --collections scifact_train cranfield vaswani

Each corpus document goes in as one document, title and text; a document's rank is that of its best chunk.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.beir import TestCollection, load, ndcg
from benchmarks.service import Service, running_service

MODES = ("dense", "lexical", "hybrid")
DEFAULT = ("scifact_train", "cranfield", "vaswani")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="folder of collections in BEIR form")
    arguments.add_argument("--collections", nargs="+", default=DEFAULT)
    given = arguments.parse_args()
    print("| collection | documents | queries | dense | lexical | hybrid | hybrid beats both | ingest s | query ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    with running_service() as service:
        for name in given.collections:
            print(_row(service, load(given.data / name)), flush=True)


def _row(service: Service, collection: TestCollection) -> str:
    began = time.perf_counter()
    _ingest(service, collection)
    ingested = time.perf_counter() - began
    began = time.perf_counter()
    scores = {mode: _score(service, collection, mode) for mode in MODES}
    per_query = (time.perf_counter() - began) / (len(collection.queries) * len(MODES)) * 1000
    wins = scores["hybrid"] > max(scores["dense"], scores["lexical"])
    shown = " | ".join(f"{scores[mode]:.4f}" for mode in MODES)
    sizes = f"{len(collection.documents)} | {len(collection.queries)}"
    return f"| {collection.name} | {sizes} | {shown} | {'yes' if wins else 'NO'} | {ingested:.0f} | {per_query:.1f} |"


def _ingest(service: Service, collection: TestCollection) -> None:
    service.post("/v1/collections", {"name": collection.name})
    documents = [_document(document) for document in collection.documents if document["text"] or document["title"]]
    service.upload(collection.name, documents)
    service.wait_until_idle()


def _document(document: dict[str, Any]) -> dict[str, Any]:
    return {
        "external_id": document["_id"],
        "title": document["title"],
        # Some documents are a title only.
        "text": document["text"] or document["title"],
        "media_type": "text/plain",
        "acl": {"public": True},
    }


def _score(service: Service, collection: TestCollection, mode: str) -> float:
    scores = []
    for query_id, query in collection.queries.items():
        body = {
            "query": query,
            "collections": [collection.name],
            "mode": mode,
            "top_k": 10,
            "max_chunks_per_document": 1,
            "highlight": False,
        }
        results = service.post("/v1/retrieve", body)["results"]
        scores.append(ndcg([result["external_id"] for result in results], collection.qrels[query_id]))
    return statistics.fmean(scores)


if __name__ == "__main__":
    main()
