"""Whatever happens to a source while a sync of it reads, what was acknowledged holds for all that the sync writes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors import files, folders
from connectors.base import Change, Checkpoint, Cursor
from connectors.files import FilesConnector
from rag_service.db import jobs, sources
from rag_service.ingest import sync as syncing
from tests.chaos.mutants import MUTANTS
from tests.conftest import Service, Started, Team, settings_for
from tests.flows.test_dead_letters import work_through

At = Callable[[int, Callable[[], object]], None]
AtTheEnd = Callable[[Callable[[], object]], None]

FILES = 6


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Started(settings_for(tmp_path_factory.mktemp("syncs")), worker=False) as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files that a sync takes in one by one."""
    monkeypatch.setattr(syncing, "_BATCH", 1)
    root = tmp_path / "handbook"
    root.mkdir()
    for number in range(FILES):
        (root / f"{number}.md").write_text(f"# Number {number}\n\nThe rules on parking.")
    return root


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> At:
    """Has something happen once, while the file of this number is read."""
    read = folders._read_regular

    def happens(number: int, act: Callable[[], object]) -> None:
        left = [act]

        def reading(here: int, name: str, limit: int) -> bytes:
            if name == f"{number}.md" and left:
                left.pop()()
            return read(here, name, limit)

        monkeypatch.setattr(folders, "_read_regular", reading)

    return happens


@pytest.fixture
def at_the_end(monkeypatch: pytest.MonkeyPatch) -> AtTheEnd:
    """Has something happen once, when a sync has listed everything and is about to say so."""
    listing = FilesConnector.changes

    def happens(act: Callable[[], object]) -> None:
        left = [act]

        def changes(self: FilesConnector, cursor: Cursor | None) -> Iterator[Change]:
            for change in listing(self, cursor):
                if isinstance(change, Checkpoint) and change.complete and left:
                    left.pop()()
                yield change

        monkeypatch.setattr(FilesConnector, "changes", changes)

    return happens


def make(team: Team, folder: Path, **more: Any) -> str:
    wanted = {"name": "handbook", "type": "files", "config": {"root": str(folder)}, "acl": {"public": True}, **more}
    made = team.admin.post("/v1/sources", json=wanted)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def sync(team: Team, source: str, **body: Any) -> dict[str, Any]:
    """Sync to the end; returns the job."""
    started = team.manager.post(f"/v1/sources/{source}/sync", json=body or None)
    assert started.status_code == 202, started.text
    team.service.work()
    job: dict[str, Any] = team.manager.get(f"/v1/jobs/{started.json()['job_id']}").json()
    return job


def seen(team: Team, group: str) -> tuple[set[str], set[str]]:
    """What members of a group find, and what they may open."""
    member = team.client("query", user=group, groups=[group])
    found = {hit["external_id"] for hit in team.retrieve("rules on parking", member, top_k=50)}
    listed = team.manager.get("/v1/documents", params={"limit": 100}).json()["data"]
    opened = {row["external_id"] for row in listed if member.get(f"/v1/documents/{row['id']}").is_success}
    return found, opened


def change_the_acl_while_it_syncs(team: Team, folder: Path, at: At) -> list[tuple[set[str], set[str]]]:
    source = make(team, folder, acl={"groups": ["staff"]})
    at(2, lambda: team.admin.patch(f"/v1/sources/{source}", json={"acl": {"groups": ["board"]}}))
    assert sync(team, source)["state"] == "succeeded"
    return [seen(team, group) for group in ("staff", "board")]


def test_a_new_default_acl_holds_for_what_a_sync_writes_from_then_on(service: Service, folder: Path, at: At) -> None:
    every = {f"{number}.md" for number in range(FILES)}
    assert change_the_acl_while_it_syncs(service.new_team(), folder, at) == [(set(), set()), (every, every)]


