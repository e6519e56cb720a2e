"""What only the embedded store promises: one process, durability, and a folder without remains."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import pytest

from rag_service import flushing
from rag_service.access import PUBLIC, AccessScope, AccessTokens
from rag_service.errors import ConfigError, Conflict, NotFound, RetryableError
from rag_service.flushing import GroupCommit
from rag_service.types import Compare, SparseVector
from rag_service.vectors import edge
from rag_service.vectors.base import IndexSpec, SearchRequest, VectorPoint
from rag_service.vectors.edge import EdgeVectorStore
from rag_service.vectors.shard import FLUSH_EVERY, Shard

REPOSITORY = Path(__file__).parents[2]
SPEC = IndexSpec(dimensions=3)
ANYONE = AccessScope("acme", frozenset({PUBLIC}))

DIES_AFTER_WRITING = """
import os, signal, sys
from pathlib import Path
from tests.unit.test_vectors_edge import *
store = EdgeVectorStore(Path(sys.argv[1]))
store.create("docs", SPEC)
store.upsert("docs", [point(number) for number in range(500)])
store.delete("docs", "3")
store.update("docs", "4", access=AccessTokens(("manage",), ()))
store.update("docs", "5", fields={"colour": "red"})
os.kill(os.getpid(), signal.SIGKILL)
"""


def point(number: int, **fields: Any) -> VectorPoint:
    return VectorPoint(
        chunk_id=str(uuid5(NAMESPACE_OID, str(number))),
        team="acme",
        document_id=str(number),
        version=1,
        text_hash="",
        dense=np.eye(3, dtype=np.float32)[number % 3],
        lexical=SparseVector((number,), (1.0,)),
        access=AccessTokens((PUBLIC,), ()),
        fields=fields,
    )


def found(store: EdgeVectorStore, narrowing: Compare | None = None) -> set[str]:
    request = SearchRequest(np.ones(3, dtype=np.float32), None, narrowing, 10_000)
    numbers = {point(number).chunk_id: str(number) for number in range(1_005)}
    return {numbers[candidate.chunk_id] for candidate in store.search("docs", request, ANYONE)}


class _Busy:
    """A shard in which other threads are at work: it refuses to close some times."""

    def __init__(self, edge: Any, refusals: int) -> None:
        self._edge = edge
        self.refusals = refusals

    def flush(self) -> None:
        self._edge.flush()

    def close(self) -> None:
        if self.refusals:
            self.refusals -= 1
            raise RuntimeError("Already borrowed")
        self._edge.close()


class Disk:
    """What is certain to be on the disk: the bytes of each file when it was last synced.

    Edge syncs inside itself, unseen from here; that is what its flush is for. So a flush takes note of everything.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._certain = root.parent / "certain"

    def note(self, path: Path) -> None:
        kept = self._certain / path.relative_to(self._root)
        if path.is_dir():
            kept.mkdir(parents=True, exist_ok=True)
            for gone in {inner.name for inner in kept.iterdir()} - {inner.name for inner in path.iterdir()}:
                (kept / gone).unlink() if (kept / gone).is_file() else shutil.rmtree(kept / gone)
        else:
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, kept)

    def note_all(self) -> None:
        for path in self._root.rglob("*"):
            self.note(path)

    @contextmanager
    def after_power_cut(self, luck: random.Random | None = None) -> Iterator[EdgeVectorStore]:
        """The store as the next start finds it; with `luck`, half of the other files had come to the disk as well."""
        found = shutil.copytree(self._certain, self._root.parent / "after")
        for path in sorted(self._root.rglob("*")) if luck else ():
            if luck and path.is_file() and "wal" not in path.parts and luck.random() < 0.5:
                shutil.copyfile(path, found / path.relative_to(self._root))
        store = EdgeVectorStore(found)
        yield store
        store.close()


@pytest.fixture
def disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(root)

    def synced(path: Path) -> None:
        disk.note_all() if path == root else disk.note(path)

    def durable(shard: Shard) -> None:
        flushes = shard._unflushed >= FLUSH_EVERY
        make_durable(shard)
        if flushes:
            disk.note_all()

    make_durable = Shard._make_durable
    monkeypatch.setattr(Shard, "_make_durable", durable)
    monkeypatch.setattr(flushing, "sync", synced)
    monkeypatch.setattr(edge, "sync", synced)
    return disk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "vectors"


@pytest.fixture
def store(root: Path) -> Iterator[EdgeVectorStore]:
    store = EdgeVectorStore(root)
    yield store
    store.close()


