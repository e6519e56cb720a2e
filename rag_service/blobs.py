"""Raw bytes and parsed texts, each under an owner and its SHA-256.

A blob is written before any transaction names it, so a row never points at nothing. The owner is one version of
one document: nothing is shared between documents, so deleting one can never take bytes that another still needs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Protocol

from rag_service.errors import NotFound, RetryableError


class BlobStore(Protocol):
    def put(self, owner: str, content: bytes) -> str:
        """Keep `content`; returns its key, "owner/sha256". Durable when it returns. Raises RetryableError."""
        ...

    def get(self, key: str) -> bytes:
        """Raises NotFound."""
        ...

    def delete(self, owner: str) -> None:
        """Forget everything of this owner; an unknown one is no error."""
        ...


class LocalBlobs:
    """One file per blob, its owner's folder in one of 256 by a hash, so that no folder grows large."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, owner: str, content: bytes) -> str:
        key = f"{owner}/{hashlib.sha256(content).hexdigest()}"
        path = self._folder(owner) / key.rpartition("/")[2]
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_durably(path, content)
            except OSError as error:
                raise RetryableError(
                    f"The store of documents takes nothing more ({error.strerror}). Look at its disk.",
                    code="storage_unavailable",
                    retry_after=30,
                ) from error
        return key

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"The stored bytes {key} are gone. Upload the document again.") from None

    def delete(self, owner: str) -> None:
        shutil.rmtree(self._folder(owner), ignore_errors=True)

    def _path(self, key: str) -> Path:
        owner, _, digest = key.partition("/")
        return self._folder(owner) / digest

    def _folder(self, owner: str) -> Path:
        if not owner or "/" in owner or owner.startswith("."):
            raise ValueError(f"not an owner: {owner!r}")
        return self._root / hashlib.sha256(owner.encode()).hexdigest()[:2] / owner


def _write_durably(path: Path, content: bytes) -> None:
    # Rename makes the blob appear whole or not at all; the two fsyncs make it outlive a power cut.
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
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
