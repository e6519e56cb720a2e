"""What an answer is worth: its documents held against those that the question expects.

Scores are named `ndcg@10`, `recall@k`, `mrr` (to rank 10) for questions with expected documents, and `abstention`
(1 for an empty answer, else 0) for those that expect nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rag_service.errors import InvalidRequest
from rag_service.evaluation import metrics
from rag_service.types import Expected, LabelledQuery

DEPTH = 20  # documents that a question is asked for
ABSTENTION = "abstention"
REPORTED = ("ndcg@10", "recall@5", "recall@10", "recall@20", "mrr")
MEASURES = (*REPORTED, ABSTENTION)
_MEASURE = re.compile(r"(ndcg|recall|mrr)@([1-9]\d?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Found:
    """A document of an answer, by both of its ids."""

    document_id: str
    external_id: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The documents of an answer, best first and each at its best passage, and how long it took in milliseconds."""

    found: tuple[Found, ...]
    ms: float
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds."""

    p50: float
    p95: float


def checked_measure(name: str) -> str:
    """Raises InvalidRequest for what is no measure: it is to be known before all questions were asked."""
    depth = _MEASURE.fullmatch(name)
    if name in MEASURES or (depth is not None and int(depth[2]) <= DEPTH):
        return name
    raise InvalidRequest(f"{name!r} is no measure. Use {', '.join(MEASURES)}, or ndcg, recall or mrr @1 to @{DEPTH}.")


def scores(query: LabelledQuery, answer: Answered, measures: Iterable[str] = REPORTED) -> dict[str, float]:
    """Those of the `measures` that this question can be measured by; none for a question that nobody judged."""
    if query.expect_nothing:
        return {ABSTENTION: float(not answer.found)}
    if not query.expected:
        return {}
    ranking, grades = _held_against(answer.found, query.expected)
    return {name: _score(name, ranking, grades) for name in measures if name != ABSTENTION}


def means(scored: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """By measure, the mean over the questions that have it."""
    names = dict.fromkeys(name for one in scored for name in one)
    return {name: fmean(one[name] for one in scored if name in one) for name in names}


def latency(milliseconds: Sequence[float]) -> Latency:
    """By nearest rank; 0 where nothing was measured."""
    ordered = sorted(milliseconds) or [0.0]

    def at(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3)

    return Latency(p50=at(0.50), p95=at(0.95))


def _score(name: str, ranking: Sequence[str], grades: Mapping[str, float]) -> float:
    kind, _, depth = name.partition("@")
    measure = {"ndcg": metrics.ndcg, "recall": metrics.recall, "mrr": metrics.reciprocal_rank}[kind]
    return measure(ranking, grades, int(depth or 10))


def _held_against(found: Sequence[Found], expected: Sequence[Expected]) -> tuple[list[str], dict[str, float]]:
    """The ranking and the grades in names of their own: an expectation is met once, by the first that fits it.

    An external id is unique within a source only: of two documents that share it, the better placed counts.
    """
    grades = {f"expected {number}": float(one.grade) for number, one in enumerate(expected)}
    open_ones = dict(zip(grades, expected, strict=True))
    ranking = []
    for document in found:
        name = next((name for name, one in open_ones.items() if _fits(document, one)), None)
        if name is not None:
            del open_ones[name]
        ranking.append(name or document.document_id)
    return ranking, grades


def _fits(document: Found, expected: Expected) -> bool:
    if expected.document_id is not None:
        return document.document_id == expected.document_id
    return document.external_id == expected.external_id
