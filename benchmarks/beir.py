"""Collections in BEIR form."""

from __future__ import annotations

import json
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
