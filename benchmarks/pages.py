"""Files in, cited pages out: for how many questions is a right page among the first five hits?

    python -m benchmarks.pages --data ../shared/data/collections/northwind_hr

The PDFs go in as files, through the parser. Beside it stands plain BM25 (rank_bm25) over the texts of the single pages.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from rank_bm25 import BM25Okapi

from benchmarks.beir import TestCollection, load
from benchmarks.service import Service, running_service

DEPTH = 5


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="collection folder with a folder pdfs")
    given = arguments.parse_args()
    collection = load(given.data)
    plain = _right(collection, _plain_bm25(collection))
    with running_service() as service:
        _upload(service, sorted((given.data / "pdfs").glob("*.pdf")))
        print("| method | questions with a right page in the first five |")
        print("|---|---|")
        print(f"| BM25 over the pages | {plain} of {len(collection.queries)} |")
        for mode in ("hybrid", "lexical", "dense"):
            cited = {key: _cited(service, query, mode) for key, query in collection.queries.items()}
            print(f"| rag-service, {mode} | {_right(collection, cited)} of {len(collection.queries)} |")


def _upload(service: Service, files: list[Path]) -> None:
    for file in files:
        form = {"acl": json.dumps({"public": True})}
        answer = service.http.post("/v1/documents", data=form, files={"file": (file.name, file.read_bytes())})
        answer.raise_for_status()
    service.wait_until_idle()
    failed = service.get("/v1/documents", status="failed")["data"]
    if failed:
        raise RuntimeError(f"not parsed: {failed}")


def _cited(service: Service, query: str, mode: str) -> list[str]:
    results = service.post("/v1/retrieve", {"query": query, "mode": mode, "top_k": DEPTH})["results"]
    return [f"{result['external_id']}#page={result['position']['page']}" for result in results]


def _plain_bm25(collection: TestCollection) -> dict[str, list[str]]:
    pages = [document["_id"] for document in collection.documents]
    index = BM25Okapi([_words(document["text"]) for document in collection.documents])
    return {key: index.get_top_n(_words(query), pages, n=DEPTH) for key, query in collection.queries.items()}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _right(collection: TestCollection, found: dict[str, list[str]]) -> int:
    return sum(any(collection.qrels[key].get(page, 0) > 0 for page in pages[:DEPTH]) for key, pages in found.items())


if __name__ == "__main__":
    main()
