"""Rings for whoever brings index versions up to date."""

from __future__ import annotations

from dataclasses import dataclass

from rag_service.db import builds, collections
from rag_service.db.engine import Transaction
from rag_service.ingest.doorbell import Doorbell
from rag_service.types import IndexVersion, JobKind


@dataclass(frozen=True)
class BuildBell:
    doorbell: Doorbell

    def wake(self, transaction: Transaction, index: str, team_id: str) -> None:
        """Queue the job that brings `index` up to date, unless there is one already."""
        if not builds.is_at_work(transaction.connection, index):
            self.doorbell.add(transaction, JobKind.BUILD, team_id, payload={"index": index})

    def written(self, transaction: Transaction, index: IndexVersion) -> None:
        """A document answers with something new from `index`, the active one: the others are to get it too."""
        others = builds.others(transaction.connection, index)
        if others:
            team = collections.team_of(transaction.connection, index)
            for other in others:
                self.wake(transaction, other, team)
