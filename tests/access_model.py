"""Who may see what and which fields a filter matches, in plain Python: what every store is compared with.

Nothing here is shared with the stores: it walks the fields as they were given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from operator import ge, gt, le, lt
from typing import Any, Protocol

from rag_service.access import AccessScope, AccessTokens, may_read
from rag_service.types import AllOf, AnyOf, Compare, Filter, Not, Scalar

_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}


class Readable(Protocol):
    @property
    def team(self) -> str: ...
    @property
    def access(self) -> AccessTokens: ...


def visible(scope: AccessScope, document: Readable) -> bool:
    return may_read(scope, document.team, document.access)


def matches(narrowing: Filter | None, fields: Mapping[str, Any]) -> bool:
    match narrowing:
        case None:
            return True
        case AllOf(conditions):
            return all(matches(condition, fields) for condition in conditions)
        case AnyOf(conditions):
            return any(matches(condition, fields) for condition in conditions)
        case Not(condition):
            return not matches(condition, fields)
        case Compare(field, operator, operand):
            return _compares(list(values_at(fields, field)), operator, operand)


def values_at(value: object, path: str) -> Iterator[Scalar]:
    """The scalars under a dotted path; a list stands for each of its elements, a name may itself contain dots."""
    if isinstance(value, list | tuple):
        for element in value:
            yield from values_at(element, path)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name == path:
                yield from values_at(inner, "")
            elif path.startswith(f"{name}."):
                yield from values_at(inner, path[len(name) + 1 :])
    elif value is not None and path == "":
        assert isinstance(value, str | int | float)
        yield value


def _compares(values: list[Scalar], operator: str, operand: Any) -> bool:
    match operator:
        case "eq":
            return any(_equal(value, operand) for value in values)
        case "ne":
            return not any(_equal(value, operand) for value in values)
        case "in":
            return any(_equal(value, one) for value in values for one in operand)
        case "nin":
            return not any(_equal(value, one) for value in values for one in operand)
        case "exists":
            return bool(values) is operand
        case _:
            return any(_ordered(_ORDER[operator], value, operand) for value in values)


def _equal(value: Scalar, operand: Scalar) -> bool:
    return value == operand and isinstance(value, bool) == isinstance(operand, bool)


def _ordered(order: Callable[[Any, Any], bool], value: Scalar, operand: Scalar) -> bool:
    if isinstance(value, bool) or isinstance(value, str) != isinstance(operand, str):
        return False
    if isinstance(value, str) and isinstance(operand, str):
        left, right = _date(value), _date(operand)
        return left is not None and right is not None and order(left, right)
    return order(value, operand)


def _date(text: str) -> datetime | None:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9:]{8}([.][0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})?)?", text):
        return None
    try:
        date = datetime.fromisoformat(text.replace("t", "T").replace("z", "Z"))
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
