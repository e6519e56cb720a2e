"""A filter tree written as its asker would write it, and the one clause of it that does not hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rag_service.types import AllOf, AnyOf, Compare, Filter, Not

_METADATA = "metadata."


def written(narrowing: Filter) -> dict[str, Any]:
    """The filter in the dialect that `parse_filter` reads: parsing it again gives the same tree."""
    match narrowing:
        case AllOf(conditions):
            return {"$and": [written(condition) for condition in conditions]}
        case AnyOf(conditions):
            return {"$or": [written(condition) for condition in conditions]}
        case Not(condition):
            return {"$not": written(condition)}
        case Compare(field, operator, operand):
            return {field: {f"${operator}": list(operand) if isinstance(operand, tuple) else operand}}


def clauses(narrowing: Filter | None) -> list[dict[str, Any]]:
    """The conditions that must all hold, each as written; none when nothing is narrowed."""
    match narrowing:
        case None:
            return []
        case AllOf(conditions):
            return [clause for condition in conditions for clause in clauses(condition)]
        case _:
            return [written(narrowing)]


def failing(narrowing: Filter, holds: Callable[[Filter], bool]) -> Filter | None:
    """The first condition that does not hold, as deep as conditions that must all hold go; None when all do.

    An `$or` that fails does so as a whole, and so does a `$not`: they are given as they stand.
    """
    if holds(narrowing):
        return None
    if isinstance(narrowing, AllOf):
        for condition in narrowing.conditions:
            found = failing(condition, holds)
            if found is not None:
                return found
    return narrowing


def values(narrowing: Filter, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What `fields` hold, by the names that the filter uses; None for what is not there."""
    match narrowing:
        case AllOf(conditions) | AnyOf(conditions):
            return {name: value for condition in conditions for name, value in values(condition, fields).items()}
        case Not(condition):
            return values(condition, fields)
        case Compare(field):
            return {field: _value(fields, field)}


def _value(fields: Mapping[str, Any], name: str) -> Any:
    if name.startswith(_METADATA):
        return fields["metadata"].get(name.removeprefix(_METADATA))
    return fields.get(name)
