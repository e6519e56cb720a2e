"""What a probe expects of its answer, and whether an answer is like that: pure, no stores, no clocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from rag_service.db.witness import Breaches

Check: TypeAlias = Literal["recall", "nothing", "must_not", "age", "team", "access", "error"]
Severity: TypeAlias = Literal["critical", "warning"]

# What nobody may ever be shown, against what should be better.
_CRITICAL: frozenset[Check] = frozenset({"must_not", "team", "access"})
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Expectation:
    """Documents are named by id or external id. What is not given is not checked.

    `recall`: the share of `documents` among the hits is at least this. `nothing`: there are no hits. `must_not`: none
    of these is among the hits. `max_age_s`: the newest document, of `source` where given, came in less long ago.
    """

    documents: tuple[str, ...] = ()
    recall: float = 1.0
    nothing: bool = False
    must_not: tuple[str, ...] = ()
    max_age_s: int | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A hit, without its text."""

    document_id: str
    external_id: str
    score: float


@dataclass(frozen=True, slots=True)
class Failure:
    check: Check
    message: str

    @property
    def severity(self) -> Severity:
        return "critical" if self.check in _CRITICAL else "warning"

    def told(self) -> dict[str, Any]:
        return {"check": self.check, "severity": self.severity, "message": self.message}


def is_critical(failures: Sequence[Mapping[str, Any]]) -> bool:
    """Of failures as `told`."""
    return any(failure["severity"] == "critical" for failure in failures)


def recall_of(expected: Expectation, hits: Sequence[Found]) -> float | None:
    """The share of the expected documents that were found, None where none are named."""
    if not expected.documents:
        return None
    return 1 - len(_missing(expected, hits)) / len(expected.documents)


def judged(expected: Expectation, hits: Sequence[Found]) -> list[Failure]:
    """What is not as expected of the hits."""
    failures = []
    recall = recall_of(expected, hits)
    # Shares of small numbers: a third of three is one.
    if recall is not None and recall < expected.recall - 1e-9:
        missing = _listed(_missing(expected, hits))
        failures.append(Failure("recall", f"Recall is {recall:.2f}, not {expected.recall:g}. Missing: {missing}."))
    if expected.nothing and hits:
        failures.append(Failure("nothing", f"There are {len(hits)} hits where nothing should be found."))
    shown = [name for name in expected.must_not if _is_among(name, hits)]
    if shown:
        failures.append(Failure("must_not", f"Documents were found that must not be: {_listed(shown)}."))
    return failures


def breached(breaches: Breaches) -> list[Failure]:
    """Independent of what the probe expects: nobody is ever shown these. Documents of others are not named."""
    failures = []
    if breaches.foreign:
        failures.append(Failure("team", f"{len(breaches.foreign)} hits are of documents that this team does not own."))
    if breaches.unreadable:
        named = _listed(sorted(breaches.unreadable))
        failures.append(Failure("access", f"Documents were found that this asker may not read: {named}."))
    return failures


def aged(expected: Expectation, newest: datetime | None, now: datetime) -> list[Failure]:
    if expected.max_age_s is None:
        return []
    if newest is None:
        return [Failure("age", "There is no document yet.")]
    age = (now - newest).total_seconds()
    if age <= expected.max_age_s:
        return []
    return [
        Failure("age", f"The newest document came in {age:,.0f} s ago, expected are at most {expected.max_age_s:,}.")
    ]


def _missing(expected: Expectation, hits: Sequence[Found]) -> list[str]:
    return [name for name in expected.documents if not _is_among(name, hits)]


def _is_among(name: str, hits: Sequence[Found]) -> bool:
    return any(name in (hit.document_id, hit.external_id) for hit in hits)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
