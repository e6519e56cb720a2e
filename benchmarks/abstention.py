"""How well `min_score` tells questions that the documents answer from questions that they do not.

    export DATA=../shared/data/collections
    python -m benchmarks.abstention --data $DATA/clapnq_dev --foreign $DATA/cacm

Near misses (`queries.unanswerable.jsonl`) are asked of documents that hold a passage on their very subject, which does
not answer them; foreign questions belong to another collection. The score of the first hit decides. AUC is the
probability that a question with an answer scores above one without, ties counting half (Hanley and McNeil, 1982): 0.5
is a coin, 1 is perfect. At a threshold, precision is the share of answered questions that have an answer, recall the
share of questions with an answer that are answered, refused the share of questions without an answer that are not.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.beir import TestCollection, load
from benchmarks.quality import ingest
from benchmarks.results import add_json_option, write
from benchmarks.service import Service, running_service

MODES = ("hybrid", "dense")
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="collection folder with unanswerable questions")
    arguments.add_argument(
        "--foreign", type=Path, help="another collection, whose questions are asked of these documents"
    )
    arguments.add_argument("--queries", type=int, default=300, help="at most so many questions of each kind")
    add_json_option(arguments)
    given = arguments.parse_args()
    collection = load(given.data)
    unanswered = {"near miss": _near_misses(given.data)}
    if given.foreign is not None:
        unanswered["foreign"] = list(load(given.foreign).queries.values())
    rows: list[dict[str, Any]] = []
    with running_service(log_level="warning") as service:
        ingest(service, collection)
        for mode in MODES:
            rows += _compared(service, collection, mode, unanswered, given.queries)
    _print(rows)
    write(given.json, rows)


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The probability that a positive exceeds a negative, ties counting half."""
    high, low = np.asarray(positive)[:, None], np.asarray(negative)[None, :]
    return float(np.mean((high > low) + 0.5 * (high == low)))


def at_threshold(positive: Sequence[float], negative: Sequence[float], threshold: float) -> dict[str, float]:
    """`precision` (1 where nothing is answered), `recall` and `refused` when scores >= `threshold` are answered."""
    right = sum(score >= threshold for score in positive)
    wrong = sum(score >= threshold for score in negative)
    return {
        "threshold": threshold,
        "precision": right / (right + wrong) if right + wrong else 1.0,
        "recall": right / len(positive),
        "refused": 1 - wrong / len(negative),
    }


def _compared(
    service: Service, collection: TestCollection, mode: str, unanswered: Mapping[str, Sequence[str]], limit: int
) -> list[dict[str, Any]]:
    positive = [_first_score(service, collection.name, query, mode) for query in [*collection.queries.values()][:limit]]
    rows: list[dict[str, Any]] = []
    for kind, queries in unanswered.items():
        negative = [_first_score(service, collection.name, query, mode) for query in queries[:limit]]
        same = {"mode": mode, "questions without an answer": kind, "auc": auc(positive, negative)}
        rows += [{**same, **at_threshold(positive, negative, threshold)} for threshold in THRESHOLDS]
    return rows


def _first_score(service: Service, collection: str, query: str, mode: str) -> float:
    """The score that `min_score` is compared with; minus infinity where nothing is found."""
    body = {"query": query, "collections": [collection], "mode": mode, "top_k": 1}
    results = service.post("/v1/retrieve", body)["results"]
    return float(results[0]["score"]) if results else float("-inf")


def _near_misses(folder: Path) -> list[str]:
    lines = (folder / "queries.unanswerable.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines if line.strip()]


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    print("| mode | questions without an answer | AUC | min_score | precision | recall | refused |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        shares = " | ".join(f"{row[name]:.2f}" for name in ("precision", "recall", "refused"))
        kind = row["questions without an answer"]
        print(f"| {row['mode']} | {kind} | {row['auc']:.3f} | {row['threshold']} | {shares} |")


if __name__ == "__main__":
    main()
