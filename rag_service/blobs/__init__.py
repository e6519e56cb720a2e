"""Raw bytes and parsed texts, each under an owner and its SHA-256.

A blob is written before any transaction names it, so a row never points at nothing. The owner is one version of
one document: nothing is shared between documents, so deleting one can never take bytes that another still needs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from rag_service.errors import NotFound, RetryableError
from rag_service.flushing import sync

LOST = "bytes_lost"


@dataclass(frozen=True, slots=True)
class StoredOwner:
    """An owner of blobs, and when something was last put under it."""

    name: str
    written_at: datetime


class BlobStore(Protocol):
    """Every method raises RetryableError when the store does not answer."""

    def put(self, owner: str, content: bytes) -> str:
        """Keep `content`; returns its key, "owner/sha256". Durable when it returns."""
        ...

    def get(self, key: str) -> bytes:
        """Raises NotFound."""
        ...

    def delete(self, owner: str) -> None:
        """Forget everything of this owner; an unknown one is no error."""
        ...

    def has(self, key: str) -> bool: ...

    def owners(self) -> Iterator[StoredOwner]:
        """All owners there are; one that comes or goes meanwhile may be among them or not."""
        ...

    def check(self) -> None:
        """Whether the store can be reached: what a process asks before it calls itself ready."""
        ...


class LocalBlobs:
    """One file per blob, its owner's folder in one of 256 by a hash, so that no folder grows large.

    A `shared` root is made by whoever shares it and never here: one that is missing is a share that is not mounted.
    """

    def __init__(self, root: Path, *, shared: bool = False) -> None:
        self._root = root
        self._shared = shared

    def put(self, owner: str, content: bytes) -> str:
        key = key_of(owner, content)
        path = self._path(key)
        with self._reported():
            self._write(path, content)
        return key

    def _write(self, path: Path, content: bytes) -> None:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_durably(path, content)
        else:
            os.utime(path.parent)  # whoever looks for what nobody needs goes by age

    def get(self, key: str) -> bytes:
        path = self._path(key)
        with self._reported():
            try:
                return path.read_bytes()
            except FileNotFoundError:
                raise gone(key) from None

    def delete(self, owner: str) -> None:
        folder = self._folder(owner)
        with self._reported(), contextlib.suppress(FileNotFoundError):  # never there, or another deletes it too
            shutil.rmtree(folder)

    def has(self, key: str) -> bool:
        path = self._path(key)
        with self._reported():
            return path.is_file()

    def owners(self) -> Iterator[StoredOwner]:
        self.check()
        for folder in self._root.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):  # deleted a moment ago
                yield StoredOwner(folder.name, datetime.fromtimestamp(folder.stat().st_mtime, UTC))

    def check(self) -> None:
        with self._reported():
            if not self._shared:
                self._root.mkdir(parents=True, exist_ok=True)
            if not os.access(self._root, os.W_OK | os.X_OK):
                raise RetryableError(f"The folder of the blobs, {self._root}, cannot be written. Check its owner.")

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        if self._shared and not self._root.is_dir():
            raise RetryableError(f"The shared folder of the blobs, {self._root}, is not there. Is it mounted?")
        try:
            yield
        except OSError as error:
            raise RetryableError(
                f"The folder of the blobs does not answer: {error.strerror}.", retry_after=30
            ) from error

    def _path(self, key: str) -> Path:
        return self._root / place_of(key)

    def _folder(self, owner: str) -> Path:
        return self._root / folder_of(owner)


def key_of(owner: str, content: bytes) -> str:
    """The key under which `content` is kept."""
    folder_of(owner)
    return f"{owner}/{hashlib.sha256(content).hexdigest()}"


def place_of(key: str) -> str:
    """Where the blob of this key lies, from the root of a store. Raises ValueError for what could leave it."""
    owner, _, digest = key.rpartition("/")
    return f"{folder_of(owner)}/{digest}"


def folder_of(owner: str) -> str:
    """Where everything of an owner lies, from the root of a store. Raises ValueError for what could leave it."""
    if not owner or "/" in owner or owner.startswith("."):
        raise ValueError(f"not an owner: {owner!r}")
    return f"{hashlib.sha256(owner.encode()).hexdigest()[:2]}/{owner}"


def gone(key: str) -> NotFound:
    return NotFound(f"The stored bytes {key} are gone. Upload the document again.", code=LOST)


def _write_durably(path: Path, content: bytes) -> None:
    # Rename makes the blob appear whole or not at all; the two syncs make it outlive a power cut.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as part:
            part.write(content)
            part.flush()
            os.fsync(part.fileno())
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)
