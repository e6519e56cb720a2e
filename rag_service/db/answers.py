"""How many answers an index version gave in an hour, by what became of them.

An outcome is a number: `EMPTY`, `UNSCORED` (hits whose scores are on no common scale), or the place of the best hit's
score among `BINS` equal parts of 0 to 1. Rows hold counts only: nothing of a question, its asker or its answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from sqlalchemy import Connection, case, delete, func, select

from rag_service.db.upserts import upsert
from rag_service.db.watched import answer_counts

EMPTY = -2
UNSCORED = -1
BINS = 40

# (index version, the full hour, outcome)
Key: TypeAlias = tuple[str, datetime, int]


@dataclass(frozen=True, slots=True)
class Counts:
    """Answers by outcome, over some hours."""

    by_outcome: Mapping[int, int] = field(default_factory=dict)

    @property
    def answers(self) -> int:
        return sum(self.by_outcome.values())

    @property
    def empty(self) -> int:
        return self.by_outcome.get(EMPTY, 0)

    @property
    def scores(self) -> list[int]:
        """Answers by the bin of their best score."""
        return [self.by_outcome.get(place, 0) for place in range(BINS)]


def hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def add(connection: Connection, counted: Mapping[Key, int]) -> None:
    """Add to what is counted already; processes may do so at the same time."""
    statement = upsert(connection, answer_counts)
    statement = statement.on_conflict_do_update(
        index_elements=["index_version", "hour", "outcome"],
        set_={"answers": answer_counts.c.answers + statement.excluded.answers},
    )
    # In one order, so that two writers never wait for each other.
    rows = [
        {"index_version": index, "hour": hour, "outcome": outcome, "answers": count}
        for (index, hour, outcome), count in sorted(counted.items())
    ]
    if rows:
        connection.execute(statement, rows)


def windows(
    connection: Connection, now: datetime, newest: timedelta, reference: timedelta, index: str | None = None
) -> dict[str, tuple[Counts, Counts]]:
    """By index version: counts of the newest hours, with the present one, and of the `reference` before them."""
    cut = hour_of(now - newest)
    is_newest = case((answer_counts.c.hour > cut, 1), else_=0).label("is_newest")
    query = (
        select(
            answer_counts.c.index_version,
            is_newest,
            answer_counts.c.outcome,
            func.sum(answer_counts.c.answers).label("answers"),
        )
        .where(answer_counts.c.hour > cut - reference)
        .group_by(answer_counts.c.index_version, is_newest, answer_counts.c.outcome)
    )
    if index is not None:
        query = query.where(answer_counts.c.index_version == index)
    found: dict[str, tuple[dict[int, int], dict[int, int]]] = {}
    for row in connection.execute(query):
        newest_counts, reference_counts = found.setdefault(row.index_version, ({}, {}))
        (newest_counts if row.is_newest else reference_counts)[row.outcome] = int(row.answers)
    return {name: (Counts(new), Counts(old)) for name, (new, old) in found.items()}


def forget(connection: Connection, before: datetime) -> None:
    connection.execute(delete(answer_counts).where(answer_counts.c.hour < before))
