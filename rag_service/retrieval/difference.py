"""What changed between two answers to the same question: by passage, and by document at its best passage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stood in an answer; ranks count from 1."""

    rank: int
    score: float
    document_id: str


@dataclass(frozen=True, slots=True)
class Moved:
    """What both answers hold, at another rank or with another score."""

    id: str
    before: Place
    after: Place


@dataclass(frozen=True, slots=True)
class Difference:
    """Ids with their places; `appeared` and `vanished` in the order of their answer, `moved` in that of the second.

    `unchanged` counts what has the same rank and, within `TOLERANCE`, the same score in both.
    """

    appeared: tuple[tuple[str, Place], ...]
    vanished: tuple[tuple[str, Place], ...]
    moved: tuple[Moved, ...]
    unchanged: int


TOLERANCE = 1e-6  # single precision of cosines near 1


def difference(before: Mapping[str, Place], after: Mapping[str, Place]) -> Difference:
    moved = [Moved(key, before[key], place) for key, place in after.items() if key in before]
    changed = tuple(one for one in moved if not _same(one.before, one.after))
    return Difference(
        appeared=tuple((key, place) for key, place in after.items() if key not in before),
        vanished=tuple((key, place) for key, place in before.items() if key not in after),
        moved=changed,
        unchanged=len(moved) - len(changed),
    )


def best_of_documents(places: Sequence[Place]) -> dict[str, Place]:
    """Each document at its best place, ranked among documents."""
    best: dict[str, Place] = {}
    for place in sorted(places, key=lambda place: place.rank):
        if place.document_id not in best:
            best[place.document_id] = Place(len(best) + 1, place.score, place.document_id)
    return best


def _same(before: Place, after: Place) -> bool:
    return before.rank == after.rank and abs(before.score - after.score) <= TOLERANCE
