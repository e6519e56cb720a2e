"""Chunkers judged by spans: how much of the relevant text is retrieved, and how much else comes with it.

    python -m benchmarks.chunking --data ../shared/data/collections/chroma_chunking --cache .bench-cache

The texts and questions are those of Chroma's chunking evaluation, the measures are its own (`benchmarks.spans`), and so
is the procedure: passages of all texts lie in one index and are ranked by the cosine of question and passage. Every
splitter has the same embedder. At a fixed number of passages, small ones win precision and large ones recall; at a
fixed number of tokens, the last passage cut where they end, size alone wins nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import add_json_option, write
from benchmarks.spans import Passage, SpanScores, score
from benchmarks.splitters import ByTitle, FixedTokens, Ours, Piece, Splitter
from rag_service.embedding.base import Embedder
from rag_service.embedding.local import LocalEmbedder
from rag_service.settings import Settings

MODEL = "all-MiniLM-L6-v2"
# Ranked passages in, those that are judged out.
Selection = Callable[[list[Passage]], list[Passage]]


@dataclass(frozen=True)
class Question:
    text: str
    relevant: list[Passage]


class CachedEmbeddings:
    """Vectors kept in files named by a hash of the model and of all texts, so that a rerun embeds nothing."""

    def __init__(self, embedder: Embedder, folder: Path | None) -> None:
        self._embedder = embedder
        self._folder = folder

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self._folder is None:
            return self._embedder.embed(texts, "document")
        key = hashlib.sha256("\0".join([str(self._embedder.identity), *texts]).encode()).hexdigest()
        file = self._folder / f"{key[:32]}.npy"
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            np.save(file, self._embedder.embed(texts, "document"))
        vectors: NDArray[np.float32] = np.load(file)
        return vectors


def main() -> None:
    given = _arguments()
    texts = {file.stem: file.open(newline="", encoding="utf-8").read() for file in given.data.glob("corpora/*.md")}
    questions = load_questions(given.data / "queries.jsonl")
    embedder = LocalEmbedder(MODEL, runtime="torch" if given.cache is None else "auto", cache=given.cache)
    embeddings = CachedEmbeddings(embedder, given.cache)
    asked = embeddings.embed([question.text for question in questions])
    budget = partial(within_budget, starts=_token_starts(embedder, texts), budget=given.budget)
    selections: dict[str, Selection] = {
        f"k={given.k}": lambda passages: passages[: given.k],
        f"{given.budget} tokens": budget,
    }
    print("| splitter | passages | mean tokens | judged | recall | precision | IoU |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    splitters: list[Splitter] = [Ours(embedder.token_spans, size) for size in given.chunk_tokens]
    for splitter in [*splitters, ByTitle(), FixedTokens(embedder.token_spans)]:
        pieces = [piece for name, text in texts.items() for piece in splitter.split(name, text)]
        tokens = statistics.fmean(len(embedder.token_spans(piece.embedded)) for piece in pieces)
        rankings = ranked(pieces, embeddings.embed([piece.embedded for piece in pieces]), asked)
        for name, select in selections.items():
            mean = _mean([score(select(r), q.relevant) for r, q in zip(rankings, questions, strict=True)])
            shown = f"{mean.recall:.4f} | {mean.precision:.4f} | {mean.iou:.4f}"
            print(f"| {splitter.name} | {len(pieces)} | {tokens:.0f} | {name} | {shown} |", flush=True)
            size = {"passages": len(pieces), "mean_tokens": round(tokens, 1)}
            rows.append({"splitter": splitter.name, **size, "judged": name, **asdict(mean)})
    write(given.json, rows)


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="collection folder with a folder corpora")
    arguments.add_argument("--cache", type=Path, help="folder for embeddings and the compiled model")
    arguments.add_argument("--k", type=int, default=5, help="passages retrieved for a question")
    arguments.add_argument("--budget", type=int, default=1000, help="tokens retrieved for a question")
    default = Settings.model_fields["chunk_tokens"].default
    arguments.add_argument("--chunk-tokens", type=int, nargs="+", default=[default], help="sizes of our chunker")
    add_json_option(arguments)
    return arguments.parse_args()


def load_questions(file: Path) -> list[Question]:
    questions = []
    for line in file.read_text(encoding="utf-8").splitlines():
        query = json.loads(line)
        corpus, spans = query["metadata"]["corpus"], query["metadata"]["references"]
        relevant = [Passage(corpus, span["start_index"], span["end_index"]) for span in spans]
        questions.append(Question(query["text"], relevant))
    return questions


def ranked(
    pieces: Sequence[Piece], vectors: NDArray[np.float32], asked: NDArray[np.float32], depth: int = 100
) -> list[list[Passage]]:
    """For each question vector the passages nearest to it, best first; of equal ones the earlier."""
    order = np.argsort(-(asked @ vectors.T), axis=1, kind="stable")[:, :depth]
    return [[pieces[place].passage for place in row] for row in order]


def within_budget(ranked: list[Passage], starts: dict[str, NDArray[np.int64]], budget: int) -> list[Passage]:
    """The first passages up to `budget` tokens in all; the last one ends where its tokens run out.

    `starts` holds the place in the text, in characters, at which each token of a corpus starts.
    """
    taken: list[Passage] = []
    for passage in ranked:
        places = starts[passage.corpus]
        first, last = np.searchsorted(places, [passage.start, passage.end])
        if last - first >= budget:
            end = passage.end if last - first == budget else int(places[first + budget])
            return [*taken, Passage(passage.corpus, passage.start, end)]
        budget -= int(last - first)
        taken.append(passage)
    return taken


def _token_starts(embedder: Embedder, texts: dict[str, str]) -> dict[str, NDArray[np.int64]]:
    return {name: np.array([start for start, _ in embedder.token_spans(text)]) for name, text in texts.items()}


def _mean(scores: Sequence[SpanScores]) -> SpanScores:
    return SpanScores(
        statistics.fmean(each.recall for each in scores),
        statistics.fmean(each.precision for each in scores),
        statistics.fmean(each.iou for each in scores),
    )


if __name__ == "__main__":
    main()