def run(script: str, root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, str(root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=REPOSITORY)


class TestDurability:
    def test_what_was_written_survives_a_kill_right_after(self, store: EdgeVectorStore, root: Path) -> None:
        assert run(DIES_AFTER_WRITING, root).returncode == -signal.SIGKILL
        assert found(store) == {str(number) for number in range(500)} - {"3", "4"}
        assert found(store, Compare("colour", "eq", "red")) == {"5"}

    def test_what_was_written_survives_a_power_cut(self, store: EdgeVectorStore, disk: Disk) -> None:
        written = self._write(store)
        with disk.after_power_cut() as left:
            assert found(left) == written

    @pytest.mark.parametrize("seed", range(5))
    def test_a_power_cut_that_caught_the_disk_half_way_loses_nothing(
        self, store: EdgeVectorStore, disk: Disk, seed: int
    ) -> None:
        written = self._write(store)
        with disk.after_power_cut(luck=random.Random(seed)) as left:
            assert found(left) == written

    def test_a_store_that_returns_before_the_disk_has_it_is_caught(
        self, store: EdgeVectorStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(GroupCommit, "commit", lambda self: None)
        written = self._write(store)
        with disk.after_power_cut() as left:
            assert found(left) != written

    @staticmethod
    def _write(store: EdgeVectorStore) -> set[str]:
        store.create("docs", SPEC)
        store.upsert("docs", [point(number, year=number) for number in range(FLUSH_EVERY + 10)])
        for number in range(1000, 1005):
            store.upsert("docs", [point(number)])
        store.update("docs", "2", access=AccessTokens(("manage",), ()))
        store.delete("docs", "3")
        return {str(number) for number in (*range(FLUSH_EVERY + 10), *range(1000, 1005))} - {"2", "3"}

    def test_a_store_opened_again_knows_its_indexes(self, store: EdgeVectorStore, root: Path) -> None:
        store.create("docs", SPEC)
        store.upsert("docs", [point(1, year=2026)])
        store.close()
        assert found(store, Compare("year", "gt", 2025)) == {"1"}
        store.create("docs", SPEC)
        with pytest.raises(Conflict):
            store.create("docs", IndexSpec(dimensions=4))

    def test_a_listing_that_outlives_its_store_says_so(self, store: EdgeVectorStore) -> None:
        store.create("docs", SPEC)
        store.upsert("docs", [point(number) for number in range(600)])
        closed, dropped = store.stored("docs"), store.stored("docs")
        next(closed)
        next(dropped)
        store.close()
        with pytest.raises(RetryableError):
            list(closed)
        found(store)
        dropped = store.stored("docs")
        next(dropped)
        store.drop("docs")
        with pytest.raises(NotFound):
            list(dropped)


class TestFolder:
    def test_a_second_process_is_refused_with_a_sentence(self, store: EdgeVectorStore, root: Path) -> None:
        store.open()
        refused = run(DIES_AFTER_WRITING, root)
        assert refused.returncode == 1
        assert "ConfigError" in refused.stderr
        assert "in use by another process" in refused.stderr
        assert "RAG_QDRANT_URL" in refused.stderr

    def test_a_second_store_in_this_process_is_refused_until_the_first_is_closed(
        self, store: EdgeVectorStore, root: Path
    ) -> None:
        store.create("docs", SPEC)
        second = EdgeVectorStore(root)
        with pytest.raises(ConfigError):
            found(second)
        store.close()
        assert found(second) == set()
        second.close()

    def test_a_constructor_touches_nothing(self, root: Path) -> None:
        EdgeVectorStore(root).close()
        assert not root.exists()

    def test_what_a_crash_left_half_made_is_cleared_away(self, store: EdgeVectorStore, root: Path) -> None:
        store.create("docs", SPEC)
        store.close()
        for leftover in (".new-0123", ".old-4567"):
            (root / leftover / "shard").mkdir(parents=True)
        store.open()
        assert sorted(path.name for path in root.iterdir()) == [".lock", "docs"]

    def test_closing_waits_for_calls_that_are_under_way(self, store: EdgeVectorStore) -> None:
        store.create("docs", SPEC)
        store.upsert("docs", [point(1)])
        shard = store._shard("docs")
        busy: Any = _Busy(shard._edge, refusals=3)
        shard._edge = busy
        store.drop("docs")
        assert busy.refusals == 0
        with pytest.raises(NotFound):
            found(store)

    def test_a_dropped_index_leaves_no_file(self, store: EdgeVectorStore, root: Path) -> None:
        store.create("docs", SPEC)
        store.upsert("docs", [point(1)])
        store.drop("docs")
        assert [path.name for path in root.iterdir()] == [".lock"]
