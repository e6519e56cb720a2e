"""Whether a candidate is good enough to take over: decided by numbers, which are told with the decision."""

from __future__ import annotations

from dataclasses import dataclass

from rag_service.evaluation.compare import ROUNDING, Comparison

OVERLAP = "overlap@10"
RBO = "rbo"


@dataclass(frozen=True, slots=True)
class Gate:
    """`metric` may fall by no more than -`min_delta` (must rise by it where it is positive).

    `overlap@10` and `rbo` ask how like the active version's answers the candidate's are, 1 being alike: with them a
    `min_delta` of -0.3 demands at least 0.7. At most `max_worse_queries` questions may lose by the metric; None: any
    number.
    """

    metric: str = "ndcg@10"
    min_delta: float = 0.0
    max_worse_queries: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reasons` has a sentence with the numbers for each condition: those that failed, or else all that held."""

    passed: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Measured:
    candidate: float
    active: float
    delta: float
    worse: int
    queries: int
    beside: str = ""


def judge(comparison: Comparison, gate: Gate) -> Verdict:
    """Hold a comparison against a gate. What was not measured, or only by degraded answers, does not pass."""
    measured = _measured(comparison, gate.metric)
    if measured is None:
        asked = f"{comparison.queries} questions, of which {comparison.labelled} are judged"
        return Verdict(False, (f"{gate.metric} was not measured: the comparison had {asked}.",))
    held: list[str] = []
    failed: list[str] = []
    for fine, sentence in (_delta(measured, gate), _worse(measured, gate), _whole(comparison)):
        (held if fine else failed).append(sentence)
    return Verdict(not failed, tuple(failed or held))


def _measured(comparison: Comparison, metric: str) -> _Measured | None:
    if metric in (OVERLAP, RBO) and comparison.queries:
        likeness = [one.overlap_at_10 if metric == OVERLAP else one.rbo for one in comparison.changes]
        mean = comparison.overlap_at_10 if metric == OVERLAP else comparison.rbo
        worse = sum(one < 1 - ROUNDING for one in likeness)
        return _Measured(mean, 1.0, mean - 1.0, worse, comparison.queries)
    change = comparison.metrics.get(metric)
    if change is None:
        return None
    beside = f"; 95 % interval {change.low:+.4f} to {change.high:+.4f}, p = {change.p_value:.4f}"
    return _Measured(change.candidate, change.active, change.delta, change.worse, change.queries, beside)


def _delta(measured: _Measured, gate: Gate) -> tuple[bool, str]:
    fine = measured.delta >= gate.min_delta - ROUNDING
    told = f"{gate.metric} is {measured.candidate:.4f}, of the active version {measured.active:.4f}"
    return fine, (
        f"{told}: a difference of {measured.delta:+.4f}, where at least {gate.min_delta:+.4f} is asked"
        f" ({measured.queries} questions{measured.beside})."
    )


def _worse(measured: _Measured, gate: Gate) -> tuple[bool, str]:
    most = gate.max_worse_queries
    allowed = "any number is" if most is None else f"{most} are"
    told = f"{measured.worse} of {measured.queries} questions got worse by {gate.metric}, where {allowed} allowed."
    return most is None or measured.worse <= most, told


def _whole(comparison: Comparison) -> tuple[bool, str]:
    count = comparison.degraded
    return count == 0, f"{count} answers had to do without a part of the service, where none may."
