"""What documents a benchmark has written, who may read which of them when, and what answers get wrong of that."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class State:
    """What may be true of a document from `since` to `until`, by a monotonic clock. `reader` None: it is deleted."""

    reader: str | None
    since: float
    until: float = math.inf

    def admits(self, group: str) -> bool:
        return self.reader in (PUBLIC, group)


@dataclass
class Ledger:
    """A write may take hold as soon as it is sent, and must have when it is acknowledged; one whose answer was lost
    may or may not have.
    """

    _states: dict[str, list[State]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sent(self, name: str, reader: str | None) -> State:
        state = State(reader, time.monotonic())
        with self._lock:
            self._states.setdefault(name, []).append(state)
        return state

    def acknowledged(self, name: str, state: State) -> None:
        """What was true before this write is over."""
        now = time.monotonic()
        with self._lock:
            known = self._states[name]
            place = known.index(state)
            self._states[name] = [
                replace(one, until=min(one.until, now)) if at < place else one for at, one in enumerate(known)
            ]

    def may_show(self, name: str, group: str, began: float, ended: float) -> bool:
        """Whether an answer given between these times may hold the document for a member of this group."""
        with self._lock:
            states = list(self._states.get(name, ()))
        return any(one.admits(group) for one in states if one.since <= ended and one.until >= began)

    def of(self, name: str) -> str | None:
        """Who may read it, after the last write."""
        with self._lock:
            return self._states[name][-1].reader


@dataclass
class Faults:
    """What went wrong, counted over all answers."""

    answers: int = 0
    errors: int = 0
    while_down: int = 0  # asked while the process was killed or starting
    empty: int = 0
    mixed: int = 0
    forbidden: int = 0
    examples: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, example: str = "") -> None:
        with self._lock:
            setattr(self, kind, getattr(self, kind) + 1)
            if example and len(self.examples) < 5:
                self.examples.append(f"{kind}: {example}")

    def judge(
        self, results: Sequence[Mapping[str, Any]], ledger: Ledger, group: str, times: tuple[float, float]
    ) -> None:
        """Count what one answer to a member of `group` got wrong. Questions are such that something always matches."""
        self.note("answers")
        if not results:
            self.note("empty")
        if is_mixed(results):
            self.note("mixed", str({hit["provenance"]["index_version"] for hit in results}))
        for hit in results:
            if not ledger.may_show(hit["external_id"], group, *times):
                self.note("forbidden", hit["external_id"])

    def counted(self) -> dict[str, int]:
        kinds = ("answers", "errors", "while_down", "empty", "mixed", "forbidden")
        return {kind: getattr(self, kind) for kind in kinds}


def is_mixed(results: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an answer holds two index versions, or two versions of one document."""
    indexes = {hit["provenance"]["index_version"] for hit in results}
    documents = {hit["document_id"] for hit in results}
    versions = {(hit["document_id"], hit["provenance"]["version"]) for hit in results}
    return len(indexes) > 1 or len(versions) > len(documents)
