"""Backups: complete or absent, consistent whatever happens meanwhile, and restored without embedding anything."""

from __future__ import annotations

import random
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from rag_service.backup.manifest import BackupDamaged
from rag_service.db import Database, documents, inventory, jobs, operations, ringing
from rag_service.db.operations import Operation, OperationKind, OperationState
from rag_service.errors import Conflict
from rag_service.ingest import hold, indexer, removal
from rag_service.runtime.restoring import restore
from tests.churn import NAMES, answers, known_team, questions, same, text_of
from tests.conftest import Service, Started, Team, settings_for

Interfere = Callable[[str], None]


def quietly(_stage: str, _done: int, _total: int | None) -> None:
    pass


def restored(data_dir: Path, backup: Path, **more: Any) -> Started:
    restore(settings_for(data_dir), backup, quietly)
    return Started(settings_for(data_dir, **more), worker=False)


@pytest.fixture
def still(tmp_path: Path) -> Iterator[tuple[Service, Team]]:
    """A service that works only when it is told to, with a team of some documents."""
    with Started(settings_for(tmp_path / "data"), worker=False) as service:
        team = service.new_team()
        team.retrieve("settle")  # before any documents: its average length stays
        for number, name in enumerate(NAMES[:12]):
            acl = [{"public": True}, {"users": ["ada"]}, {"groups": ["staff"]}][number % 3]
            team.put(text_of(number), external_id=name, acl=acl, metadata={"number": number})
        service.work()
        yield service, team


def taken(service: Service, target: Path, interfere: Interfere | None = None) -> Operation:
    """A backup, with `interfere` called at the beginning of each of its stages."""
    seen: set[str] = set()

    def work(progress: Any) -> dict[str, Any]:
        def told(stage: str, done: int, total: int | None) -> None:
            progress(stage, done, total)
            if interfere is not None and stage not in seen:
                seen.add(stage)
                interfere(stage)

        made = service.runtime.upkeep.backup.take(target, told)
        return {"counts": dict(made.counts), "missing": dict(made.missing)}

    return service.runtime.upkeep.operations.run(OperationKind.BACKUP, work)


def succeeded(operation: Operation) -> dict[str, Any]:
    assert operation.state == OperationState.SUCCEEDED, operation.error
    assert operation.report is not None
    return dict(operation.report)


