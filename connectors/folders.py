"""Listing and reading below one folder without ever following a symlink.

Every folder is opened one name at a time, relative to the descriptor of the one above, and refused when it is a
symlink; on the way to the root as well as below it. What is swapped between two moments therefore leads nowhere:
descriptors hold this, not comparisons of paths.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from connectors.errors import FatalSourceError, RetryableSourceError, SkippableItemError, SourceError

# O_PATH (Linux) needs only the right to pass through a folder, as the kernel itself does; elsewhere read it is.
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY

# What the kernel says of a symlink, or of something else, where a folder or a file was expected.
_NOT_THAT_KIND = {errno.ENOTDIR, errno.ELOOP}
# Troubles of the machine or the network, not of one file.
_PASSING_TROUBLE = {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENOTCONN,
}


@dataclass(frozen=True, slots=True)
class Root:
    """A folder, by its absolute path. Paths given to its methods are relative to it, with `/`; "" is itself."""

    path: Path

    def scan(self, folder: str) -> list[tuple[str, os.stat_result]]:
        """Name and status of everything in a folder; of symlinks their own status. A folder that has gone is empty.

        Raises FatalSourceError or RetryableSourceError: a listing that left out a folder would look like a deletion
        of all in it.
        """
        try:
            with self._folder(folder) as here:
                return _scan(here)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unlistable(folder or str(self.path), error) from error

    def identity(self) -> list[int]:
        """Device and number: tells it from another folder at the same path, such as the one a share was mounted over.

        Raises as `scan`.
        """
        with self._folder("") as here:
            status = os.fstat(here)
        return [status.st_dev, status.st_ino]

    def read(self, path: str, limit: int) -> bytes:
        """The first `limit` bytes of a regular file.

        Raises SkippableItemError (code vanished or unreadable), or what `scan` raises when the root is in trouble.
        """
        folder, _, name = path.rpartition("/")
        try:
            with self._folder(folder) as here:
                return _read_regular(here, _below(name), limit)
        except OSError as error:
            raise _unreadable(error) from error

    @contextmanager
    def _folder(self, path: str) -> Iterator[int]:
        """A descriptor of a folder. Raises OSError; for what is wrong with the root itself SourceError."""
        try:
            root = _descend(os.open("/", _PASS), self.path.parts[1:])
        except OSError as error:
            raise self._unreachable(error) from error
        here = _descend(root, path.split("/") if path else ())
        try:
            yield here
        finally:
            os.close(here)

    def _unreachable(self, error: OSError) -> SourceError:
        """Why the root cannot be opened, and what to do."""
        if error.errno == errno.ENOENT:
            return FatalSourceError(
                f"There is no folder {str(self.path)!r} on this machine. Correct root, or mount what belongs there.",
                code="root_missing",
            )
        if error.errno not in _NOT_THAT_KIND:
            return _unlistable(str(self.path), error)
        real = Path(os.path.realpath(self.path))
        if real != self.path:
            return FatalSourceError(
                f"The way to {str(self.path)!r} leads through a symlink. Set root to {str(real)!r}.",
                code="root_is_symlink",
            )
        return FatalSourceError(
            f"{str(self.path)!r} is not a folder. Set root to the folder that holds the files.",
            code="root_not_a_folder",
        )


def _descend(here: int, names: Sequence[str]) -> int:
    """The folder at `names` below `here`, which is closed in exchange. Raises OSError, also at a symlink."""
    for name in names:
        try:
            below = os.open(_below(name), _PASS, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here


def _below(name: str) -> str:
    """The name, when it is one of something in a folder: neither the folder nor what is above it."""
    if name in ("", ".", "..") or "/" in name:
        raise FileNotFoundError(errno.ENOENT, "not the name of a file")
    return name


def _scan(here: int) -> list[tuple[str, os.stat_result]]:
    found = []
    folder = os.open(".", _LIST, dir_fd=here)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
    finally:
        os.close(folder)
    return found


def _read_regular(here: int, name: str, limit: int) -> bytes:
    """Up to `limit` bytes of a file. A pipe or a device is not even opened, as opening one can act on it."""
    _demand_regular(os.stat(name, dir_fd=here, follow_symlinks=False))
    file = os.open(name, _READ, dir_fd=here)
    try:
        _demand_regular(os.fstat(file))
        with os.fdopen(file, "rb", closefd=False) as content:
            return content.read(limit)
    finally:
        os.close(file)


def _demand_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(errno.ENOENT, "no regular file is here any more")


def _unlistable(folder: str, error: OSError) -> SourceError:
    reason = os.strerror(error.errno or errno.EIO)
    if isinstance(error, PermissionError):
        return FatalSourceError(
            f"The folder {folder!r} cannot be listed: {reason}. Give the user of the service the right to read and "
            "enter it, or leave it out with exclude.",
            code="folder_unreadable",
        )
    return RetryableSourceError(f"The folder {folder!r} cannot be listed now: {reason}.", code="folder_unavailable")


def _unreadable(error: OSError) -> SourceError:
    reason = os.strerror(error.errno or errno.EIO)
    if isinstance(error, FileNotFoundError) or error.errno in _NOT_THAT_KIND:
        return SkippableItemError(
            "The file went away, or became something else, after it was listed. The next sync will see what is there.",
            code="vanished",
        )
    if error.errno in _PASSING_TROUBLE:
        return RetryableSourceError(f"Files cannot be read now: {reason}.", code="folder_unavailable")
    return SkippableItemError(
        f"The file cannot be read: {reason}. Give the user of the service the right to read it, and sync again.",
        code="unreadable",
    )
