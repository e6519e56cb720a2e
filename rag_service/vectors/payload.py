"""What a store keeps beside the vectors, so that every store compares a document's fields in the same way.

Stores differ in how they compare JSON (one takes True for 1, none matches a float by equality, a list of nulls is
empty to one and not to another). So fields are not stored as they came but as what a filter asks of them:

    terms     one keyword per (field, value), and one per field that has a value: equality, membership, existence
    numbers   field -> its numbers, 64-bit floats: ranges
    dates     field -> its RFC 3339 dates, microseconds since 1970 UTC: ranges
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from rag_service.access import AccessTokens
from rag_service.errors import FatalError, InvalidRequest
from rag_service.types import Scalar, SparseVector
from rag_service.vectors.base import StoredPoint, VectorPoint

KEYWORD_KEYS = ("team", "allow", "deny", "document_id", "terms")
STORED_KEYS = ("team", "document_id", "version", "text_hash", "allow", "deny")

_LONGEST_TERM = 100
_PLAIN_PATH = re.compile(r"[\w.\-/: ]{1,200}")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def payloads_of(points: Iterable[VectorPoint]) -> Iterator[dict[str, Any]]:
    """Everything a store keeps of each point beside its vectors; what points of one document share is made once."""
    former: VectorPoint | None = None
    shared: dict[str, Any] = {}
    for point in points:
        if former is None or not _share(former, point):
            shared = changes(point.access, point.fields, point.revision)
        former = point
        yield {
            "team": point.team,
            "document_id": point.document_id,
            "version": point.version,
            "text_hash": point.text_hash,
            **shared,
        }


def _share(one: VectorPoint, other: VectorPoint) -> bool:
    return one.access is other.access and one.fields is other.fields and one.revision == other.revision


def check_vector(point: VectorPoint, dimensions: int) -> None:
    """Raises FatalError for a dense vector that an index of `dimensions` cannot hold."""
    if point.dense.shape != (dimensions,) or not np.isfinite(point.dense).all():
        raise FatalError(f"Chunk {point.chunk_id} has a vector that an index of {dimensions} dimensions cannot hold.")


def changes(
    access: AccessTokens | None, fields: Mapping[str, Any] | None, revision: int | None = None
) -> dict[str, Any]:
    """The part of a payload that a change of access or fields replaces."""
    changed: dict[str, Any] = {}
    if access is not None:
        changed |= {"allow": list(access.allow), "deny": list(access.deny)}
    if fields is not None:
        changed |= _searchable(fields)
    if changed and revision is not None:
        changed["revision"] = revision
    return changed


def stored_point(chunk_id: str, payload: Mapping[str, Any], vectors: object) -> StoredPoint:
    """A point as it is read back, with its vectors by leg if they were asked for.

    Tokens that are missing from it are no error: reconciling finds them.
    """
    held: Mapping[str, Any] = vectors if isinstance(vectors, dict) else {}
    dense, terms = held.get("dense"), held.get("lexical")
    return StoredPoint(
        chunk_id=chunk_id,
        team=payload.get("team", ""),
        document_id=payload["document_id"],
        version=payload["version"],
        text_hash=payload["text_hash"],
        access=AccessTokens(tuple(payload.get("allow") or ()), tuple(payload.get("deny") or ())),
        dense=None if dense is None else np.asarray(dense, dtype=np.float32),
        lexical=None if terms is None else SparseVector(terms.indices, terms.values),
    )


def range_keys(payload: Mapping[str, Any]) -> set[str]:
    """The payload keys that a range over one of these fields would read."""
    return {_keyed(kind, name) for kind in ("numbers", "dates") for name in payload.get(kind, ())}


def term(field: str, value: Scalar) -> str:
    """The keyword under which a field's value is stored; 1 and 1.0 are equal, 1 and True are not."""
    plain = int(value) if isinstance(value, float) and value.is_integer() else value
    return _short(json.dumps([field, plain]))


def presence(field: str) -> str:
    """The keyword of every document in which the field has a value."""
    return _short(json.dumps([field]))


def numbers_key(field: str) -> str:
    return _keyed("numbers", _range_name(field))


def dates_key(field: str) -> str:
    return _keyed("dates", _range_name(field))


def number(value: float) -> float:
    """A number as ranges compare it: the nearest 64-bit float, the largest one for what lies beyond."""
    return float(max(-sys.float_info.max, min(sys.float_info.max, value)))


def moment(text: str) -> float | None:
    """Microseconds since 1970 UTC of an RFC 3339 date or date-time, None for other text. No offset means UTC."""
    if not _RFC3339.fullmatch(text):
        return None
    try:
        parsed = datetime.fromisoformat(text.upper())
    except ValueError:  # the 31st of February
        return None
    aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return float((aware - _EPOCH) // timedelta(microseconds=1))


def _searchable(fields: Mapping[str, Any]) -> dict[str, Any]:
    terms: set[str] = set()
    numbers: defaultdict[str, list[float]] = defaultdict(list)
    dates: defaultdict[str, list[float]] = defaultdict(list)
    for path, value in _values("", fields):
        terms |= {presence(path), term(path, value)}
        if isinstance(value, str):
            if (date := moment(value)) is not None:
                dates[_range_name(path)].append(date)
        elif not isinstance(value, bool):
            numbers[_range_name(path)].append(number(value))
    return {"terms": sorted(terms), "numbers": dict(numbers), "dates": dict(dates)}


def _values(path: str, value: object) -> Iterator[tuple[str, Scalar]]:
    match value:
        case Mapping():
            for name, inner in value.items():
                yield from _values(f"{path}.{name}" if path else str(name), inner)
        case list() | tuple():
            for inner in value:
                yield from _values(path, inner)
        case str() | bool() | int() | float():
            if not (isinstance(value, float) and math.isnan(value)):  # equals nothing, so it is no value
                yield path, value
        case None:
            pass
        case _:
            raise InvalidRequest(
                f"Field {path!r} holds a {type(value).__name__}; send text, numbers, booleans or lists."
            )


def _keyed(kind: str, name: str) -> str:
    return f'{kind}."{name}"'


def _range_name(path: str) -> str:
    return path if _PLAIN_PATH.fullmatch(path) else f"#{_digest(path)}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TERM else f"#{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
