"""Who acts: set where a request, a job or a command begins, and read where the audit log is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Author:
    """`request_id` is the job's id where a worker acts. `user` and `groups`: on behalf of whom, if of anybody."""

    kind: Literal["admin_key", "key", "worker", "command", "service"]
    key_id: str | None = None
    key_name: str | None = None
    user: str | None = None
    groups: Sequence[str] | None = None
    address: str | None = None
    request_id: str | None = None

    def described(self) -> dict[str, Any]:
        """All that is known, as JSON has it."""
        known = {name: value for name, value in asdict(self).items() if value is not None}
        return known if self.groups is None else {**known, "groups": sorted(self.groups)}


_author: ContextVar[Author] = ContextVar("author", default=Author("service"))  # noqa: B039 - frozen


@contextmanager
def authored_by(author: Author) -> Iterator[None]:
    """What is done within the block, also in threads that are handed its context, is this author's."""
    before = _author.set(author)
    try:
        yield
    finally:
        _author.reset(before)


def current_author() -> Author:
    return _author.get()
