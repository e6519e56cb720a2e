"""The same interleavings while index versions are built, promoted, left and dropped.

The catalogue in plain Python is that of `Simulation`: who may read which version of a document at every moment. An
index version must agree with it whenever it answers, and whenever it has caught up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rag_service.db import collections, indexed
from rag_service.ingest.builder import Builder
from rag_service.ingest.indexer import Indexer
from rag_service.ingest.removal import Removal
from tests.chaos.history import leaked, lost, resurrected, went_back
from tests.chaos.interleavings import READERS, Simulation, troubled
from tests.chaos.report import Report
from tests.conftest import Started, settings_for
from tests.index_builds import PATH, faults

_PIPELINES: tuple[dict[str, Any], ...] = (
    {},
    {"embedding": {"embedder": "hashing", "dimensions": 96}},
    {"chunking": {"tokens": 240}},
    {"chunking": {"context": "none"}, "embedding": {"embedder": "hashing", "dimensions": 32}},
)
_OF_INDEXES = 0.45
_LIVE = ("building", "catching_up", "ready", "soaking", "active")


@dataclass
class IndexSimulation(Simulation):
    """Clients who change documents, and an operator who changes what they are answered from."""

    _is_switching: bool = False

    def _client(self, *, first: bool = False) -> None:
        if first or self.dice.random() >= _OF_INDEXES:
            super()._client(first=first)
            return
        acts = {self._build: 3, self._promote: 5, self._roll_back: 3, self._pause: 1, self._cancel: 1}
        self.dice.choices(list(acts), list(acts.values()))[0]()
        self._read()
        self._read_all()

    def between_catching_up_and_switching(self) -> None:
        """A document is written and indexed at the worst moment."""
        if self._is_switching and self._name in self._versions and self.dice.random() < 0.5:
            self._is_switching = False  # once: the next attempt holds what is written back
            self._count("writes before a switch")
            holding, self._holding = self._holding, []
            armed, self._armed = self._armed, False
            try:
                self._upsert()
                self._work_once()
            finally:
                self._holding, self._armed = holding, armed

    def _build(self) -> None:
        body = {"pipeline": self.dice.choice(_PIPELINES), "priority": "high"}
        if self.team.admin.post(PATH, json=body).status_code == 201:
            self._count("builds")

    def _promote(self) -> None:
        if chosen := self._one_of("ready", "soaking", "catching_up"):
            self._is_switching = True
            answer = self.team.admin.post(f"{PATH}/{chosen}:promote", json={"force": self.dice.random() < 0.5})
            self._is_switching = False
            self._expect(answer.status_code, "promotions")

    def _roll_back(self) -> None:
        if chosen := self._one_of("active"):
            self._is_switching = True
            answer = self.team.admin.post(f"{PATH}/{chosen}:rollback")
            self._is_switching = False
            self._expect(answer.status_code, "rollbacks")

    def _pause(self) -> None:
        if chosen := self._one_of("building", "ready", "soaking"):
            action = self.dice.choice(("pause", "resume"))
            self._expect(self.team.admin.post(f"{PATH}/{chosen}:{action}").status_code, f"{action}s")

    def _cancel(self) -> None:
        if chosen := self._one_of("building", "ready"):
            self._expect(self.team.admin.post(f"{PATH}/{chosen}:cancel").status_code, "cancels")

    def _expect(self, status: int, what: str) -> None:
        if status == 200:
            self._count(what)
        elif status not in (409, 503):
            self.wrong.append(f"{what} answered {status}")

    def _one_of(self, *states: str) -> str | None:
        found = [one["id"] for one in self._versions_there() if one["state"] in states]
        return self.dice.choice(found) if found else None

    def _versions_there(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.team.admin.get(PATH, params={"limit": 100}).json()["data"]
        return sorted(listed, key=lambda one: one["number"])

    def _read_all(self) -> None:
        """All that a reader finds comes from one index version."""
        body = {"query": "version more doc", "as_user": {"user": self.dice.choice(READERS)}, "top_k": 50}
        answer = self._asking.post("/v1/retrieve", json=body)
        assert answer.status_code == 200, answer.text
        indexes = {hit["provenance"]["index_version"] for hit in answer.json()["results"]}
        if len(indexes) > 1:
            self.wrong.append(f"{len(indexes)} index versions in one answer")

    def _finish(self) -> None:
        for one in self._versions_there():
            if one["paused"] and one["state"] in _LIVE:
                self.team.admin.post(f"{PATH}/{one['id']}:resume")
        super()._finish()
        self.service.runtime.indexes.builder.look()
        super()._finish()

    def _compare(self) -> None:
        super()._compare()
        for one in self._versions_there():
            if one["state"] in _LIVE:
                told = faults(self.service, self.team, one["id"])
                self.wrong += [f"{self._name}: {one['state']} number {one['number']}: {fault}" for fault in told]


def interleave(folder: Path, seed: int, examples: int, *, until_wrong: bool = False) -> Report:
    """Run that many examples on one team, or up to the first that is not right."""
    with Started(settings_for(folder, trace_sample=0, lease_s=3600), worker=False) as service:
        simulation = IndexSimulation(service, service.new_team(), random.Random(seed))
        with troubled(simulation), _switches_troubled(simulation):
            for number in range(examples):
                simulation.example(number)
                if until_wrong and simulation.wrong:
                    break
        history = simulation.history
        wrong = simulation.wrong + resurrected(history) + leaked(history) + went_back(history)
        wrong += lost(history, simulation.final())
    numbers = {"examples": number + 1, **simulation.counted}
    return Report("index versions", seed, "builds, switches, clients, kills, zombies and errors", numbers, tuple(wrong))


def _switches_troubled(simulation: IndexSimulation) -> Any:
    patch = pytest.MonkeyPatch()
    catch_up = Builder.catch_up

    def catching_up(builder: Builder, *arguments: Any) -> bool:
        done = catch_up(builder, *arguments)
        simulation.between_catching_up_and_switching()
        return done

    patch.setattr(Builder, "catch_up", catching_up)
    return _Undone(patch)


class _Undone:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


# --- broken variants ----------------------------------------------------------------------------------


def switch_with_something_missing(patch: pytest.MonkeyPatch) -> None:
    """The switch does not look whether the one that takes over has everything."""
    switch = indexed.switch

    def blindly(*arguments: Any, **more: Any) -> bool:
        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(indexed, "behind", lambda *_: 0)
            return switch(*arguments, **more)

    patch.setattr(indexed, "switch", blindly)


def removal_from_the_active_one_only(patch: pytest.MonkeyPatch) -> None:
    """A deletion does not reach the index versions beside the one that answers."""

    def active_only(connection: Any, collection_id: str) -> list[str]:
        return [collections.active_index(connection, collection_id).id]

    purge = Removal._purge

    def purging(removal: Removal, *arguments: Any) -> bool:
        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(collections, "all_indexes", active_only)
            return purge(removal, *arguments)

    patch.setattr(Removal, "_purge", purging)


def access_of_the_active_one_only(patch: pytest.MonkeyPatch) -> None:
    """A change of access does not reach the index versions beside the one that answers."""
    update = Indexer._update

    def updating(indexer: Indexer, *arguments: Any) -> None:
        def active_only(connection: Any, collection_id: str) -> list[Any]:
            return [collections.active_index(connection, collection_id)]

        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(collections, "live_indexes", active_only)
            update(indexer, *arguments)

    patch.setattr(Indexer, "_update", updating)


MUTANTS: Mapping[str, Callable[[pytest.MonkeyPatch], None]] = {
    made.__name__: made
    for made in (
        switch_with_something_missing,
        removal_from_the_active_one_only,
        access_of_the_active_one_only,
    )
}
