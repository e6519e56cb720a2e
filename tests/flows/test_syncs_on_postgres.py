"""Clients and workers on one source at the same moment, in transactions of their own. Needs a Postgres."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_service.db import sources
from rag_service.ingest.intake import Intake
from tests.chaos.mutants import MUTANTS
from tests.conftest import Service, Started, Team, settings_for
from tests.flows.test_sync_interleavings import FILES, folder, make, seen

servers = pytest.importorskip("tests.distributed.servers", reason="there is no Postgres to start here")
__all__ = ["folder"]

# Long enough for what nothing holds up.
_A_MOMENT_S = 1.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with servers.postgres_server() as postgres:
        url = postgres.new_database("syncs").replace("postgresql://", "postgresql+psycopg://")
        settings = settings_for(tmp_path_factory.mktemp("syncs"), database_url=url)
        with Started(settings, worker=False) as started:
            yield started


def test_nothing_is_written_with_the_former_acl_while_a_new_one_is_on_its_way(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = service.new_team()
    source = make(team, folder, acl={"groups": ["staff"]})
    assert team.manager.post(f"/v1/sources/{source}/sync").status_code == 202
    change = Intake.change_default_acl
    left = []

    def changing(self: Intake, *arguments: Any) -> int:
        changed = change(self, *arguments)
        left.append(threading.Thread(target=service.work))
        left[0].start()
        left[0].join(_A_MOMENT_S)
        return changed

    monkeypatch.setattr(Intake, "change_default_acl", changing)
    assert team.admin.patch(f"/v1/sources/{source}", json={"acl": {"groups": ["board"]}}).status_code == 200
    left[0].join()
    assert [len(documents) for documents in (*seen(team, "staff"), *seen(team, "board"))] == [0, 0, FILES, FILES]


def asked_for_twice_at_once(team: Team, folder: Path) -> list[str]:
    """The syncs of a source that two ask for, the second before the first has committed."""
    source = make(team, folder)
    started: list[str] = []

    def second() -> None:
        started.append(team.manager.post(f"/v1/sources/{source}/sync").json()["job_id"])

    other = threading.Thread(target=second)
    runtime = team.service.runtime
    with runtime.database.transaction() as transaction:
        started.append(runtime.syncer.start(transaction, sources.get(transaction.connection, team.id, source)))
        other.start()
        other.join(_A_MOMENT_S)
    other.join()
    return started


def test_whoever_asks_for_a_sync_at_the_same_moment_gets_the_same(service: Service, folder: Path) -> None:
    first, second = asked_for_twice_at_once(service.new_team(), folder)
    assert first == second


def test_starting_syncs_without_turns_is_caught(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MUTANTS["no_turns"](monkeypatch)
    first, second = asked_for_twice_at_once(service.new_team(), folder)
    assert first != second
