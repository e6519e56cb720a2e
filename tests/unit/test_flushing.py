"""Group commit: nobody returns before a flush that began after her write, and no flush is made twice for it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from rag_service import flushing
from rag_service.errors import RetryableError
from rag_service.flushing import GroupCommit, sync, sync_folder

WRITERS = 8


class SlowDisk:
    """Records what had been written when each flush began; a flush can be held up and made to fail."""

    def __init__(self) -> None:
        self.written: set[str] = set()
        self.durable: set[str] = set()
        self.flushes = 0
        self.gate = threading.Event()
        self.began = threading.Event()
        self.failure: BaseException | None = None

    def flush(self) -> None:
        self.flushes += 1
        seen = set(self.written)
        self.began.set()
        assert self.gate.wait(10)
        if self.failure:
            failure, self.failure = self.failure, None
            raise failure
        self.durable |= seen


@pytest.fixture
def disk() -> SlowDisk:
    return SlowDisk()


def write(disk: SlowDisk, group: GroupCommit, what: str) -> None:
    disk.written.add(what)
    group.commit()
    assert what in disk.durable


def waiting_behind_a_flush(disk: SlowDisk, group: GroupCommit, pool: ThreadPoolExecutor) -> list[Future[None]]:
    """One writer inside its flush, the rest having joined the next group."""
    first = pool.submit(write, disk, group, "first")
    assert disk.began.wait(10)
    rest = [pool.submit(write, disk, group, f"writer {number}") for number in range(WRITERS)]
    deadline = time.monotonic() + 10
    while len(disk.written) <= WRITERS and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)  # from the last write to its commit
    return [first, *rest]


def test_a_lone_writer_flushes_at_once(disk: SlowDisk) -> None:
    disk.gate.set()
    group = GroupCommit(disk.flush)
    for number in range(3):
        write(disk, group, str(number))
    assert disk.flushes == 3


def test_writers_that_wait_share_one_flush_which_begins_after_their_writes(disk: SlowDisk) -> None:
    group = GroupCommit(disk.flush)
    with ThreadPoolExecutor(WRITERS + 1) as pool:
        writers = waiting_behind_a_flush(disk, group, pool)
        disk.gate.set()
        for writer in writers:
            writer.result(10)
    assert disk.flushes == 2


def test_a_failed_flush_fails_all_who_shared_it_and_nobody_else(disk: SlowDisk) -> None:
    group = GroupCommit(disk.flush)
    disk.failure = OSError("no space left")
    with ThreadPoolExecutor(WRITERS + 1) as pool:
        first, *rest = waiting_behind_a_flush(disk, group, pool)
        disk.gate.set()
        with pytest.raises(OSError, match="no space"):
            first.result(10)
        for writer in rest:
            writer.result(10)
    assert disk.durable >= {f"writer {number}" for number in range(WRITERS)}


def test_an_interrupted_leader_leaves_no_one_waiting_for_ever(disk: SlowDisk) -> None:
    class Interrupt(BaseException):
        pass

    group = GroupCommit(disk.flush)
    with ThreadPoolExecutor(WRITERS + 1) as pool:
        first, *rest = waiting_behind_a_flush(disk, group, pool)
        disk.failure = Interrupt()
        disk.gate.set()
        outcomes = {type(writer.exception(10)) for writer in (first, *rest)}
    assert Interrupt in outcomes
    assert outcomes <= {Interrupt, RetryableError, type(None)}
    write(disk, group, "later")


def test_a_file_renamed_under_the_sync_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open").touch()
    synced: list[str] = []

    def rename_once(path: Path) -> None:
        if path.name == "open":
            path.rename(tmp_path / "closed")
        sync(path)
        synced.append(path.name)

    monkeypatch.setattr(flushing, "sync", rename_once)
    sync_folder(tmp_path)
    assert synced == ["closed", tmp_path.name]


def test_a_folder_that_is_gone_is_no_reason_to_wait(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "gone")
