"""What a backup consists of, and whether it still does.

A backup is a folder of four files: `manifest.json`, `metadata.db` (SQLite), `vectors.db` (SQLite) and `blobs.tar`. The
manifest is written last and holds the length and SHA-256 of the others and of itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rag_service.errors import InvalidRequest

FORMAT = 1
MANIFEST, METADATA, VECTORS, BLOBS = "manifest.json", "metadata.db", "vectors.db", "blobs.tar"
PARTS = (METADATA, VECTORS, BLOBS)


class BackupDamaged(InvalidRequest):
    """This backup is not whole. Restore from another one."""

    default_code = "backup_damaged"


@dataclass(frozen=True, slots=True)
class Manifest:
    """`models` are the embedding models of its indexes; `missing` counts what the service itself had lost before.

    `secret_keys`: ids of the keys that credentials and secrets in it are encrypted under, and that it does not hold.
    """

    created_at: str
    service: str
    schema: str
    models: list[str]
    counts: Mapping[str, int]
    missing: Mapping[str, int]
    files: Mapping[str, Mapping[str, Any]]
    format: int = FORMAT
    secret_keys: list[str] = field(default_factory=list)


def write(folder: Path, manifest: Manifest) -> None:
    content = asdict(manifest)
    signed = {**content, "sha256": _digest_of(content)}
    with private(folder / MANIFEST) as descriptor:
        os.write(descriptor.fileno(), json.dumps(signed, indent=2).encode())


def read(folder: Path) -> Manifest:
    """Only the manifest, whose own digest is checked. Raises BackupDamaged, InvalidRequest for a newer format."""
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
        digest = content.pop("sha256")
    except FileNotFoundError:
        raise BackupDamaged(f"{folder} holds no {MANIFEST}, so it is no complete backup.") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise BackupDamaged(f"The manifest of {folder} cannot be read. Restore from another backup.") from None
    if content.get("format") != FORMAT:
        raise InvalidRequest(
            f"{folder} has the format {content.get('format')}, and this version reads {FORMAT}. "
            "Use the version that made it."
        )
    if digest != _digest_of(content):
        raise BackupDamaged(f"The manifest of {folder} has been changed. Restore from another backup.")
    return Manifest(**content)


def verify(folder: Path) -> Manifest:
    """Read every byte of it. Raises BackupDamaged that names the file which is not as it was written."""
    manifest = read(folder)
    for name in PARTS:
        path, expected = folder / name, manifest.files.get(name)
        if expected is None or not path.is_file():
            raise BackupDamaged(f"{name} is missing from {folder}. Restore from another backup.")
        if described(path) != expected:
            raise BackupDamaged(f"{name} in {folder} is not as it was written. Restore from another backup.")
    return manifest


def described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def private(path: Path) -> Any:
    """A new file for writing that its owner alone can read."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