def test_a_restored_service_answers_as_the_one_that_was_backed_up_and_embeds_nothing(
    still: tuple[Service, Team], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, team = still
    asked = questions(100)
    before = answers(team, asked)
    assert sum(map(len, before)) > 300
    assert succeeded(taken(service, tmp_path / "backup"))["missing"] == {"blobs": 0, "points": 0}

    def refuse(*_: object) -> None:
        raise AssertionError("restoring must not embed")

    with monkeypatch.context() as patch:
        patch.setattr(type(service.runtime.embedder), "embed", refuse)
        restore(settings_for(tmp_path / "new"), tmp_path / "backup", quietly)
    with Started(settings_for(tmp_path / "new"), worker=False) as second:
        assert same(answers(known_team(second, team), asked), before)
        one = team.manager.get("/v1/documents").json()["data"][0]["id"]
        for path in (f"/v1/documents/{one}", f"/v1/documents/{one}/text"):
            assert known_team(second, team).manager.get(path).json() == team.manager.get(path).json()


def test_the_bytes_that_answer_are_kept_beside_those_of_a_newer_version_that_failed(
    still: tuple[Service, Team], tmp_path: Path
) -> None:
    service, team = still
    html = {"file": ("page.html", b"<p>The rules on parking.</p>", "text/html")}
    one = team.manager.post("/v1/documents", files=html, data={"external_id": "page"}).json()["id"]
    service.work()
    with service.runtime.database.read() as connection:
        answering = documents.get(connection, team.id, one).blob_key
    empty = {"file": ("page.html", b"<p></p>", "text/html")}
    team.manager.post("/v1/documents", files=empty, data={"external_id": "page"}).raise_for_status()
    service.work()
    assert (team.document(one)["status"], team.document(one)["indexed_version"]) == ("failed", 1)
    assert succeeded(taken(service, tmp_path / "backup"))["missing"] == {"blobs": 0, "points": 0}
    with restored(tmp_path / "new", tmp_path / "backup") as second:
        assert second.runtime.blobs.get(answering) == b"<p>The rules on parking.</p>"


def replace_and_delete(service: Service, team: Team, stage_wanted: str) -> Interfere:
    """At this stage: half of the documents get two new versions, a quarter goes, some get other readers."""

    def interfere(stage: str) -> None:
        if stage != stage_wanted:
            return
        for again in (100, 200):
            for number, name in enumerate(NAMES[:6]):
                team.put(text_of(again + number), external_id=name)
            service.work()
        for row in team.manager.get("/v1/documents").json()["data"]:
            if row["external_id"] in NAMES[6:9]:
                team.manager.delete(f"/v1/documents/{row['id']}").raise_for_status()
        for row in team.manager.get("/v1/documents").json()["data"]:
            if row["external_id"] in NAMES[9:11]:
                team.manager.patch(f"/v1/documents/{row['id']}/acl", json={"users": ["bob"]}).raise_for_status()
        service.work()

    return interfere


@pytest.mark.parametrize("stage", ["blobs", "vectors"])
def test_what_changes_during_a_backup_is_not_in_it_and_nothing_of_it_is_lost(
    still: tuple[Service, Team], tmp_path: Path, stage: str
) -> None:
    service, team = still
    asked = questions(100)
    before = answers(team, asked)
    report = succeeded(taken(service, tmp_path / "backup", replace_and_delete(service, team, stage)))
    assert report["missing"] == {"blobs": 0, "points": 0}
    with restored(tmp_path / "new", tmp_path / "backup") as second:
        assert same(answers(known_team(second, team), asked), before)
    # What was put off goes on afterwards.
    with service.runtime.database.read() as connection:
        assert jobs.count_open(connection)
    due_now(service)
    service.work()
    found = replace(service.runtime.upkeep.reconciler, grace_s=-1.0).run(quietly, mend=False)
    assert found["found"] == 0, found


def test_purging_that_does_not_wait_for_a_backup_would_be_noticed(
    still: tuple[Service, Team], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_once(_: Database) -> None:
        pass

    monkeypatch.setattr(indexer, "may_purge", at_once)
    monkeypatch.setattr(removal, "may_purge", at_once)
    service, team = still
    report = succeeded(taken(service, tmp_path / "backup", replace_and_delete(service, team, "blobs")))
    assert report["missing"]["points"] > 0
    assert report["missing"]["blobs"] > 0


def due_now(service: Service) -> None:
    """Let the time pass for which jobs are put off."""
    with service.runtime.database.transaction() as transaction:
        transaction.connection.execute(text("UPDATE jobs SET run_after = '2000-01-01' WHERE state = 'queued'"))


def test_a_new_average_length_waits_for_the_backup(tmp_path: Path) -> None:
    with Started(settings_for(tmp_path / "data"), worker=False) as service:
        team = service.new_team()
        for number, name in enumerate(NAMES):
            team.put(text_of(number)[: 60 + number * 20], external_id=name)

        def calibrate(stage: str) -> None:
            if stage == "vectors":
                service.work()

        with service.runtime.database.transaction() as transaction:
            ringing.forget_all(transaction.connection)
            due = [bell.job_id for bell in ringing.fill(transaction.connection, ringing.Limits(jobs=100, syncs=100))]
        for job in due:
            service.runtime.runner.run(job)  # all that is due so far, without the measuring that follows
        succeeded(taken(service, tmp_path / "backup", calibrate))
        due_now(service)
        service.work()
        asked = questions(60)
        expected = answers(team, asked)
    with restored(tmp_path / "new", tmp_path / "backup") as second:
        second.work()  # the measuring, which the backup has among its jobs
        assert same(answers(known_team(second, team), asked), expected)


def test_jobs_that_ran_resume_after_the_restore(tmp_path: Path) -> None:
    with Started(settings_for(tmp_path / "data"), worker=False) as service:
        team = service.new_team()
        running, waiting = team.put("The first of two."), team.put("The second of two.")
        with service.runtime.database.transaction() as transaction:
            assert jobs.claim(transaction.connection, running["job_id"], 60) is not None
        succeeded(taken(service, tmp_path / "backup"))
    with restored(tmp_path / "new", tmp_path / "backup") as second:
        again = known_team(second, team)
        second.work()
        for accepted in (running, waiting):
            assert again.document(accepted["id"])["status"] == "ready"
        with second.runtime.database.read() as connection:
            assert jobs.get(connection, team.id, running["job_id"]).worker_deaths == 0
            assert not operations.is_running(connection, OperationKind.BACKUP)


def test_a_backup_is_readable_by_its_owner_only(still: tuple[Service, Team], tmp_path: Path) -> None:
    service, _ = still
    succeeded(taken(service, tmp_path / "deep" / "backup"))
    folder = tmp_path / "deep" / "backup"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "metadata.db", "vectors.db", "blobs.tar"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_backup_that_breaks_off_leaves_nothing(still: tuple[Service, Team], tmp_path: Path) -> None:
    service, _ = still

    def fail(stage: str) -> None:
        if stage == "vectors":
            raise OSError(28, "No space left on device")

    ended = taken(service, tmp_path / "backups" / "one", fail)
    assert ended.state == OperationState.FAILED
    assert ended.error is not None
    assert ended.error["code"] == "disk_failed"
    assert list((tmp_path / "backups").iterdir()) == []
    with service.runtime.database.read() as connection:
        assert not operations.is_running(connection, OperationKind.BACKUP)


def test_what_a_killed_backup_left_is_overwritten_by_the_next(still: tuple[Service, Team], tmp_path: Path) -> None:
    service, _ = still
    left = tmp_path / ".backup.partial"
    left.mkdir()
    (left / "metadata.db").write_bytes(b"half")
    succeeded(taken(service, tmp_path / "backup"))
    assert not left.exists()


def test_a_backup_that_lost_its_hold_fails(still: tuple[Service, Team], tmp_path: Path) -> None:
    service, _ = still

    def stand_still(stage: str) -> None:
        if stage != "vectors":
            return
        with service.runtime.database.transaction() as transaction:
            transaction.connection.execute(text("UPDATE operations SET until = '2000-01-01'"))

    ended = taken(service, tmp_path / "backup", stand_still)
    assert ended.error is not None
    assert ended.error["code"] == "lost_hold"


def test_only_one_backup_runs_at_a_time(still: tuple[Service, Team], tmp_path: Path) -> None:
    service, _ = still
    refused: list[Conflict] = []

    def begin_another(stage: str) -> None:
        if stage == "blobs":
            with pytest.raises(Conflict) as conflict:
                taken(service, tmp_path / "another")
            refused.append(conflict.value)

    succeeded(taken(service, tmp_path / "backup", begin_another))
    assert refused[0].code == "operation_running"


def test_the_hold_of_a_killed_backup_ends_by_itself(still: tuple[Service, Team]) -> None:
    service, _ = still
    database = service.runtime.database
    with database.transaction() as transaction:
        operations.begin(transaction.connection, OperationKind.BACKUP, lease_s=0.2)
    with pytest.raises(hold.PutOffError):
        hold.may_purge(database)
    time.sleep(0.25)
    hold.may_purge(database)
    with database.read() as connection:
        (ended,) = operations.page(connection, limit=1, after=None).data
    assert (ended.state, ended.error) == (OperationState.FAILED, operations.INTERRUPTED)


# --- restoring ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backup")
    with Started(settings_for(folder / "data"), worker=False) as service:
        team = service.new_team()
        for number in range(3):
            team.put(text_of(number), external_id=NAMES[number])
        service.work()
        succeeded(taken(service, folder / "made"))
    return folder / "made"


def damaged(backup: Path, copy: Path, name: str, damage: str) -> Path:
    shutil.copytree(backup, copy)
    path = copy / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:-1])
    else:
        place = random.Random(name).randrange(len(content))
        content[place] ^= 1
        path.write_bytes(content)
    return copy


