"""Putting a restored data folder in place of what is there, as a whole or not at all.

Everything is made in a folder aside. When it is complete a marker says so, and only then are the old parts replaced by
the new ones, one rename each. A process that dies in between leaves the marker: whoever opens the data folder next goes
on where it ended. Without the marker, what lies aside is thrown away.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from rag_service.flushing import sync

DATABASE = "rag.db"
_PARTS = (DATABASE, "blobs", "vectors")
_LOGS = ("rag.db-wal", "rag.db-shm")
_ASIDE, _COMPLETE, _FORMER = ".restore", "complete", "former"


def is_empty(data_dir: Path) -> bool:
    """Whether there is nothing in it that a restore would replace."""
    return not any((data_dir / name).exists() for name in _PARTS)


def begin(data_dir: Path) -> Path:
    """An empty folder to restore into."""
    aside = data_dir / _ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    for name in _PARTS[1:]:
        (aside / name).mkdir(mode=0o700, parents=True)
    aside.chmod(0o700)
    return aside


def commit(data_dir: Path) -> None:
    """What was restored is complete: from here on it is what counts."""
    aside = data_dir / _ASIDE
    # Blobs and points were durable when they were written.
    sync(aside / DATABASE)
    sync(aside)
    (aside / _COMPLETE).touch()
    sync(aside)
    finish(data_dir)


def finish(data_dir: Path) -> None:
    """Complete a restore that was committed, forget one that was not. The data folder is held by the caller."""
    aside = data_dir / _ASIDE
    if (aside / _COMPLETE).exists():
        (aside / _FORMER).mkdir(exist_ok=True)
        for name in _PARTS:
            if (aside / name).exists():
                _replace(data_dir, name)
        sync(data_dir)
    if aside.exists():
        shutil.rmtree(aside)


def sync_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        if path.is_file() or path.is_dir():
            sync(path)


def _replace(data_dir: Path, name: str) -> None:
    aside = data_dir / _ASIDE
    # The log of the former database must never meet the new one.
    for old in (*(_LOGS if name == DATABASE else ()), name):
        if (data_dir / old).exists():
            (data_dir / old).rename(aside / _FORMER / old)
    sync(data_dir)
    (aside / name).rename(data_dir / name)
