"""The names of indexes: they become folders and collection names, so they are letters, digits, `-` and `_`."""

from __future__ import annotations

import re

from rag_service.errors import Conflict, InvalidRequest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


def checked(index: str) -> str:
    """The name itself. Raises InvalidRequest for one that could leave its folder."""
    if not _NAME.fullmatch(index):
        raise InvalidRequest(f"An index cannot be named {index!r}: use up to 128 letters, digits, '-' and '_'.")
    return index


def other_spec(index: str) -> Conflict:
    return Conflict(f"The index {index!r} exists with other dimensions. Build a new index version instead.")
