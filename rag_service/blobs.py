"""Raw bytes under their SHA-256. Written before any transaction names them, so a row never points at nothing."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Protocol

from rag_service.errors import NotFound


class BlobStore(Protocol):
    def put(self, content: bytes) -> str:
        """Keep `content`; returns its lower-case hex SHA-256. Durable when it returns."""
        ...

    def get(self, digest: str) -> bytes:
        """Raises NotFound."""
        ...

    def delete(self, digest: str) -> None:
        """Forget it; an unknown digest is no error."""
        ...


class LocalBlobs:
    """One file per blob under `root`, in 256 folders by the first two digits."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        path = self._path(digest)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(path, content)
        return digest

    def get(self, digest: str) -> bytes:
        try:
            return self._path(digest).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"The stored bytes {digest[:12]} are gone. Upload the document again.") from None

    def delete(self, digest: str) -> None:
        self._path(digest).unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._root / digest[:2] / digest

    def _write(self, path: Path, content: bytes) -> None:
        # Rename makes the blob appear whole or not at all; fsync makes it outlive a power cut.
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
