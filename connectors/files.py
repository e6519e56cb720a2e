"""Files under one folder: Markdown, PDF, office files and whatever else the parsers read.

The root is the only way in: `connectors.folders` follows no symlink, and names come from the listing alone.
"""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property, partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from connectors.base import Change, Check, Checkpoint, Cursor, Failure, Item, Upsert
from connectors.errors import FatalSourceError, SkippableItemError
from connectors.folders import Root
from connectors.globs import compile_globs

DEFAULT_EXCLUDES = (
    "**/.*",  # hidden files and folders: .git, .svn, .hg, .venv, .env, .DS_Store
    "**/CVS",
    "**/node_modules",
    "**/__pycache__",
    "**/~$*",  # lock files of office programs
    "**/*~",
    "**/*.tmp",
    "**/*.temp",
    "**/*.bak",
    "**/*.swp",
    "**/*.part",
    "**/*.crdownload",
    "**/Thumbs.db",
    "**/desktop.ini",
    "**/lost+found",
    "**/$RECYCLE.BIN",
    "**/System Volume Information",
    "**/@eaDir",
)
ITEMS_PER_CHECKPOINT = 100
CHECK_LIMIT = 10_000
MAX_PATH_BYTES = 1024

# The built-in table only: what the machine's own mime.types says would make two machines differ.
_MEDIA_TYPES = mimetypes.MimeTypes().types_map[True] | {
    ".adoc": "text/asciidoc",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".epub": "application/epub+zip",
    ".js": "text/javascript",
    ".log": "text/plain",
    ".markdown": "text/markdown",
    ".md": "text/markdown",
    ".mdx": "text/markdown",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".rst": "text/x-rst",
    ".rtf": "application/rtf",
    ".text": "text/plain",
    ".toml": "application/toml",
    ".xhtml": "application/xhtml+xml",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}


def _plain_root(root: Path) -> Path:
    if not root.is_absolute() or ".." in root.parts:
        raise ValueError("must be an absolute path without '..', such as /srv/handbook")
    if "\0" in str(root) or not _is_text(str(root)):
        raise ValueError("must be plain text")
    return root


def _plain_glob(glob: str) -> str:
    if not {"", ".", ".."}.isdisjoint(glob.split("/")):
        raise ValueError("must be relative to the root, as in docs/** or **/*.md, without '.', '..' or empty parts")
    return glob


Glob = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_plain_glob)]


