"""The one place where a search's filter is made, in words that belong to no store.

Every store converts these few words into its own. None of them can be empty: stores take an empty filter for
"everything", so a mistake here must fail, not widen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, cast

from rag_service.access import AccessScope
from rag_service.errors import InvalidRequest
from rag_service.types import AllOf, AnyOf, Compare, Filter, Not, Scalar
from rag_service.vectors.payload import dates_key, moment, number, numbers_key, presence, term

RangeOperator: TypeAlias = Literal["gt", "gte", "lt", "lte"]


def _refuse_empty(parts: tuple[object, ...] | frozenset[str]) -> None:
    if not parts:
        raise ValueError("an empty condition would let everything through")


@dataclass(frozen=True, slots=True)
class Match:
    """One of the keywords under `key` is one of `values`."""

    key: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        _refuse_empty(tuple(filter(None, self.values)))


@dataclass(frozen=True, slots=True)
class Range:
    """One of the numbers under `key` lies on this side of `bound`."""

    key: str
    operator: RangeOperator
    bound: float


@dataclass(frozen=True, slots=True)
class Among:
    chunk_ids: frozenset[str]

    def __post_init__(self) -> None:
        _refuse_empty(self.chunk_ids)


@dataclass(frozen=True, slots=True)
class Every:
    conditions: tuple[Condition, ...]

    def __post_init__(self) -> None:
        _refuse_empty(self.conditions)


@dataclass(frozen=True, slots=True)
class Either:
    conditions: tuple[Condition, ...]

    def __post_init__(self) -> None:
        _refuse_empty(self.conditions)


@dataclass(frozen=True, slots=True)
class Without:
    condition: Condition


Condition: TypeAlias = "Match | Range | Among | Every | Either | Without"

# No term is ever spelled like this: a stored term is a JSON list or a "#" and a digest.
NOTHING = Match("terms", ("nothing",))
EVERYTHING = Without(NOTHING)


def mandatory(scope: AccessScope, narrowing: Filter | None) -> Every:
    """What every leg of every search is filtered by: what `scope` may read, then the caller's narrowing."""
    allowed = readable(scope)
    return allowed if narrowing is None else Every((*allowed.conditions, translated(narrowing)))


def readable(scope: AccessScope) -> Every:
    """The points that `scope` may read, as `rag_service.access.may_read` decides it."""
    if not isinstance(scope, AccessScope):
        raise TypeError("a search needs an AccessScope")
    tokens = tuple(sorted(scope.tokens))
    return Every((Match("team", (scope.team,)), Match("allow", tokens), Without(Match("deny", tokens))))


def not_later(revision: int) -> Without:
    """Points written at this revision of their document or before. Those that hold none are older than revisions."""
    return Without(Range("revision", "gt", revision))


def of_document(
    document_id: str,
    *,
    older_than: int | None = None,
    only: int | None = None,
    revision: int | None = None,
    chunk_ids: frozenset[str] | None = None,
) -> Every:
    """A document's points: all, or those of a version below `older_than`, or of version `only`.

    With a `revision` only those that are `not_later`, with `chunk_ids` only those of these chunks.
    """
    conditions: list[Condition] = [Match("document_id", (document_id,))]
    if chunk_ids is not None:
        conditions.append(Among(chunk_ids))
    if older_than is not None:
        conditions.append(Range("version", "lt", older_than))
    if only is not None:
        conditions += [Range("version", "gte", only), Range("version", "lte", only)]
    if revision is not None:
        conditions.append(not_later(revision))
    return Every(tuple(conditions))


def chosen(document_id: str | None, chunk_ids: frozenset[str] | None) -> Every | None:
    """The points of a document, those of these chunks, or (None) all of an index."""
    if document_id is not None:
        return of_document(document_id, chunk_ids=chunk_ids)
    return None if chunk_ids is None else Every((Among(chunk_ids),))


def within(chunk_ids: frozenset[str], where: Every) -> Every:
    """`where`, of these chunks only."""
    return Every((Among(chunk_ids), *where.conditions))


def translated(narrowing: Filter) -> Condition:
    """A caller's filter. Raises InvalidRequest for an operand that its operator cannot compare."""
    match narrowing:
        case AllOf(conditions):
            return Every(tuple(map(translated, conditions))) if conditions else EVERYTHING
        case AnyOf(conditions):
            return Either(tuple(map(translated, conditions))) if conditions else NOTHING
        case Not(condition):
            return Without(translated(condition))
        case Compare():
            return _OPERATORS[narrowing.operator](narrowing)


def _equal(compare: Compare) -> Condition:
    return Match("terms", (term(compare.field, _scalar(compare)),))


def _member(compare: Compare) -> Condition:
    if not isinstance(compare.operand, tuple):
        raise _unfit(compare, "a list of values")
    terms = tuple(dict.fromkeys(term(compare.field, value) for value in compare.operand))
    return Match("terms", terms) if terms else NOTHING


def _exists(compare: Compare) -> Condition:
    if not isinstance(compare.operand, bool):
        raise _unfit(compare, "true or false")
    there = Match("terms", (presence(compare.field),))
    return there if compare.operand else Without(there)


def _range(compare: Compare) -> Condition:
    operator, operand = cast(RangeOperator, compare.operator), _scalar(compare)
    if isinstance(operand, bool):
        raise _unfit(compare, "a number or a date")
    if not isinstance(operand, str):
        return Range(numbers_key(compare.field), operator, number(operand))
    date = moment(operand)
    if date is None:
        raise _unfit(compare, "a number or an RFC 3339 date such as 2026-01-31 or 2026-01-31T12:00:00Z")
    return Range(dates_key(compare.field), operator, date)


def _without(build: Callable[[Compare], Condition], compare: Compare) -> Condition:
    return Without(build(compare))


_OPERATORS: dict[str, Callable[[Compare], Condition]] = {
    "eq": _equal,
    "ne": partial(_without, _equal),
    "in": _member,
    "nin": partial(_without, _member),
    "exists": _exists,
    **dict.fromkeys(("gt", "gte", "lt", "lte"), _range),
}


def _scalar(compare: Compare) -> Scalar:
    if isinstance(compare.operand, tuple):
        raise _unfit(compare, "one value, not a list")
    return compare.operand


def _unfit(compare: Compare, wanted: str) -> InvalidRequest:
    return InvalidRequest(f"The filter on {compare.field!r} cannot be read: {compare.operator} needs {wanted}.")


def split(condition: Condition) -> tuple[list[Condition], list[Condition], list[Condition]]:
    """The (must, should, must_not) of a condition, the form in which stores take a filter."""
    match condition:
        case Every(parts):
            negated = [part.condition for part in parts if isinstance(part, Without)]
            return [part for part in parts if not isinstance(part, Without)], [], negated
        case Either(parts):
            return [], list(parts), []
        case Without(part):
            return [], [], [part]
        case _:
            return [condition], [], []