@pytest.mark.parametrize("damage", ["missing", "truncated", "one bit"])
@pytest.mark.parametrize("name", ["manifest.json", "metadata.db", "vectors.db", "blobs.tar"])
def test_a_damaged_backup_is_refused_and_touches_nothing(backup: Path, tmp_path: Path, name: str, damage: str) -> None:
    broken = damaged(backup, tmp_path / "broken", name, damage)
    target = tmp_path / "target"
    with pytest.raises(BackupDamaged):
        restore(settings_for(target), broken, quietly, force=True)
    assert not target.exists()


def test_a_backup_that_is_not_verified_would_be_noticed(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bit of a text inside the metadata: nothing but the digest tells."""
    from rag_service.backup import manifest

    broken = tmp_path / "broken"
    shutil.copytree(backup, broken)
    content = (broken / "metadata.db").read_bytes()
    assert b"Number 1" in content
    (broken / "metadata.db").write_bytes(content.replace(b"Number 1", b"Number 7"))
    with pytest.raises(BackupDamaged):
        restore(settings_for(tmp_path / "a"), broken, quietly)
    monkeypatch.setattr(manifest, "verify", manifest.read)
    restore(settings_for(tmp_path / "b"), broken, quietly)


def test_a_folder_that_holds_data_is_replaced_only_by_force(backup: Path, tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data")
    with Started(settings, worker=False) as service:
        former = service.new_team()
        former.put("What was here before.")
        service.work()
    with pytest.raises(Conflict, match="--force"):
        restore(settings, backup, quietly)
    with Started(settings, worker=False) as service:
        assert known_team(service, former).retrieve("before")
    restore(settings, backup, quietly, force=True)
    with Started(settings, worker=False) as service:
        teams = [team["id"] for team in service.admin.get("/v1/teams").json()["data"]]
        assert former.id not in teams
        with service.runtime.database.read() as connection:
            assert sum(len(page) for page in inventory.live_documents(connection)) == 3
    assert not (tmp_path / "data" / ".restore").exists()


def test_a_service_that_runs_is_not_restored_over(backup: Path, tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data")
    with Started(settings, worker=False) as service:
        team = service.new_team()
        with pytest.raises(Exception, match="Another process uses the data folder"):
            restore(settings, backup, quietly, force=True)
        assert service.admin.get("/v1/teams").json()["data"][0]["id"] == team.id


class KilledError(Exception):
    pass


def test_a_restore_that_is_killed_anywhere_leaves_the_old_or_the_new_service(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each rename in turn; the next start finds all of the former service or all of the restored one."""
    former_dir = tmp_path / "former"
    with Started(settings_for(former_dir), worker=False) as service:
        team = service.new_team()
        team.put("What was here before.", external_id="former")
        service.work()
    seen = []
    renames = Path.rename
    for allowed in (2, 6, 7, 9, 11, 12):  # six blobs are renamed into place, then three parts are replaced
        data = tmp_path / f"data-{allowed}"
        shutil.copytree(former_dir, data)
        done = [0]

        def rename(self: Path, target: Path, done: list[int] = done, allowed: int = allowed, data: Path = data) -> Path:
            if target.is_relative_to(data) and ".restore" in str(self) + str(target) and self.parent.name != "vectors":
                if done[0] == allowed:
                    raise KilledError
                done[0] += 1
            return renames(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename)
            try:
                restore(settings_for(data), backup, quietly, force=True)
                finished = True
            except KilledError:
                finished = False
        with Started(settings_for(data), worker=False) as service:
            found = service.runtime.upkeep.reconciler.run(quietly, mend=False)
            assert found["found"] == 0
            with service.runtime.database.read() as connection:
                names = {row.external_id for page in inventory.live_documents(connection) for row in page}
        assert names in ({"former"}, set(NAMES[:3]))
        assert not (data / ".restore").exists()
        seen.append((finished, names == {"former"}))
    assert (False, True) in seen
    assert (False, False) in seen
    assert (True, False) in seen
