"""Whatever happens to a source while a sync of it reads, what was acknowledged holds for all that the sync writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors import folders
from rag_service.ingest import sync as syncing
from tests.chaos.mutants import MUTANTS
from tests.conftest import Service, Started, Team, settings_for

At = Callable[[int, Callable[[], object]], None]

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
