"""Recall, precision and IoU of retrieved passages against the exact spans of the relevant text.

Defined as in Chroma's chunking evaluation (Smith and Troynikov, "Evaluating Chunking Strategies for Retrieval", 2024;
`_scores_from_dataset_and_retrievals` of chunking_evaluation): all three count characters of ranges. Text that two
passages share counts twice in what was retrieved and once in what was found, and a passage of another document only
costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passage:
    """Characters `start` to `end` of the text `corpus`."""

    corpus: str
    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class SpanScores:
    recall: float
    precision: float
    iou: float


def score(retrieved: Sequence[Passage], relevant: Sequence[Passage]) -> SpanScores:
    """Judge one question. Raises ValueError when nothing is relevant: recall is then undefined."""
    wanted = sum(span.length for span in relevant)
    if not wanted:
        raise ValueError("a question needs relevant text")
    overlaps = (_overlap(passage, span) for passage in retrieved for span in relevant)
    found = sum(end - start for start, end in _union([overlap for overlap in overlaps if overlap]))
    returned = sum(passage.length for passage in retrieved)
    missed = wanted - sum(_covered(span, retrieved) for span in relevant)
    return SpanScores(found / wanted, found / returned if returned else 0.0, found / (returned + missed))


def _covered(span: Passage, retrieved: Iterable[Passage]) -> int:
    overlaps = [overlap for passage in retrieved if (overlap := _overlap(passage, span))]
    return sum(end - start for start, end in _union(overlaps))


def _overlap(one: Passage, other: Passage) -> tuple[int, int] | None:
    start, end = max(one.start, other.start), min(one.end, other.end)
    return (start, end) if one.corpus == other.corpus and start < end else None


def _union(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged
