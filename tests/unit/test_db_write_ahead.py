"""What a transaction has returned from outlives a power cut, and those who wait for the disk wait for it together."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from rag_service.db import Database, write_ahead
from rag_service.db.write_ahead import WriteAheadLog
from rag_service.errors import RetryableError
from rag_service.flushing import GroupCommit, sync_content
from tests.waiting import until

THREADS, WRITES = 6, 20


class Disk:
    """Keeps the files as they were when they were last synced: all that a power cut would leave of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.remains = folder / "remains"
        self.syncs = 0
        self.began = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self._copying = threading.Lock()
        self._keep()

    def sync(self, path: Path) -> None:
        self.syncs += 1
        self._keep()
        self.began.set()
        assert self.gate.wait(10)
        sync_content(path)

    def _keep(self) -> None:
        with self._copying:
            self.remains.mkdir(exist_ok=True)
            for path in self.folder.glob("rag.db*"):
                if not path.name.endswith("-shm"):
                    shutil.copy(path, self.remains)

    def notes_after_a_power_cut(self, at: Path) -> set[str]:
        with self._copying:
            shutil.copytree(self.remains, at)
        with sqlite3.connect(at / "rag.db") as connection:
            return {row[0] for row in connection.execute("SELECT said FROM notes")}


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path / 'rag.db'}")
    with made.transaction() as transaction:
        transaction.connection.execute(text("CREATE TABLE notes (said TEXT PRIMARY KEY)"))
    return made


@pytest.fixture
def disk(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk(tmp_path)
    monkeypatch.setattr(write_ahead, "sync_content", made.sync)
    return made


def write(database: Database, said: str, hook: Callable[[], object] = list) -> None:
    with database.transaction() as transaction:
        transaction.connection.execute(text("INSERT INTO notes VALUES (:said)"), {"said": said})
        transaction.on_commit(hook)


def written_by_many(database: Database, disk: Disk, folder: Path) -> set[str]:
    """What was lost of what had been returned from, over many moments at which the power might be cut."""
    lost: set[str] = set()
    looking = threading.Lock()

    def work(thread: int) -> None:
        for number in range(WRITES):
            write(database, said := f"{thread} {number}")
            with looking:
                lost.update({said} - disk.notes_after_a_power_cut(folder / f"cut {thread} {number}"))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    return lost


def test_whatever_a_transaction_returned_from_outlives_a_power_cut(
    database: Database, disk: Disk, tmp_path: Path
) -> None:
    assert written_by_many(database, disk, tmp_path) == set()
    assert disk.notes_after_a_power_cut(tmp_path / "end") == {f"{t} {n}" for t in range(THREADS) for n in range(WRITES)}


def test_a_log_that_is_not_synced_is_caught(
    database: Database, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WriteAheadLog, "flush", lambda self: None)
    assert written_by_many(database, disk, tmp_path)


def test_one_that_takes_a_sync_under_way_for_its_own_is_caught(
    database: Database, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def joining(self: GroupCommit) -> None:
        with self._joining:
            if self._next is not None:
                return
        commit(self)

    def closing_late(self: GroupCommit, group: object) -> None:
        self._flush()
        close(self, group)  # type: ignore[arg-type] # passed on as it came

    commit, close = GroupCommit.commit, GroupCommit._close
    monkeypatch.setattr(GroupCommit, "commit", joining)
    monkeypatch.setattr(GroupCommit, "_close", closing_late)
    assert written_by_many(database, disk, tmp_path)


def test_hooks_run_once_the_commit_is_on_the_disk_and_others_write_meanwhile(
    database: Database, disk: Disk, tmp_path: Path
) -> None:
    told: list[str] = []
    disk.gate.clear()
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(write, database, "first", lambda: told.append("first"))
        assert disk.began.wait(10)
        rest = [pool.submit(write, database, f"{n}", lambda: told.append("rest")) for n in range(4)]
        until(lambda: count(database) == 5, 10)
        assert not told
        disk.gate.set()
        for each in (first, *rest):
            each.result(10)
    assert sorted(told) == ["first", *["rest"] * 4]
    assert disk.syncs <= 3  # the first's, and one or two for those who had committed by then


def test_who_wrote_nothing_waits_for_what_it_has_read(database: Database, disk: Disk) -> None:
    """Told that it is there already, a caller relies on it as much as who wrote it."""
    disk.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        writer = pool.submit(write, database, "first")
        assert disk.began.wait(10)
        reader = pool.submit(look, database)
        with pytest.raises(TimeoutError):
            reader.result(0.3)
        disk.gate.set()
        writer.result(10)
        assert reader.result(10) == 1


def test_where_nothing_is_to_be_synced_nothing_is(database: Database, disk: Disk) -> None:
    write(database, "first")
    before = disk.syncs
    assert look(database) == 1
    assert disk.syncs == before


def test_a_disk_that_fails_is_told_as_something_to_try_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_path: Path) -> None:
        raise OSError(5, "Input/output error")

    told: list[str] = []
    monkeypatch.setattr(write_ahead, "sync_content", failing)
    with pytest.raises(RetryableError, match="disk") as caught:
        write(database, "first", lambda: told.append("first"))
    assert caught.value.code == "database_unavailable"
    assert not told


def test_a_database_that_was_closed_meanwhile_has_synced_itself(database: Database) -> None:
    write(database, "first")
    database.close()
    database._log._committed += 1
    database._log.flush()


def look(database: Database) -> int:
    with database.transaction() as transaction:
        return int(transaction.connection.execute(text("SELECT count(*) FROM notes")).scalar_one())


def count(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(text("SELECT count(*) FROM notes")).scalar_one())
