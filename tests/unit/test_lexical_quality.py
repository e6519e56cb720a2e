"""The lexical leg finds what it is asked for: small judged collections, whole documents, a few seconds."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks import beir
from rag_service.chunking.base import lexical_text
from rag_service.embedding.lexical import Bm25Encoder
from rag_service.evaluation.metrics import ndcg

DATA = Path(__file__).parents[3] / "shared" / "data" / "collections"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the judged collections are not beside this project")


def lexical_ndcg(collection: beir.TestCollection) -> float:
    """nDCG@10 of `auto` with the average length of this collection, IDF as the stores compute it."""
    texts = [lexical_text(document["title"], (), document["text"]) for document in collection.documents]
    lengths = Bm25Encoder(1.0).lengths(texts)
    encoder = Bm25Encoder(statistics.fmean(lengths))
    postings: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
    for place, vector in enumerate(encoder.encode(texts, "document")):
        for term, weight in zip(vector.indices, vector.values, strict=True):
            postings[term].append((place, weight))
    scores = []
    for query_id, query in collection.queries.items():
        (asked,) = encoder.encode([query], "query")
        found: defaultdict[int, float] = defaultdict(float)
        for term, count in zip(asked.indices, asked.values, strict=True):
            held = postings.get(term, [])
            idf = math.log(1 + (len(texts) - len(held) + 0.5) / (len(held) + 0.5))
            for place, weight in held:
                found[place] += count * weight * idf
        best = sorted(found, key=found.__getitem__, reverse=True)[:10]
        ranking = [collection.documents[place]["_id"] for place in best]
        scores.append(ndcg(ranking, collection.qrels[query_id]))
    return statistics.fmean(scores)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("adi", 0.48),
        ("cranfield", 0.36),
        ("xquad_en", 0.95),
        ("xquad_de", 0.93),
        ("xquad_ar", 0.92),
        ("xquad_zh", 0.93),
    ],
)
def test_each_collection_reaches_its_mark(name: str, least: float) -> None:
    assert lexical_ndcg(beir.load(DATA / name)) >= least
