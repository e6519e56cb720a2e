"""A caller's filter applied to the fields of one document in memory, as every store applies it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import ge, gt, le, lt
from typing import Any

from rag_service.types import Filter
from rag_service.vectors.conditions import Among, Condition, Either, Every, Match, Range, Without, translated
from rag_service.vectors.payload import changes

_ORDER: Mapping[str, Callable[[float, float], bool]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}


def matches(narrowing: Filter | None, fields: Mapping[str, Any]) -> bool:
    """Whether a document with these fields is one that `narrowing` lets through; None lets all through.

    Raises InvalidRequest for an operand that its operator cannot compare.
    """
    return narrowing is None or _holds(translated(narrowing), changes(None, fields))


def _holds(condition: Condition, payload: Mapping[str, Any]) -> bool:
    match condition:
        case Match(key, values):
            return not set(values).isdisjoint(payload.get(key, ()))
        case Range(key, operator, bound):
            return any(_ORDER[operator](value, bound) for value in _numbers(key, payload))
        case Every(parts):
            return all(_holds(part, payload) for part in parts)
        case Either(parts):
            return any(_holds(part, payload) for part in parts)
        case Without(part):
            return not _holds(part, payload)
        case Among():
            raise ValueError("a caller's filter names no chunks")


def _numbers(key: str, payload: Mapping[str, Any]) -> list[float]:
    """The numbers under a key such as `dates."metadata.day"`."""
    kind, _, name = key.partition(".")
    found: list[float] = payload.get(kind, {}).get(name.strip('"'), [])
    return found
