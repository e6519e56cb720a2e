"""The procedure around the scores: how texts are split, ranked and cut to a budget."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.chunking import CachedEmbeddings, load_questions, ranked, within_budget
from benchmarks.spans import Passage
from benchmarks.splitters import ByTitle, FixedTokens, Ours, Piece, Splitter
from rag_service.embedding.hashing import HashingEmbedder

TEXT = "\n\n".join(f"Paragraph {n} speaks of the subject number {n} and of nothing else." for n in range(40))


def words(text: str) -> Sequence[tuple[int, int]]:
    return [found.span() for found in re.finditer(r"\S+", text)]


@pytest.mark.parametrize("splitter", [Ours(words, 64), FixedTokens(words, 20), ByTitle()], ids=lambda each: each.name)
def test_every_word_lies_in_exactly_one_passage_that_is_where_it_says(splitter: Splitter) -> None:
    pieces = splitter.split("a", TEXT)
    assert len(pieces) > 1
    assert [w for p in pieces for w in TEXT[p.passage.start : p.passage.end].split()] == TEXT.split()


def test_fixed_passages_have_the_wanted_number_of_tokens() -> None:
    pieces = FixedTokens(words, 20).split("a", TEXT)
    assert {len(piece.embedded.split()) for piece in pieces[:-1]} == {20}


def test_repeated_passages_are_located_one_after_the_other() -> None:
    repeated = "\n\n".join(["The very same long sentence stands here once again, and it goes on. " * 6] * 3)
    places = [piece.passage.start for piece in ByTitle().split("a", repeated)]
    assert places == sorted(set(places))


def test_the_nearest_passage_comes_first() -> None:
    pieces = [Piece(Passage("a", n, n + 1), "") for n in range(3)]
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    [ranking] = ranked(pieces, vectors, np.array([[0, 1]], dtype=np.float32))
    assert [passage.start for passage in ranking] == [1, 2, 0]


def test_a_budget_ends_within_the_last_passage() -> None:
    starts = {"a": np.arange(0, 100, 10)}
    taken = within_budget([Passage("a", 0, 30), Passage("a", 50, 100), Passage("a", 30, 50)], starts, 5)
    assert taken == [Passage("a", 0, 30), Passage("a", 50, 70)]


def test_a_budget_that_a_passage_fills_exactly_keeps_it_whole() -> None:
    assert within_budget([Passage("a", 0, 100)], {"a": np.arange(0, 100, 10)}, 10) == [Passage("a", 0, 100)]


def test_vectors_are_computed_once_for_the_same_texts(tmp_path: Path) -> None:
    asked: list[int] = []

    class Counting(HashingEmbedder):
        def embed(self, texts, kind):  # type: ignore[no-untyped-def] # as its base
            asked.append(len(texts))
            return super().embed(texts, kind)

    embeddings = CachedEmbeddings(Counting(), tmp_path)
    first, again, other = (embeddings.embed(texts) for texts in (["a", "b"], ["a", "b"], ["a", "c"]))
    assert asked == [2, 2]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_relevant_spans_are_read_with_their_text(tmp_path: Path) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_text(
        '{"_id": "q", "text": "why?", "metadata": {"corpus": "a", "references": '
        '[{"content": "x", "start_index": 3, "end_index": 4}]}}\n'
    )
    [question] = load_questions(file)
    assert question.text == "why?"
    assert question.relevant == [Passage("a", 3, 4)]
