"""The data folder: of one process where it holds a database or vectors, shared by all where it holds only blobs."""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import IO

from rag_service.db import Database, installation
from rag_service.errors import ConfigError


def lock(data_dir: Path) -> IO[str]:
    """Keeps every other process out until it is closed. Raises ConfigError when one is in."""
    file = (data_dir / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigError(
            f"Another process uses the data folder {data_dir}. Stop it, or choose another RAG_DATA_DIR."
        ) from None
    return file


def check_shared(data_dir: Path, database: Database) -> None:
    """That this is the folder which the other processes of this database use too.

    The first process leaves a mark in the folder and its twin in the database. Raises ConfigError where they differ:
    then each machine has a folder of its own, and one would not find what another was sent.
    """
    path, mark = data_dir / "installation", secrets.token_hex(16)
    written = data_dir / f"installation.{mark}"
    written.write_text(mark)
    # A link is there whole or not at all, also for a process that starts at the same moment.
    with suppress(FileExistsError):
        path.hardlink_to(written)
    written.unlink()
    mark = path.read_text()
    with database.transaction() as transaction:
        known = installation.claim(transaction.connection, "data_folder", mark)
    if known != mark:
        raise ConfigError(
            f"The data folder {data_dir} is not the one of this database, and holds other blobs or vectors. Mount that "
            "one here, or keep vectors in RAG_QDRANT_URL and blobs where every machine reaches them."
        )


def admin_key(data_dir: Path) -> str:
    """Made once and kept in the data folder, readable by its owner only."""
    path = data_dir / "admin.key"
    if not path.exists():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(f"rag_admin_{secrets.token_urlsafe(32)}\n")
    return path.read_text().strip()
