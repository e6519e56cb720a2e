"""Query sets as single files: CSV, or a BEIR folder packed as .zip or .tar.gz, told by their content."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import IO, Literal, TypeAlias

from rag_service.errors import InvalidRequest, LimitExceeded
from rag_service.evaluation.beir import ALL_QRELS, QUERIES, read_beir, write_beir
from rag_service.evaluation.tables import read_csv, write_csv
from rag_service.types import LabelledQuery

Format: TypeAlias = Literal["zip", "tar.gz", "csv"]
MEDIA_TYPES: dict[Format, str] = {"zip": "application/zip", "tar.gz": "application/gzip", "csv": "text/csv"}
# What is read of a packed file at most: some kilobytes can be packed gigabytes.
LARGEST = 128 * 1024 * 1024
_MOST_MEMBERS = 10_000
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_GZIP = 16 + zlib.MAX_WBITS
# What the standard library meets in bytes that only look like an archive.
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same queries give the same bytes


def write_file(queries: Sequence[LabelledQuery], form: Format) -> bytes:
    """The queries as one file of this form."""
    if form == "csv":
        return write_csv(queries).encode()
    return pack(write_beir(queries), form)


def read_file(content: bytes) -> list[LabelledQuery]:
    """The queries of a file. Raises InvalidRequest for what is none, LimitExceeded for what unpacks to too much."""
    members = _zipped if content.startswith(_ZIP) else _tarred if content.startswith(b"\x1f\x8b") else None
    if members is None:
        return read_csv(_text(content, "The file"))
    try:
        files = _wanted(members(content))
    except _DAMAGED:
        raise InvalidRequest("The file is damaged, or packed in a way that is not read here.") from None
    return read_beir({name: _text(packed, name) for name, packed in files.items()})


def pack(texts: Mapping[str, str], form: Format) -> bytes:
    """A folder's files, packed."""
    packed = io.BytesIO()
    if form == "zip":
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in texts.items():
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, text)
        return packed.getvalue()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in texts.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


def _wanted(members: Iterator[tuple[str, IO[bytes]]]) -> dict[str, bytes]:
    """Of a packed folder, the files that are a query set's, by their path within it; it may be packed as a folder."""
    found: dict[str, bytes] = {}
    left = LARGEST
    for count, (path, member) in enumerate(members, start=1):
        name = _within(path)
        if count > _MOST_MEMBERS or left <= 0:
            raise _too_large()
        if name is not None and name not in found:
            content = member.read(left + 1)
            left -= len(content)
            found[name] = content
    if left < 0:
        raise _too_large()
    return found


def _within(path: str) -> str | None:
    """`beir/scifact/qrels/test.tsv` is `qrels/test.tsv`; what else lies there is passed over."""
    parts = PurePosixPath(path).parts
    names = {"/".join(parts[-2:]), parts[-1]} if parts else set()
    return next((name for name in (QUERIES, *ALL_QRELS) if name in names), None)


def _zipped(content: bytes) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            if not entry.is_dir() and entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                with archive.open(entry) as member:
                    yield entry.filename, member


def _tarred(content: bytes) -> Iterator[tuple[str, IO[bytes]]]:
    # Unpacked here rather than by tarfile, which would read headers of any length.
    unpacked = zlib.decompressobj(_GZIP).decompress(content, LARGEST + 1)
    if len(unpacked) > LARGEST:
        raise _too_large()
    with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
        for entry in tar:
            member = tar.extractfile(entry) if entry.isfile() else None
            if member is not None:
                yield entry.name, member


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest(f"{name} is not text in UTF-8.") from None


def _too_large() -> LimitExceeded:
    return LimitExceeded(
        f"A packed query set holds up to {_MOST_MEMBERS:,} files and {LARGEST:,} bytes. Leave the corpus out."
    )
