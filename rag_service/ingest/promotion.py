"""The switch from one index version of a collection to another, in one transaction that loses no write.

It happens only when the one that takes over has everything that answers. While a collection is written to all the
time that moment never comes by itself: so from the second attempt on, commits of new content wait for the few seconds
that the last documents take. Readers wait for nothing. A question that began before goes on with what it began with.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from rag_service.db import Database, builds, collections, indexed, outbox
from rag_service.db.builds import Build
from rag_service.errors import Conflict, TooBusy
from rag_service.ingest.builder import Builder
from rag_service.ingest.versions import Asked, Gate, Versions, not_in
from rag_service.types import IndexState, IndexVersion, utc_now

_PROMOTED_FROM = (IndexState.READY, IndexState.SOAKING)
_FORCED_FROM = (IndexState.BUILDING, IndexState.CATCHING_UP, *_PROMOTED_FROM)
_HOLD_S = 4.0
_BREATH_S = 0.2


@dataclass(frozen=True)
class Promotion:
    """`soak_s`: for how long the one that was left is kept up to date, so that one can go back."""

    database: Database
    builder: Builder
    versions: Versions
    soak_s: float
    patience_s: float = 60.0

    def promote(self, team_id: str, index: str, gate: Gate | None, asked: Asked, *, force: bool = False) -> Build:
        """Let `index` answer. Raises Conflict with the numbers when it is not ready or does not pass the gate, TooBusy
        when it could not catch up with what is written; with `force` only the last.
        """
        with self.database.read() as connection:
            found = builds.get(connection, team_id, index)
        states = _FORCED_FROM if force else _PROMOTED_FROM
        self._refuse_early(found, states)
        if gate is not None:
            found, judged = self.versions.evaluate(team_id, index, asked, gate)
            if not judged.passed and not force:
                raise Conflict(
                    f"The gate is not passed. {' '.join(judged.reasons)}",
                    code="gate_failed",
                    numbers=found.quality,
                )
        return self._switch(found, states, "promoted", force=force)

    def rollback(self, team_id: str, index: str) -> Build:
        """Let the one that answered before `index`, the active one, answer again."""
        with self.database.read() as connection:
            active = builds.get(connection, team_id, index)
            former = builds.former(connection, active.index.collection_id)
        if active.index.state != IndexState.ACTIVE:
            raise not_in(active, (IndexState.ACTIVE,))
        if former is None:
            raise Conflict(
                "No former index version is kept any more. Build one: `rag index build --help`.",
                code="nothing_to_go_to",
            )
        with self.database.read() as connection:
            target = builds.get(connection, team_id, former.id)
        return self._switch(target, (IndexState.SOAKING,), "rolled_back", left=active.index)

    def _refuse_early(self, found: Build, states: Collection[IndexState]) -> None:
        if found.index.state in states:
            return
        refusal = not_in(found, states)
        with self.database.read() as connection:
            left = builds.left(connection, found.index)
        if found.index.state in _FORCED_FROM:
            raise Conflict(
                f"The index version is {found.index.state}: {left.waiting} of {left.documents} documents are still to"
                " be built. Wait until it is ready.",
                code="not_ready",
                numbers={"state": found.index.state, "documents": left.documents, "behind": left.waiting},
            )
        raise refusal

    def _switch(
        self,
        target: Build,
        states: Collection[IndexState],
        action: str,
        *,
        force: bool = True,
        left: IndexVersion | None = None,
    ) -> Build:
        """`left`: the one that must be the active one still."""
        until = time.monotonic() + self.patience_s
        held: IndexVersion | None = None
        try:
            while True:
                active = self._active(target, left)
                self.builder.catch_up(target.index.id, until if held is None else time.monotonic() + _HOLD_S)
                if not force:
                    self._refuse_losses(target)
                if self._try(target, active, states, action):
                    return self._now(target)
                if time.monotonic() > until:
                    raise self._too_busy(target)
                if held is not None:
                    time.sleep(_BREATH_S)  # those who wait get through before they are held up again
                held = active
                self._hold(active, _HOLD_S)
        finally:
            if held is not None:
                self._hold(held, None)

    def _active(self, target: Build, left: IndexVersion | None) -> IndexVersion:
        with self.database.read() as connection:
            active = collections.active_index(connection, target.index.collection_id)
        if active.id == target.index.id:
            raise Conflict("The index version is the active one already.", code="active_already")
        if left is not None and active.id != left.id:
            raise Conflict("Another index version has become the active one meanwhile.", code="switched_meanwhile")
        return active

    def _try(self, target: Build, active: IndexVersion, states: Collection[IndexState], action: str) -> bool:
        index = target.index
        with self.database.transaction() as transaction:
            connection = transaction.connection
            if not builds.change(connection, index.id, states, paused=False):
                now = builds.find(connection, index.id)
                raise not_in(now or target, states)
            if not indexed.switch(connection, active, index, soak_s=self.soak_s):
                return False
            before, after = {"index_version": active.id}, {"index_version": index.id}
            transaction.audit(f"index_version.{action}", index.id, team=target.team_id, before=before, after=after)
            told = {"collection_id": index.collection_id, "collection": target.collection, "former": active.id}
            outbox.emit(transaction, "index.promoted", target.team_id, {**told, **after, "how": action})
            return True

    def _refuse_losses(self, target: Build) -> None:
        with self.database.read() as connection:
            lost = builds.lost_documents(connection, target.index)
        if lost:
            raise Conflict(
                f"{lost} documents that answer now could not be built into the index version, and would be missing."
                " See why with GET; `force` switches without them.",
                code="documents_missing",
                numbers={"failed": lost},
            )

    def _too_busy(self, target: Build) -> TooBusy:
        with self.database.read() as connection:
            left = builds.left(connection, target.index)
        return TooBusy(
            f"{left.waiting} documents were still to be built after {self.patience_s:.0f} s. Try again when fewer are"
            " written.",
            code="could_not_catch_up",
            numbers={"documents": left.documents, "behind": left.waiting},
        )

    def _hold(self, index: IndexVersion, seconds: float | None) -> None:
        until = None if seconds is None else utc_now() + timedelta(seconds=seconds)
        with self.database.transaction() as transaction:
            indexed.hold(transaction.connection, index, until)

    def _now(self, target: Build) -> Build:
        with self.database.read() as connection:
            return builds.get(connection, target.team_id, target.index.id)
