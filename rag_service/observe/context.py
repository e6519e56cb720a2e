"""What is being worked on at this moment: named in every log line, and carried by the jobs that follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from rag_service.observe import spans

_current: ContextVar[dict[str, str] | None] = ContextVar("rag_work", default=None)

# What a job keeps of the work that caused it, beside the trace.
_CARRIED = ("request_id",)


@contextmanager
def about(**known: str | None) -> Iterator[None]:
    """Inside the block, log lines also name what is known: `about(job_id=...)`. What is None is left out."""
    token = _current.set({**current(), **_named(known)})
    try:
        yield
    finally:
        _current.reset(token)


def note(**known: str | None) -> None:
    """Name what has become known since the innermost `about` began; of no effect outside of one."""
    inner = _current.get()
    if inner is not None:
        inner.update(_named(known))


def current() -> Mapping[str, str]:
    return _current.get() or {}


def carried() -> dict[str, str]:
    """What a job stores so that its worker, in another process and later, can name where it comes from."""
    now = current()
    return {name: now[name] for name in _CARRIED if name in now} | spans.carried()


def _named(known: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in known.items() if value}
