"""What each embedding model made of the probe texts when it was first used here, or was last accepted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select

from rag_service.db.upserts import upsert
from rag_service.db.watched import fingerprints
from rag_service.types import EmbedderIdentity, new_id, utc_now

_LITTLE_ENDIAN = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`vectors` has the shape (texts, dimensions). `computation` says what computed them."""

    embedder: EmbedderIdentity
    computation: str
    vectors: NDArray[np.float32]
    at: datetime


def of(connection: Connection, embedder: EmbedderIdentity, texts: str) -> dict[str, Fingerprint]:
    """The fingerprints of a model over the texts of this hash, by what computed them."""
    rows = connection.execute(select(fingerprints).where(_of(embedder), fingerprints.c.texts == texts))
    return {row.computation: _fingerprint(row) for row in rows}


def keep_first(
    connection: Connection, embedder: EmbedderIdentity, computation: str, texts: str, vectors: NDArray[np.float32]
) -> None:
    """Store what has none yet; of no effect where somebody else was first."""
    row = _row(embedder, computation, texts, vectors)
    connection.execute(upsert(connection, fingerprints).values(row).on_conflict_do_nothing())


def replace(
    connection: Connection, embedder: EmbedderIdentity, computation: str, texts: str, vectors: NDArray[np.float32]
) -> None:
    """This one holds from here on, and no other of the same model, whatever computed it."""
    connection.execute(delete(fingerprints).where(_of(embedder)))
    connection.execute(insert(fingerprints).values(_row(embedder, computation, texts, vectors)))


def _of(embedder: EmbedderIdentity) -> ColumnElement[bool]:
    return and_(
        fingerprints.c.model == embedder.name,
        fingerprints.c.revision == embedder.revision,
        fingerprints.c.dimensions == embedder.dimensions,
    )


def _row(
    embedder: EmbedderIdentity, computation: str, texts: str, vectors: NDArray[np.float32]
) -> Mapping[str, object]:
    return {
        "id": new_id("fpr"),
        "model": embedder.name,
        "revision": embedder.revision,
        "dimensions": embedder.dimensions,
        "computation": computation,
        "texts": texts,
        "vectors": vectors.astype(_LITTLE_ENDIAN).tobytes(),
        "at": utc_now(),
    }


def _fingerprint(row: Row[Any]) -> Fingerprint:
    flat = np.frombuffer(row.vectors, dtype=_LITTLE_ENDIAN).astype(np.float32)
    embedder = EmbedderIdentity(row.model, row.revision, row.dimensions)
    return Fingerprint(embedder, row.computation, flat.reshape(-1, row.dimensions), row.at)
