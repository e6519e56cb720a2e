"""Clients and workers on one source at the same moment, in transactions of their own. Needs a Postgres."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_service.db import documents, sources, stranded
from rag_service.ingest.intake import Incoming, Intake, Target
from tests.chaos.mutants import MUTANTS
from tests.conftest import Service, Started, Team, settings_for
from tests.flows.test_sync_interleavings import FILES, AtTheEnd, at_the_end, cancel_sync, folder, make, seen, sync

servers = pytest.importorskip("tests.distributed.servers", reason="there is no Postgres to start here")
__all__ = ["at_the_end", "folder"]

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


def test_a_sync_whose_cancellation_is_on_its_way_removes_nothing(
    service: Service, folder: Path, at_the_end: AtTheEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = service.new_team()
    source = make(team, folder)
    sync(team, source)
    (folder / "0.md").unlink()
    begun, end = threading.Event(), stranded.end

    def slowly(*arguments: Any) -> list[str]:
        """As with many documents."""
        begun.set()
        time.sleep(_A_MOMENT_S)
        return end(*arguments)

    other = threading.Thread(target=cancel_sync, args=(team,))

    def begin() -> None:
        other.start()
        assert begun.wait(10)

    monkeypatch.setattr(stranded, "end", slowly)
    at_the_end(begin)
    job = sync(team, source)
    other.join()
    assert (job["state"], job["counters"].get("deleted", 0)) == ("canceled", 0)
    assert len(seen(team, "anybody")[1]) == FILES


def test_a_version_that_is_on_its_way_is_not_cancelled_with_the_one_before(service: Service) -> None:
    team, others = service.new_team(), list[threading.Thread]()
    made = team.put("The rules on leave.", external_id="leave")

    def meanwhile(*_: Any) -> None:
        others.append(threading.Thread(target=team.manager.post, args=(f"/v1/jobs/{made['job_id']}/cancel",)))
        others[0].start()
        time.sleep(_A_MOMENT_S)

    with service.runtime.database.read() as connection:
        place = documents.get(connection, team.id, made["id"]).collection_id
    newer = Incoming("leave", read=lambda: b"New rules on leave.", media_type="text/markdown")
    service.runtime.intake.accept(Target(team.id, place), [newer], also=meanwhile)
    others[0].join()
    assert (team.document(made["id"])["status"], team.document(made["id"])["error"]) == ("accepted", None)