class FilesConfig(BaseModel):
    """Which files of which folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="Files in a folder")

    root: Annotated[Path, AfterValidator(_plain_root)] = Field(
        description="Absolute path of the folder to read, on the machine of the workers; no part may be a symlink.",
        examples=["/srv/handbook"],
    )
    include: tuple[Glob, ...] = Field(
        ("**/*",),
        min_length=1,
        max_length=200,
        description="Globs of the files to read, matched against the path relative to the root.",
        examples=[["**/*.md", "policies/**"]],
    )
    exclude: tuple[Glob, ...] = Field(
        (),
        max_length=200,
        description="Globs of files and folders to leave out; they win over include, and a folder goes with all in it.",
        examples=[["**/drafts", "archive/**"]],
    )
    default_excludes: bool = Field(
        True,
        description="Also leave out hidden files and folders, version control, caches, lock and temporary files.",
    )
    max_file_bytes: int = Field(
        100 * 1024 * 1024,
        ge=1,
        le=1024**3,
        description="Largest file to read, in bytes; a larger one is reported as failed.",
    )


class _Entry(NamedTuple):
    """A file to yield or a folder to descend into; `path` is relative to the root, with `/`."""

    path: str
    is_folder: bool
    size: int
    mtime_ns: int


class FilesConnector:
    """Every regular file below a folder, once, in the order of the names along its path."""

    Config: ClassVar[type[BaseModel]] = FilesConfig
    incremental: ClassVar[bool] = False
    reports_deletes: ClassVar[bool] = False
    reports_acl: ClassVar[bool] = False

    def __init__(self, config: FilesConfig) -> None:
        self._config = config
        self._root = Root(config.root)

    def check(self) -> Check:
        """Count up to CHECK_LIMIT files. Raises FatalSourceError or RetryableSourceError, naming what to do."""
        seen = [entry.path for entry in islice(self._walk(""), CHECK_LIMIT)]
        return Check(items=len(seen), sample=tuple(_printable(path) for path in seen[:5]))

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:
        """Yield the whole listing, or after {"after": path, "root": its identity} the rest of it.

        Raises FatalSourceError or RetryableSourceError when any folder cannot be listed.
        """
        root = (cursor or {}).get("root") or self._root.identity()
        self._demand_same(root)
        after, total = self._position(cursor)
        yield Checkpoint({"after": after, "total": total, "root": root}, total=total)
        for count, entry in enumerate(self._walk(after), start=1):
            yield self._change(entry)
            if _is_text(entry.path):
                after = entry.path
            if count % ITEMS_PER_CHECKPOINT == 0:
                self._demand_same(root)
                yield Checkpoint({"after": after, "total": total, "root": root}, total=total)
        self._demand_same(root)
        self._list("")  # raises when nothing is left
        yield Checkpoint({}, complete=True, total=total)

    def _position(self, cursor: Cursor | None) -> tuple[str, int]:
        """Where to go on and how many items there are in all; a cursor that is not ours starts over."""
        after = (cursor or {}).get("after", "")
        total = (cursor or {}).get("total")
        return (
            after if isinstance(after, str) else "",
            total if isinstance(total, int) else sum(1 for _ in self._walk("")),
        )

    def _demand_same(self, root: list[int]) -> None:
        """Folders of a share that is gone are missing like deleted ones: nothing behind that may be kept as listed.

        Not tried again by itself: the rest of the listing would be that of the other folder.
        """
        if self._root.identity() != root:
            raise FatalSourceError(
                f"The folder {str(self._config.root)!r} became another one while it was listed, as when a share is "
                "unmounted. Mount it again, then sync.",
                code="folder_replaced",
            )

    # --- listing --------------------------------------------------------------------------

    def _walk(self, after: str) -> Iterator[_Entry]:
        """Files behind `after`, depth first. Paths compare part by part, so a folder sorts with its contents."""
        done = tuple(after.split("/")) if after else ()
        levels = [iter(self._list(""))]
        while levels:
            entry = next(levels[-1], None)
            if entry is None:
                levels.pop()
                continue
            here = tuple(entry.path.split("/"))
            if entry.is_folder and here >= done[: len(here)]:
                levels.append(iter(self._list(entry.path)))
            elif not entry.is_folder and here > done:
                yield entry

    def _list(self, folder: str) -> list[_Entry]:
        """What counts in one folder, sorted. Nothing of a folder that has gone since its parent was listed."""
        found = self._root.scan(folder)
        if not found and not folder:
            raise FatalSourceError(
                f"The folder {str(self._config.root)!r} has nothing in it at all, as when a share is not mounted. "
                "Mount it, or put the first file there, and sync again.",
                code="root_empty",
            )
        prefix = f"{folder}/" if folder else ""
        entries = (self._entry(prefix + name, status) for name, status in found)
        return sorted(entry for entry in entries if entry is not None)

    def _entry(self, path: str, status: os.stat_result) -> _Entry | None:
        """None for what is left out: by a glob, or because it is neither a regular file nor a folder."""
        is_folder, is_file = stat.S_ISDIR(status.st_mode), stat.S_ISREG(status.st_mode)
        if not (is_folder or is_file) or self._excluded.fullmatch(path):
            return None
        if is_file and not self._included.fullmatch(path):
            return None
        # A folder without a usable name is yielded as an item, to be reported; no name below it would be better.
        return _Entry(path, is_folder and _unusable(path) is None, status.st_size, status.st_mtime_ns)

    @cached_property
    def _included(self) -> re.Pattern[str]:
        return compile_globs(self._config.include)

    @cached_property
    def _excluded(self) -> re.Pattern[str]:
        return compile_globs(self._config.exclude + (DEFAULT_EXCLUDES if self._config.default_excludes else ()))

    # --- items ----------------------------------------------------------------------------

    def _change(self, entry: _Entry) -> Change:
        problem = _unusable(entry.path)
        if problem is None and entry.size > self._config.max_file_bytes:
            problem = ("too_large", self._too_large(entry.size))
        if problem is not None:
            return Failure(_reported_id(entry.path), *problem)
        return Upsert(self._item(entry))

    def _item(self, entry: _Entry) -> Item:
        path = PurePosixPath(entry.path)
        return Item(
            external_id=entry.path,
            title="",  # the document's own title stands, and the file's name where it has none
            media_type=_MEDIA_TYPES.get(path.suffix.lower()),
            version_tag=f"{entry.size}:{entry.mtime_ns}",
            uri=(self._config.root / path).as_uri(),
            read=partial(self._read, entry.path),
            metadata=_metadata(path, entry),
        )

    def _read(self, path: str) -> bytes:
        """The bytes of one file. Raises SkippableItemError, or for the whole source Fatal- or RetryableSourceError."""
        content = self._root.read(path, self._config.max_file_bytes + 1)
        if len(content) > self._config.max_file_bytes:
            raise SkippableItemError(self._too_large(len(content)), code="too_large")
        return content

    def _too_large(self, size: int) -> str:
        return (
            f"The file has {size:,} bytes or more, the limit is {self._config.max_file_bytes:,}. "
            "Split it, or raise max_file_bytes of the source."
        )


def _unusable(path: str) -> tuple[str, str] | None:
    """Code and message when a path cannot be the id of a document."""
    if not _is_text(path):
        return "undecodable_name", "The name is not valid UTF-8. Rename the file or folder, and sync again."
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        return "path_too_long", (
            f"The path below the root is longer than {MAX_PATH_BYTES} bytes. Move the file or folder up, or shorten "
            "the names, and sync again."
        )
    return None


def _reported_id(path: str) -> str:
    """The path in a form that can be stored and told apart, for files that have no id."""
    readable = os.fsencode(path).decode("utf-8", "backslashreplace")
    if len(readable.encode()) <= MAX_PATH_BYTES:
        return readable
    return f"{readable[:200]}…{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"


def _is_text(path: str) -> bool:
    """False when bytes of the name were not UTF-8; Python then carries them as lone surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    """One line without control characters, fit for a terminal. The joiners that scripts and emoji need stay."""
    return "".join(char if char.isprintable() or char in "\u200c\u200d" else " " for char in text)


def _metadata(path: PurePosixPath, entry: _Entry) -> dict[str, Any]:
    """Keys path, folder ("" at the root), extension (lower case, no dot), size (bytes), modified_at (RFC 3339)."""
    known: dict[str, Any] = {
        "path": entry.path,
        "folder": "" if path.parent == PurePosixPath() else str(path.parent),
        "extension": path.suffix.lower().removeprefix("."),
        "size": entry.size,
    }
    # A file system can hold times outside the years that a date can; such a file has no date.
    with suppress(ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(entry.mtime_ns // 1_000_000_000, UTC)
        known["modified_at"] = moment.isoformat().replace("+00:00", "Z")
    return known
