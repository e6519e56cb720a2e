"""How fast texts become vectors, beside sentence-transformers as it comes in the same run, and how close they are.

    python -m benchmarks.embedding --data ../shared/data/collections

Passages of up to 120 words are embedded by each in turn, several rounds long; before that every question is embedded
alone, by ours first: once torch has computed in a process, all else in it computes short texts at half the speed, and
the service has no torch. The cosine is that of a passage's vector with the one of sentence-transformers in float32, the
least of all passages.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from benchmarks.beir import load
from benchmarks.latency import SOURCES, questions, record
from benchmarks.results import add_json_option, write
from rag_service.embedding.local import LocalEmbedder
from rag_service.embedding.model_folder import find_model
from rag_service.embedding.processors import usual_formats
from rag_service.retrieval.probing.fingerprints import least_cosine

MODEL = "all-MiniLM-L6-v2"
THEIRS = "sentence-transformers"

Embed: TypeAlias = Callable[[Sequence[str]], NDArray[np.float32]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="folder of collections in BEIR form")
    arguments.add_argument("--passages", type=int, default=600)
    arguments.add_argument("--questions", type=int, default=200)
    arguments.add_argument("--rounds", type=int, default=3)
    add_json_option(arguments)
    given = arguments.parse_args()
    asked = questions(given.data, given.questions)
    with tempfile.TemporaryDirectory(prefix="rag-bench-") as cache:
        candidates = _candidates(Path(cache))
        rows = measured(candidates, _passages(given.data, given.passages), asked, given.rounds)
    print("| | passages/s | beside sentence-transformers | a question, p50 ms | least cosine |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['embedder']} | {row['texts_s']:.1f} | {row['times']:.2f} | {row['question_ms']:.2f} "
            f"| {row['cosine']:.5f} |"
        )
    write(given.json, rows)


def measured(
    candidates: Mapping[str, tuple[Embed, Embed]], passages: Sequence[str], asked: Sequence[str], rounds: int
) -> list[dict[str, Any]]:
    """One row for each of `candidates`, which come as what embeds documents and what embeds queries.

    Questions first, in the order of the candidates.
    """
    alone = {name: _question_ms(queries, asked) for name, (_, queries) in candidates.items()}
    vectors = {name: documents(passages) for name, (documents, _) in candidates.items()}  # and all of it is warm
    spent: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, (documents, _) in candidates.items():
            spent[name].append(_seconds(documents, passages))
    usual = statistics.median(spent[THEIRS])
    return [
        {
            "embedder": name,
            "texts_s": len(passages) / statistics.median(spent[name]),
            "times": usual / statistics.median(spent[name]),
            "question_ms": alone[name],
            "cosine": least_cosine(vectors[name], vectors[THEIRS]),
        }
        for name in candidates
    ]


def _candidates(cache: Path) -> dict[str, tuple[Embed, Embed]]:
    made: dict[str, tuple[Embed, Embed]] = {}
    for dtype in dict.fromkeys((*usual_formats(), "float32")):
        ours = LocalEmbedder(MODEL, dtype, cache=cache)
        ours.warm_up()
        made[f"rag-service, {ours.computation}"] = (
            partial(ours.embed, kind="document"),
            partial(ours.embed, kind="query"),
        )
    theirs = SentenceTransformer(str(find_model(MODEL)), device="cpu")
    return {**made, THEIRS: (theirs.encode, theirs.encode)}


def _passages(data: Path, wanted: int) -> list[str]:
    texts = [passage for name in SOURCES for passage in load(data / name).documents if passage["text"]]
    step = max(1, len(texts) // wanted)
    return [record("", 0, passage)["text"] for passage in texts[::step][:wanted]]


def _question_ms(queries: Embed, asked: Sequence[str]) -> float:
    queries(list(asked[:1]))
    return 1000 * statistics.median(_seconds(queries, [question]) for question in asked)


def _seconds(embed: Embed, texts: Sequence[str]) -> float:
    began = time.perf_counter()
    embed(list(texts))
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
