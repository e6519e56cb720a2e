"""Retrieval quality through the HTTP API: nDCG@10 of the hybrid beside each of its legs.

    python -m benchmarks.quality --data ../shared/data/collections --collections scifact_train cranfield vaswani
    python -m benchmarks.quality --data ../shared/data/collections --mode lexical --collections all
    python -m benchmarks.quality --data ../shared/data/collections --check

Each corpus document goes in as one document, title and text; a document's rank is that of its best chunk. With
`--mode lexical` nothing is embedded in earnest, so every collection takes seconds, and bm25s stands beside it: over
the whole documents and over the same passages, English stop words and stemmer, k1 1.5 and b 0.75, its defaults.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import gate
from benchmarks.beir import TestCollection, load
from benchmarks.results import add_json_option, write
from benchmarks.service import Service, running_service
from rag_service.evaluation.metrics import ndcg

MODES = ("dense", "lexical", "hybrid")
DEFAULT = ("scifact_train", "cranfield", "vaswani")
# 200 of the hashing embedder's tokens, words and punctuation, are about 254 of the default model's.
_CHEAP: dict[str, Any] = {"embedder": "hashing", "chunk_tokens": "200", "log_level": "warning"}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="folder of collections in BEIR form")
    arguments.add_argument("--collections", nargs="+", default=DEFAULT, help="names, or `all`")
    arguments.add_argument("--mode", choices=("all", "lexical"), default="all")
    arguments.add_argument("--language", default="auto", help="of every collection")
    arguments.add_argument("--write-baseline", action="store_true", help="make what is measured the baseline")
    arguments.add_argument("--check", action="store_true", help="fail where quality is below the baseline")
    add_json_option(arguments)
    given = arguments.parse_args()
    every = sorted(folder.name for folder in given.data.iterdir() if (folder / "qrels.tsv").exists())
    names = every if given.collections == ["all"] else given.collections
    folders = [given.data / name for name in names]
    if given.mode == "lexical":
        with running_service(**_CHEAP) as service:
            for line in _lexical_table(service, folders, given.language):
                print(line, flush=True)
        return
    rows = _measured(folders, given.language)
    write(given.json, rows)
    measured = {row["collection"]: {mode: row[mode] for mode in MODES} for row in rows}
    if given.write_baseline:
        gate.write_baseline(measured)
    if given.check and (lost := gate.losses(measured, gate.read_baseline())):
        raise SystemExit("\n".join(["quality is below the baseline:", *lost]))


def _measured(folders: Sequence[Path], language: str) -> list[dict[str, Any]]:
    print("| collection | documents | queries | dense | lexical | hybrid | hybrid beats both | ingest s | query ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows: list[dict[str, Any]] = []
    with running_service(log_level="warning") as service:
        for folder in folders:
            rows.append(measure(service, load(folder), language))
            print(_line(rows[-1]), flush=True)
    return rows


def measure(service: Service, collection: TestCollection, language: str = "auto") -> dict[str, Any]:
    """Ingest a collection and ask all its questions: nDCG@10 under the name of each leg, beside sizes and times."""
    ingested = ingest(service, collection, language)
    began = time.perf_counter()
    scores = {mode: _score(service, collection, mode) for mode in MODES}
    per_query = (time.perf_counter() - began) / (len(collection.queries) * len(MODES)) * 1000
    sizes = {"documents": len(collection.documents), "queries": len(collection.queries)}
    return {"collection": collection.name, **sizes, **scores, "ingest_s": ingested, "query_ms": per_query}


def _line(row: dict[str, Any]) -> str:
    wins = row["hybrid"] > max(row["dense"], row["lexical"])
    shown = " | ".join(f"{row[mode]:.4f}" for mode in MODES)
    sizes = f"{row['documents']} | {row['queries']}"
    times = f"{row['ingest_s']:.0f} | {row['query_ms']:.1f}"
    return f"| {row['collection']} | {sizes} | {shown} | {'yes' if wins else 'NO'} | {times} |"


def _lexical_table(service: Service, folders: Sequence[Path], language: str) -> Iterator[str]:
    yield "| collection | documents | queries | lexical | bm25s, documents | bm25s, passages | ingest s | query ms |"
    yield "|---|---|---|---|---|---|---|---|"
    for folder in folders:
        collection = load(folder)
        ingested = ingest(service, collection, language)
        began = time.perf_counter()
        score = _score(service, collection, "lexical")
        per_query = (time.perf_counter() - began) / len(collection.queries) * 1000
        documents = [(document["_id"], _whole(document)) for document in collection.documents]
        beside = [_bm25s(collection, documents), _bm25s(collection, _passages(service, collection))]
        shown = " | ".join(f"{value:.4f}" for value in (score, *beside))
        yield f"| {_sizes(collection)} | {shown} | {ingested:.0f} | {per_query:.1f} |"


def _sizes(collection: TestCollection) -> str:
    return f"{collection.name} | {len(collection.documents)} | {len(collection.queries)}"


def ingest(service: Service, collection: TestCollection, language: str = "auto") -> float:
    """Seconds from the first upload until the service has nothing left to do."""
    began = time.perf_counter()
    service.post("/v1/collections", {"name": collection.name, "language": language})
    documents = [_document(document) for document in collection.documents if document["text"] or document["title"]]
    service.upload(collection.name, documents)
    service.wait_until_idle()
    return time.perf_counter() - began


def _document(document: dict[str, Any]) -> dict[str, Any]:
    return {
        "external_id": document["_id"],
        "title": document["title"],
        # Some documents are a title only.
        "text": document["text"] or document["title"],
        "media_type": "text/plain",
        "metadata": _policy(document),
        "acl": {"public": True},
    }


def _policy(entry: dict[str, Any]) -> dict[str, Any]:
    """What policyqa's questions are about: they make no sense without this filter."""
    metadata = entry.get("metadata") or {}
    return {"policy": metadata["policy"]} if "policy" in metadata else {}


