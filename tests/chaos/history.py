"""What clients did and saw, and checkers that say whether a correct service could have answered so.

A history is a list of operations, each with the moment of its call and of its answer. An operation that was answered
with an error has not happened; one without an answer may have, at any time after its call. Every checker returns what
is wrong, one line each; an empty list is a pass.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["ok", "fail", "unknown"]
FOREVER = 1 << 62
# What a deleted document holds.
GONE = None


@dataclass(frozen=True, slots=True)
class Event:
    """`op` is upsert, delete, acl or read. `value`: what was written, or seen (GONE: nothing).

    `readers`: whom an upsert or acl admits; None: as before. `reader`: who read.
    """

    op: str
    id: str
    value: Any
    invoked: int
    returned: int = FOREVER
    outcome: Outcome = "unknown"
    readers: frozenset[str] | None = None
    reader: str = ""

    @property
    def writes(self) -> bool:
        return self.op in ("upsert", "delete")


class NoAnswerError(Exception):
    """Raised within `History.doing`: the operation may have happened or not."""


class RefusedError(Exception):
    """Raised within `History.doing`: the service said that nothing has happened."""


@dataclass
class History:
    events: list[Event] = field(default_factory=list)
    _clock: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def doing(
        self, op: str, name: str, value: Any = GONE, *, readers: Iterable[str] | None = None, reader: str = ""
    ) -> Iterator[Callable[[Any], None]]:
        """Put the operation of this block on record. The block gets a function to tell what it saw."""
        admitted = None if readers is None else frozenset(readers)
        event = Event(op, name, value, self._now(), readers=admitted, reader=reader)
        seen = [value]
        outcome: Outcome = "unknown"
        try:
            yield lambda what: seen.__setitem__(0, what)
            outcome = "ok"
        except NoAnswerError:
            pass
        except RefusedError:
            outcome = "fail"
        finally:
            now = self._now()
            returned = FOREVER if outcome == "unknown" else now
            with self._lock:
                self.events.append(replace(event, value=seen[0], returned=returned, outcome=outcome))

    def of(self, *ops: str) -> list[Event]:
        return [event for event in self.events if event.op in ops]

    def count(self, outcome: Outcome) -> int:
        return sum(event.outcome == outcome for event in self.events if event.op != "read")

    def save(self, path: Path) -> None:
        """One JSON object per line, to look into when a run has failed."""
        path.write_text("\n".join(json.dumps(asdict(event), default=sorted) for event in self.events))

    def _now(self) -> int:
        with self._lock:
            self._clock += 1
            return self._clock


def lost(history: History, final: Mapping[str, Any]) -> list[str]:
    """Acknowledged writes are a subset of what is there in the end: nothing lost, nothing made up."""
    wrong = []
    for name, writes in _by_id(event for event in history.events if event.writes).items():
        possible = [write.value for write in _standing(writes, FOREVER, FOREVER)]
        if not any(write.outcome == "ok" for write in writes):
            possible.append(GONE)
        if final.get(name, GONE) not in possible:
            wrong.append(f"{name} holds {final.get(name, GONE)!r} in the end, not one of {possible!r}")
    known = {event.id for event in history.events if event.writes}
    return wrong + [f"{name} was never written" for name in final.keys() - known]


def resurrected(history: History) -> list[str]:
    """What was deleted is not seen again, unless somebody put it in again."""
    writes = _by_id(event for event in history.events if event.writes)
    return [
        f"{read.id} was seen by {read.reader or 'somebody'} at {read.invoked} although it was deleted"
        for read in history.of("read")
        if read.value is not GONE
        and all(write.op == "delete" for write in _standing(writes.get(read.id, []), read.invoked, read.returned))
    ]


def went_back(history: History) -> list[str]:
    """Who has seen a version sees no older one later. For histories whose values grow with every upsert."""
    wrong = []
    for name, reads in _by_id(read for read in history.of("read") if read.value is not GONE).items():
        for seen in reads:
            later = [read for read in reads if read.invoked > seen.returned and read.value < seen.value]
            wrong += [f"{name}: version {read.value} was seen after version {seen.value}" for read in later]
    return wrong


def leaked(history: History) -> list[str]:
    """Nobody sees what no ACL in force between his question and his answer admits him to."""
    grants = _by_id(event for event in history.events if event.readers is not None)
    return [
        f"{read.reader} saw {read.id} at {read.invoked}"
        for read in history.of("read")
        if read.value is not GONE
        and not any(
            read.reader in (grant.readers or ())
            for grant in _standing(grants.get(read.id, []), read.invoked, read.returned)
        )
    ]


def _standing(writes: list[Event], since: int, until: int) -> list[Event]:
    """Those of the writes of one document that may have been in force at some moment between `since` and `until`."""
    done = [write for write in writes if write.outcome != "fail" and write.invoked < until]
    settled = [write for write in done if write.outcome == "ok" and write.returned < since]
    return [write for write in done if not any(later.invoked > write.returned for later in settled)]


def _by_id(events: Iterable[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        found[event.id].append(event)
    return found
