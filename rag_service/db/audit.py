"""The audit log: append-only, each entry chained to the one before it by SHA-256.

hash = SHA-256(former hash + "\\n" + canonical JSON of the entry). The head of the chain is locked for the moment
between the last write of a transaction and its commit, so that several processes may append to one chain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, Row, Select, insert, select, update

from rag_service.db.authors import Author, current_author
from rag_service.db.pages import Page, number_of
from rag_service.db.tables import audit_head, audit_log
from rag_service.types import utc_now

Outcome: TypeAlias = Literal["done", "refused"]

GENESIS = "0" * 64
_AT_ONCE = 1_000
# As many as 64 bits hold of any number.
_DIGITS = 18
BEFORE_ALL = -(2**63)


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened: `target` is an id; `before` and `after` hold what decides on access, never secrets or texts."""

    action: str
    target: str
    team_id: str | None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome = "done"
    author: Author = field(default_factory=current_author)
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """An entry in its place of the chain."""

    seq: int
    at: datetime
    team_id: str | None
    author: Mapping[str, Any]
    action: str
    target: str
    outcome: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    detail: Mapping[str, Any]
    hash: str

    def content(self) -> dict[str, Any]:
        """Everything but the hash, as JSON has it: what the hash covers, and what is exported."""
        return {
            "seq": self.seq,
            "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "team_id": self.team_id,
            "author": dict(self.author),
            "action": self.action,
            "target": self.target,
            "outcome": self.outcome,
            "before": None if self.before is None else dict(self.before),
            "after": None if self.after is None else dict(self.after),
            "detail": dict(self.detail),
        }

    def exported(self) -> str:
        """One line of JSON Lines, which `parsed` reads again."""
        return json.dumps({**self.content(), "hash": self.hash}, ensure_ascii=False)

    def after_hash(self, former: str) -> str:
        """The hash that this entry has after an entry of the hash `former`."""
        canonical = json.dumps(self.content(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(f"{former}\n{canonical}".encode()).hexdigest()

    def row(self) -> dict[str, Any]:
        return {**self.content(), "at": self.at, "hash": self.hash}

    @classmethod
    def parsed(cls, line: str) -> Recorded:
        """An entry as it was exported. Raises ValueError when it is none."""
        try:
            read = json.loads(line)
            return cls(**{**{name: read[name] for name in cls.__slots__}, "at": datetime.fromisoformat(read["at"])})
        except (KeyError, TypeError) as error:
            raise ValueError("not an entry of the audit log") from error


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What a listing is narrowed to; None means any. `action` may end in `*`. `since` counts in, `until` does not."""

    team_id: str | None = None
    action: str | None = None
    target: str | None = None
    key_id: str | None = None
    request_id: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def append(connection: Connection, entries: Sequence[Entry]) -> None:
    """Chain and write entries. To be the last thing before the commit: it locks the head of the chain until then."""
    head = connection.execute(select(audit_head).where(audit_head.c.id == 1).with_for_update()).one()
    seq, former, now = int(head.seq), str(head.hash), utc_now()
    rows = []
    for seq, entry in enumerate(entries, start=seq + 1):  # noqa: B020 - counts on from the head
        recorded = _recorded(entry, seq, now)
        former = recorded.after_hash(former)
        rows.append(replace(recorded, hash=former).row())
    connection.execute(insert(audit_log), rows)
    connection.execute(update(audit_head).where(audit_head.c.id == 1).values(seq=seq, hash=former))


def page(connection: Connection, narrowing: AuditFilter, *, limit: int, after: str | None) -> Page[Recorded]:
    """Newest first. `after` is the `next_cursor` of the page before. Raises InvalidRequest for one that is none."""
    query = _narrowed(narrowing)
    if after is not None:
        query = query.where(audit_log.c.seq < number_of(after, _DIGITS))
    rows = connection.execute(query.order_by(audit_log.c.seq.desc()).limit(limit + 1)).all()
    shown = [_from_row(row) for row in rows[:limit]]
    return Page(shown, str(shown[-1].seq) if len(rows) > limit else None)


def in_order(connection: Connection, narrowing: AuditFilter, *, last: int = BEFORE_ALL) -> Iterator[Recorded]:
    """Oldest first, those after entry `last`: all there is at the time of each of its steps."""
    while True:
        query = _narrowed(narrowing).where(audit_log.c.seq > last).order_by(audit_log.c.seq).limit(_AT_ONCE)
        rows = connection.execute(query).all()
        yield from map(_from_row, rows)
        if len(rows) < _AT_ONCE:
            return
        last = int(rows[-1].seq)


def head_of(connection: Connection) -> tuple[int, str]:
    """(number of entries, hash of the last) as the chain's head says. (0, "") when the head itself is gone."""
    row = connection.execute(select(audit_head).where(audit_head.c.id == 1)).first()
    return (0, "") if row is None else (int(row.seq), str(row.hash))


def newest(connection: Connection, action: str) -> Recorded | None:
    query = _narrowed(AuditFilter(action=action)).order_by(audit_log.c.seq.desc()).limit(1)
    row = connection.execute(query).first()
    return None if row is None else _from_row(row)


def _recorded(entry: Entry, seq: int, now: datetime) -> Recorded:
    return Recorded(
        seq=seq,
        at=entry.at or now,
        team_id=entry.team_id,
        author=entry.author.described(),
        action=entry.action,
        target=entry.target,
        outcome=entry.outcome,
        before=entry.before,
        after=entry.after,
        detail=entry.detail,
        hash="",
    )


def _narrowed(narrowing: AuditFilter) -> Select[Any]:
    query = select(audit_log)
    for name in ("team_id", "target", "outcome"):
        if (value := getattr(narrowing, name)) is not None:
            query = query.where(audit_log.c[name] == value)
    for name in ("key_id", "request_id"):
        if (value := getattr(narrowing, name)) is not None:
            query = query.where(audit_log.c.author[name].as_string() == value)
    if narrowing.action is not None:
        family, star, _ = narrowing.action.partition("*")
        same = audit_log.c.action.startswith(family, autoescape=True) if star else audit_log.c.action == family
        query = query.where(same)
    if narrowing.since is not None:
        query = query.where(audit_log.c.at >= narrowing.since)
    if narrowing.until is not None:
        query = query.where(audit_log.c.at < narrowing.until)
    return query


def _from_row(row: Row[Any]) -> Recorded:
    return Recorded(**{name: row._mapping[name] for name in Recorded.__slots__})