def _score(service: Service, collection: TestCollection, mode: str) -> float:
    scores = []
    for query_id, query in collection.queries.items():
        body: dict[str, Any] = {
            "query": query,
            "collections": [collection.name],
            "mode": mode,
            "top_k": 10,
            "max_chunks_per_document": 1,
            "highlight": False,
        }
        if policy := _policy(collection.asked[query_id]):
            body["filter"] = policy
        results = service.post("/v1/retrieve", body)["results"]
        scores.append(ndcg([result["external_id"] for result in results], collection.qrels[query_id]))
    return statistics.fmean(scores)


def _whole(document: dict[str, Any]) -> str:
    return f"{document['title']} {document['text']}"


def _passages(service: Service, collection: TestCollection) -> list[tuple[str, str]]:
    """(document, title and text) of every chunk that the service made."""
    titles = {document["_id"]: document["title"] for document in collection.documents}
    return [(name, f"{titles[name]} {text}") for name, text in service.passages(collection.name)]


def _bm25s(collection: TestCollection, passages: Sequence[tuple[str, str]]) -> float:
    """A document ranks by its best passage; with a policy filter, only its passages are candidates."""
    import bm25s
    import numpy as np
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    corpus = bm25s.tokenize([text for _, text in passages], stopwords="en", stemmer=stemmer, show_progress=False)
    model = bm25s.BM25()
    model.index(corpus, show_progress=False)
    names = [name for name, _ in passages]
    policies = {document["_id"]: _policy(document) for document in collection.documents}
    scores = []
    for query_id, query in collection.queries.items():
        tokens = bm25s.tokenize(query, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False)[0]
        found = model.get_scores(tokens) if tokens else np.zeros(len(names))
        wanted = _policy(collection.asked[query_id])
        ranking = (names[place] for place in np.argsort(-found, kind="stable") if found[place] > 0)
        best = dict.fromkeys(name for name in ranking if not wanted or policies[name] == wanted)
        scores.append(ndcg(list(best)[:10], collection.qrels[query_id]))
    return statistics.fmean(scores)


if __name__ == "__main__":
    main()
