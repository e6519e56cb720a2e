"""The vectors of a backup: one SQLite file that any vector store can be filled from.

Only what cannot be computed from the metadata again without embedding or guessing is kept: per chunk id its dense
vector (32-bit floats) and the terms and weights of its lexical one. Versions, tokens and fields come from the rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from rag_service.types import SparseVector, Vector
from rag_service.vectors.base import StoredPoint

_TABLE = (
    "CREATE TABLE points (index_version TEXT, chunk_id TEXT, dense BLOB NOT NULL, terms BLOB NOT NULL, "
    "weights BLOB NOT NULL, PRIMARY KEY (index_version, chunk_id)) WITHOUT ROWID"
)
_FLOATS, _TERMS = np.dtype("<f4"), np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class Kept:
    dense: Vector
    lexical: SparseVector


class PointFile:
    """Opened for writing where `path` is an empty file, for reading otherwise."""

    def __init__(self, path: Path) -> None:
        if path.stat().st_size:
            self._connection = sqlite3.connect(f"file:{path.absolute()}?mode=ro&immutable=1", uri=True)
        else:
            self._connection = sqlite3.connect(path)
            # The file is synced as a whole, and does not count before its manifest does.
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.execute("PRAGMA journal_mode = OFF")
            self._connection.execute(_TABLE)
            self._connection.commit()

    def __enter__(self) -> PointFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def add(self, index: str, points: Iterable[StoredPoint]) -> int:
        """Points read with their vectors; returns how many."""
        rows = [
            (
                index,
                point.chunk_id,
                np.asarray(point.dense, dtype=_FLOATS).tobytes(),
                np.asarray(point.lexical.indices, dtype=_TERMS).tobytes(),
                np.asarray(point.lexical.values, dtype=_FLOATS).tobytes(),
            )
            for point in points
            if point.dense is not None and point.lexical is not None
        ]
        self._connection.executemany("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?)", rows)
        self._connection.commit()
        return len(rows)

    def count(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM points").fetchone()[0])

    def of(self, index: str, chunk_ids: Sequence[str]) -> dict[str, Kept]:
        """Those of these chunks that were kept."""
        found = {}
        for chunk_id in chunk_ids:
            row = self._connection.execute(
                "SELECT dense, terms, weights FROM points WHERE index_version = ? AND chunk_id = ?", (index, chunk_id)
            ).fetchone()
            if row is not None:
                dense, terms, weights = row
                lexical = SparseVector(
                    np.frombuffer(terms, dtype=_TERMS).tolist(), np.frombuffer(weights, dtype=_FLOATS).tolist()
                )
                found[chunk_id] = Kept(np.frombuffer(dense, dtype=_FLOATS).astype(np.float32), lexical)
        return found
