"""What an evaluation has to hold: thresholds, and an earlier run that it must not fall behind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rag_service.cli.failure import MISUSED, CommandFailed

if TYPE_CHECKING:
    from rag_service.evaluation.report import Report

# By query, the first measure of its answer: nDCG@10, or whether an answer was empty that had to be.
Baseline: TypeAlias = Mapping[str, float]
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Check:
    """Something that had to hold; `detail` has the numbers."""

    name: str
    passed: bool
    detail: str


def thresholds(given: Sequence[str] | None) -> dict[str, float]:
    """`ndcg@10=0.7` by measure. Raises CommandFailed."""
    from rag_service.errors import InvalidRequest
    from rag_service.evaluation.scoring import checked_measure

    found = {}
    for one in given or ():
        name, _, value = one.partition("=")
        try:
            found[checked_measure(name)] = float(value)
        except ValueError:
            raise CommandFailed(f"--min {one}: write it like --min ndcg@10=0.7.", exit_code=MISUSED) from None
        except InvalidRequest as error:
            raise CommandFailed(f"--min {one}: {error.message}", exit_code=MISUSED) from None
    return found


def read_baseline(file: Path) -> Baseline:
    """What an earlier run printed with --json. Raises CommandFailed."""
    try:
        results = json.loads(file.read_text(encoding="utf-8"))["results"]
        return {str(one["id"]): float(next(iter(one["scores"].values()))) for one in results if one["scores"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CommandFailed(
            f"{file} is no earlier run.", "Make one: rag eval run ... --json > baseline.json", exit_code=MISUSED
        ) from None


def checks(
    found: Report, least: Mapping[str, float], baseline: Baseline | None, most_worse: int | None
) -> tuple[Check, ...]:
    """All checks; what was not measured fails, and so do answers that had to do without a part of the service."""
    made = [_at_least(found, name, value) for name, value in least.items()]
    if baseline is not None:
        made.append(_not_worse(found, baseline, most_worse or 0))
    if made and found.degraded:
        made.append(Check("no answer degraded", False, f"{found.degraded} of {found.queries} answers were"))
    return tuple(made)


def _at_least(found: Report, name: str, least: float) -> Check:
    value = found.metrics.get(name)
    if value is None:
        return Check(f"{name} >= {least:g}", False, "was not measured: no query of the set has it")
    count = found.measured[name]
    # Of NaN, nothing is true.
    return Check(f"{name} >= {least:g}", value >= least - _ROUNDING, f"is {value:.4f} over {count} queries")


def _not_worse(found: Report, baseline: Baseline, most: int) -> Check:
    name = f"at most {most} queries worse"
    now = {one.id: next(iter(one.scores.values())) for one in found.results if one.scores}
    both = now.keys() & baseline.keys()
    if not both:
        return Check(name, False, "cannot be told: the baseline has none of these queries")
    worse = sorted(one for one in both if now[one] < baseline[one] - _ROUNDING)
    told = f"{len(worse)} of {len(both)} are"
    return Check(name, len(worse) <= most, f"{told}: {', '.join(worse[:10])}" if worse else told)
