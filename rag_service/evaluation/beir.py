"""Query sets as folders in BEIR form. What is written can be read again without loss.

A folder holds `queries.jsonl` ({"_id", "text", "metadata"}) and `qrels/test.tsv` (query-id, corpus-id, score, under a
heading); the ids of its corpus are external ids. What BEIR has no place for stands in `metadata`: `expect_nothing`,
`as_user`, `filter`, `min_score`, and under `document_ids` which corpus ids are ids of documents. As in BEIR, queries
without a judgement above 0 are left out, but for those that expect nothing. Grades above 3 count as 3.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rag_service.errors import InvalidRequest
from rag_service.evaluation.records import ABOUT, HIGHEST_GRADE, about, read
from rag_service.types import LabelledQuery

QUERIES = "queries.jsonl"
QRELS = "qrels/test.tsv"
# In the order in which they are looked for.
ALL_QRELS = (QRELS, "qrels.tsv", "qrels/dev.tsv", "qrels/train.tsv")
_HEADING = ("query-id", "corpus-id", "score")


def write_beir(queries: Sequence[LabelledQuery]) -> dict[str, str]:
    """By path within the folder, the texts of its files."""
    lines = [json.dumps(_line(query), ensure_ascii=False) for query in queries]
    qrels = io.StringIO()
    plain = csv.writer(qrels, delimiter="\t", lineterminator="\n")
    # By itself, the writer forgets to quote a carriage return.
    quoted = csv.writer(qrels, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(_HEADING)
    for query in queries:
        for one in query.expected:
            row = (query.id, one.document_id or one.external_id or "", one.grade)
            (quoted if any("\r" in name for name in row[:2]) else plain).writerow(row)
    return {QUERIES: "".join(f"{line}\n" for line in lines), QRELS: qrels.getvalue()}


def read_beir(files: Mapping[str, str]) -> list[LabelledQuery]:
    """The queries of a folder's files. Raises InvalidRequest, naming file and line."""
    judged = next((name for name in ALL_QRELS if name in files), None)
    if QUERIES not in files or judged is None:
        raise InvalidRequest(f"This is no BEIR folder: it needs {QUERIES} and {QRELS}.")
    grades = _grades(files[judged], judged)
    found = []
    for number, line in _json_lines(files[QUERIES]):
        query = _query(line, grades.get(str(line.get("_id")), {}), f"{QUERIES}, line {number}")
        if query.is_labelled:
            found.append(query)
    return found


def _line(query: LabelledQuery) -> dict[str, Any]:
    metadata = about(query)
    if ids := [one.document_id for one in query.expected if one.document_id is not None]:
        metadata["document_ids"] = ids
    return {"_id": query.id, "text": query.query, "metadata": metadata}


def _query(line: Mapping[str, Any], grades: Mapping[str, int], where: str) -> LabelledQuery:
    if not isinstance(line.get("_id"), str) or not isinstance(line.get("text"), str):
        raise InvalidRequest(f'{where}: a query is an object with the texts "_id" and "text".')
    metadata = line.get("metadata")
    said: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}
    ids = said.get("document_ids")
    own = set(map(str, ids)) if isinstance(ids, list) else set()
    expected = [{"document_id" if name in own else "external_id": name, "grade": at} for name, at in grades.items()]
    values = {name: said.get(name) for name in ABOUT}
    return read({**values, "id": line["_id"], "query": line["text"], "expected": expected}, where)


def _json_lines(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, dict):
                raise InvalidRequest(f"{QUERIES}, line {number}: this is no JSON object.")
            yield number, value


def _grades(text: str, name: str) -> dict[str, dict[str, int]]:
    """By query, by document, the grade; what is judged not to be relevant is left out."""
    grades: dict[str, dict[str, int]] = {}
    try:
        for number, row in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter="\t"), start=1):
            # A file without the heading begins with a judgement.
            if row and not (number == 1 and row[-1].strip() == _HEADING[-1]):
                query, document, grade = row
                if float(grade) > 0:
                    grades.setdefault(query, {})[document] = max(1, min(HIGHEST_GRADE, round(float(grade))))
    except (csv.Error, ValueError, OverflowError):
        raise InvalidRequest(f"{name}: a line has query-id, corpus-id and a score, with tabs between.") from None
    return grades