def test_a_sync_that_goes_by_the_acl_it_began_with_is_caught(
    service: Service, folder: Path, at: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    MUTANTS["stale_sources"](monkeypatch)
    staff, board = change_the_acl_while_it_syncs(service.new_team(), folder, at)
    assert staff[1]
    assert len(board[1]) < FILES


# What is deleted, and with what.
REMOVALS = {
    "source": ("/v1/sources/{source}", "delete"),
    "source, documents kept": ("/v1/sources/{source}", "keep"),
    "collection": ("/v1/collections/side", None),
}


def delete_while_it_syncs(team: Team, folder: Path, at: At, what: str) -> tuple[dict[str, Any], dict[str, str]]:
    """How the sync ends, and by status the documents that are there in the end."""
    team.manager.post("/v1/collections", json={"name": "side"})
    source = make(team, folder, collection="side" if what == "collection" else "default")
    path, kept = REMOVALS[what]
    at(2, lambda: team.admin.delete(path.format(source=source), params={"documents": kept} if kept else None))
    job = sync(team, source)
    rows = team.manager.get("/v1/documents", params={"limit": 100}).json()["data"]
    return job, {row["external_id"]: row["status"] for row in rows}


@pytest.mark.parametrize("what", REMOVALS)
def test_a_sync_brings_nothing_back_that_was_deleted_while_it_ran(
    service: Service, folder: Path, at: At, what: str
) -> None:
    team = service.new_team()
    job, left = delete_while_it_syncs(team, folder, at, what)
    assert job["state"] == "canceled"
    assert seen(team, "anybody") == (set(left), set(left))
    assert left == ({"0.md": "ready", "1.md": "ready"} if REMOVALS[what][1] == "keep" else {})


@pytest.mark.parametrize("what", REMOVALS)
def test_a_sync_that_does_not_see_its_source_go_is_caught(
    service: Service, folder: Path, at: At, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    MUTANTS["stale_sources"](monkeypatch)
    _, left = delete_while_it_syncs(service.new_team(), folder, at, what)
    assert len(left) > 2


@pytest.mark.parametrize("number", [2, FILES - 1])
def test_a_file_that_cannot_be_read_brings_no_source_back_either(
    service: Service, folder: Path, at: At, number: int
) -> None:
    team = service.new_team()
    source = make(team, folder)

    def gone() -> None:
        team.admin.delete(f"/v1/sources/{source}")
        (folder / f"{number}.md").unlink()

    at(number, gone)
    assert sync(team, source)["state"] == "canceled"
    assert team.manager.get("/v1/documents", params={"limit": 100}).json()["data"] == []


def test_documents_that_are_kept_are_not_removed_by_a_sync_that_goes_on(
    service: Service, folder: Path, at_the_end: AtTheEnd
) -> None:
    team = service.new_team()
    source = make(team, folder)
    sync(team, source)
    (folder / "0.md").unlink()
    at_the_end(lambda: team.admin.delete(f"/v1/sources/{source}", params={"documents": "keep"}))
    assert sync(team, source)["state"] == "canceled"
    assert len(seen(team, "anybody")[0]) == FILES


def test_a_sync_that_waits_is_over_with_its_source(service: Service, folder: Path) -> None:
    team = service.new_team()
    source = make(team, folder)
    waits = team.manager.post(f"/v1/sources/{source}/sync").json()["job_id"]
    team.admin.delete(f"/v1/sources/{source}")
    assert team.manager.get(f"/v1/jobs/{waits}").json()["state"] == "canceled"


def two_syncs_take_turns(team: Team, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """As if two had been started at once; returns how many documents of a folder that has not changed they delete."""
    source = make(team, folder)
    sync(team, source)
    first = team.manager.post(f"/v1/sources/{source}/sync").json()["job_id"]
    a_slice(team, first, 2, monkeypatch)
    with team.service.runtime.database.transaction() as transaction:
        of_source = sources.get(transaction.connection, team.id, source)
        second = team.service.runtime.syncer._queue(transaction, of_source, {"confirm_deletions": False})
    for job, checkpoints in ((second, 2), (first, 2), (second, 99), (first, 99)):
        a_slice(team, job, checkpoints, monkeypatch)
    team.service.work()
    assert team.manager.get(f"/v1/jobs/{first}").json()["state"] == "succeeded"
    return sum(team.manager.get(f"/v1/jobs/{job}").json()["counters"].get("deleted", 0) for job in (first, second))


def a_slice(team: Team, job: str, checkpoints: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice whose time is over after so many checkpoints, of which there is one per file."""
    stopping, listing = team.service.runtime.syncer.stopping, FilesConnector.changes

    def changes(self: FilesConnector, cursor: Cursor | None) -> Iterator[Change]:
        left = checkpoints
        for change in listing(self, cursor):
            left -= isinstance(change, Checkpoint)
            if left == 0:
                stopping.set()
            yield change

    with monkeypatch.context() as patch:
        patch.setattr(files, "ITEMS_PER_CHECKPOINT", 1)
        patch.setattr(FilesConnector, "changes", changes)
        team.service.runtime.runner.run(job)
    stopping.clear()


def test_two_syncs_of_one_source_remove_nothing_that_is_there(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert two_syncs_take_turns(service.new_team(), folder, monkeypatch) == 0


def test_syncs_that_share_a_cursor_are_caught(service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS["shared_listings"](monkeypatch)
    assert two_syncs_take_turns(service.new_team(), folder, monkeypatch) > 0


def pause_while_it_syncs(team: Team, folder: Path, at: At) -> tuple[str, set[str]]:
    """How the sync ends, and what it has taken in."""
    source = make(team, folder)
    at(2, lambda: team.manager.post(f"/v1/sources/{source}/pause"))
    return sync(team, source)["state"], seen(team, "anybody")[1]


def test_a_sync_takes_nothing_more_in_once_its_source_is_paused(service: Service, folder: Path, at: At) -> None:
    assert pause_while_it_syncs(service.new_team(), folder, at) == ("canceled", {"0.md", "1.md"})


def test_a_sync_that_does_not_see_its_source_paused_is_caught(
    service: Service, folder: Path, at: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    MUTANTS["stale_sources"](monkeypatch)
    assert len(pause_while_it_syncs(service.new_team(), folder, at)[1]) > 2


def test_a_sync_removes_nothing_once_its_source_is_paused(service: Service, folder: Path, at_the_end: AtTheEnd) -> None:
    team = service.new_team()
    source = make(team, folder)
    sync(team, source)
    (folder / "0.md").unlink()
    at_the_end(lambda: team.manager.post(f"/v1/sources/{source}/pause"))
    assert sync(team, source)["state"] == "canceled"
    assert len(seen(team, "anybody")[1]) == FILES
    team.manager.post(f"/v1/sources/{source}/resume")
    assert sync(team, source)["counters"]["deleted"] == 1


def cancel_sync(team: Team) -> None:
    """The one that runs."""
    (running,) = team.manager.get("/v1/jobs", params={"kind": "sync", "state": "running"}).json()["data"]
    team.manager.post(f"/v1/jobs/{running['id']}/cancel").raise_for_status()


def test_a_sync_removes_nothing_once_it_is_cancelled(service: Service, folder: Path, at_the_end: AtTheEnd) -> None:
    team = service.new_team()
    source = make(team, folder)
    sync(team, source)
    (folder / "0.md").unlink()

    at_the_end(lambda: cancel_sync(team))
    assert sync(team, source)["state"] == "canceled"
    assert len(seen(team, "anybody")[1]) == FILES


def test_what_a_sync_takes_in_once_it_is_cancelled_is_cancelled_too(service: Service, folder: Path, at: At) -> None:
    team = service.new_team()
    source = make(team, folder)

    at(2, lambda: cancel_sync(team))
    assert sync(team, source)["state"] == "canceled"
    taken_in = team.manager.get("/v1/documents", params={"source": source}).json()["data"]
    assert {(row["status"], row["error"]["code"]) for row in taken_in} == {("failed", "canceled")}
    assert sync(team, source)["state"] == "succeeded"
    assert len(seen(team, "anybody")[1]) == FILES


def test_a_sync_that_failed_for_a_share_that_went_does_not_go_on_without_it(
    service: Service, folder: Path, at: At
) -> None:
    team = service.new_team()
    (folder / "z").mkdir()
    (folder / "z" / "9.md").write_text("# Nine")
    source = make(team, folder)
    sync(team, source)
    for file in folder.glob("*.md"):
        os.utime(file, (1e9, 1e9))
    away = folder.with_name("away")

    def unmount() -> None:
        folder.rename(away)
        folder.mkdir()
        (folder / ".keep").touch()

    at(5, unmount)
    job = sync(team, source)
    work_through(service)
    assert (job["state"], job["error"]["code"]) == ("failed", "folder_replaced")
    assert len(seen(team, "anybody")[1]) == FILES + 1
    (folder / ".keep").unlink()
    folder.rmdir()
    away.rename(folder)
    assert sync(team, source)["counters"]["deleted"] == 0


def test_a_worker_that_wakes_once_another_has_listed_everything_leaves_it_so(service: Service, folder: Path) -> None:
    team = service.new_team()
    source = make(team, folder)
    job_id = team.manager.post(f"/v1/sources/{source}/sync").json()["job_id"]
    with service.runtime.database.transaction() as transaction:
        stale = jobs.claim(transaction.connection, job_id, -1.0)  # and falls silent at once
    assert stale is not None
    service.runtime.runner.run(job_id)
    assert service.runtime.syncer.run(stale) is None
    service.work()
    job = team.manager.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["counters"]["new"]) == ("succeeded", FILES)


def reconfigure(team: Team, source: str, root: Path, *exclude: str) -> None:
    changed = team.admin.patch(f"/v1/sources/{source}", json={"config": {"root": str(root), "exclude": exclude}})
    assert changed.status_code == 200, changed.text


def test_a_sync_asked_for_after_a_change_reads_what_the_source_is_since(service: Service, folder: Path, at: At) -> None:
    team = service.new_team()
    source = make(team, folder)
    asked = []

    def change() -> None:
        reconfigure(team, source, folder, "0.md")
        asked.append(team.manager.post(f"/v1/sources/{source}/sync").json()["job_id"])

    at(2, change)
    sync(team, source)
    job = team.manager.get(f"/v1/jobs/{asked[0]}").json()
    assert (job["state"], job["counters"]["scanned"], job["counters"]["deleted"]) == ("succeeded", FILES - 1, 1)
    assert "0.md" not in seen(team, "anybody")[1]


def another_folder(folder: Path) -> Path:
    other = folder.with_name("other")
    other.mkdir()
    for number in range(FILES):
        (other / f"{number}.md").write_text(f"# Another {number}\n\nOther rules on parking.")
    return other


def test_a_source_changed_between_two_slices_is_listed_from_the_beginning(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team, other = service.new_team(), another_folder(folder)
    source = make(team, folder)
    job = team.manager.post(f"/v1/sources/{source}/sync").json()["job_id"]
    a_slice(team, job, 3, monkeypatch)
    reconfigure(team, source, other)
    assert sync(team, source)["id"] == job
    listed = team.manager.get("/v1/documents").json()["data"]
    assert sorted(row["uri"] for row in listed) == [(other / f"{number}.md").as_uri() for number in range(FILES)]


def test_what_is_wrong_with_a_former_root_does_not_fail_a_sync(service: Service, folder: Path, at: At) -> None:
    team, other = service.new_team(), another_folder(folder)
    source = make(team, folder)

    def move() -> None:
        folder.rename(folder.with_name("gone"))
        reconfigure(team, source, other)

    at(2, move)
    assert sync(team, source)["state"] == "succeeded"
    assert team.manager.get(f"/v1/sources/{source}").json()["last_error"] is None


def test_a_sync_that_only_waits_for_documents_of_the_former_source_is_not_on_its_way(
    service: Service, folder: Path
) -> None:
    team = service.new_team()
    source = make(team, folder)
    first = team.manager.post(f"/v1/sources/{source}/sync").json()["job_id"]
    service.runtime.runner.run(first)
    assert team.manager.post(f"/v1/sources/{source}/sync").json()["job_id"] == first
    reconfigure(team, source, folder, "0.md")
    second = sync(team, source)
    assert second["id"] != first
    assert second["counters"]["deleted"] == 1


@pytest.mark.parametrize("begun", [False, True])
def test_deletions_are_confirmed_of_the_source_as_it_was_then(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    team = service.new_team()
    source = make(team, folder)
    sync(team, source)
    confirmed = team.manager.post(f"/v1/sources/{source}/sync", json={"confirm_deletions": True}).json()["job_id"]
    if begun:
        a_slice(team, confirmed, 2, monkeypatch)
    reconfigure(team, source, folder, "1.md", "2.md", "3.md")
    assert sync(team, source)["id"] == confirmed
    assert team.manager.get(f"/v1/sources/{source}").json()["held_deletions"] == 3
    assert len(seen(team, "anybody")[1]) == FILES


def test_a_sync_that_breaks_off_counts_nothing_twice(
    service: Service, folder: Path, at: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ITEMS_PER_CHECKPOINT", 2)
    team = service.new_team()
    (folder / "0.md").write_text("x" * 1000)
    source = make(team, folder, config={"root": str(folder), "max_file_bytes": 999})

    def asleep() -> None:
        raise OSError(errno.ESTALE, "the share sleeps")

    def counted(*breaks: int) -> dict[str, int]:
        for number in breaks:
            at(number, asleep)
        job = team.manager.post(f"/v1/sources/{source}/sync").json()["job_id"]
        work_through(service)
        counters = team.manager.get(f"/v1/jobs/{job}").json()["counters"]
        return {name: number for name, number in counters.items() if number}

    assert counted(3, 5) == {"scanned": 6, "failed": 1, "new": 5}
    os.utime(folder / "5.md", (0, 0))
    assert counted(5) == {"scanned": 6, "failed": 1, "skipped": 4, "metadata_modified": 1}
