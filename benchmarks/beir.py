"""Collections in BEIR form, and the measure they are judged by."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TestCollection:
    name: str
    documents: list[dict[str, Any]]
    queries: dict[str, str]
    asked: dict[str, dict[str, Any]]  # the queries with all that is said of them
    qrels: dict[str, dict[str, float]]


def load(folder: Path) -> TestCollection:
    """`corpus.jsonl`, `queries.jsonl` and `qrels.tsv` (with a header); only judged queries are kept."""
    documents = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines() if line.strip()]
    qrels: dict[str, dict[str, float]] = {}
    for line in (folder / "qrels.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = float(grade)
    asked = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines() if line.strip()]
    judged = {query["_id"]: query for query in asked if query["_id"] in qrels}
    queries = {name: query["text"] for name, query in judged.items()}
    return TestCollection(folder.name, documents, queries, judged, qrels)


def ndcg(ranking: Sequence[str], grades: Mapping[str, float], k: int = 10) -> float:
    """nDCG@k with linear gain, as trec_eval's ndcg_cut computes it. `ranking` holds document ids, best first."""
    gain = sum(grades.get(document, 0.0) / math.log2(place + 2) for place, document in enumerate(ranking[:k]))
    best = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k]
    ideal = sum(grade / math.log2(place + 2) for place, grade in enumerate(best))
    return gain / ideal if ideal else 0.0
