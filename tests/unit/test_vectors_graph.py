"""A graph makes searches of a large index faster; it changes neither what is found nor who may find it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Semaphore
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import psutil
import pytest

from rag_service.access import PUBLIC, AccessScope, AccessTokens
from rag_service.errors import RetryableError
from rag_service.types import SparseVector
from rag_service.vectors import graph
from rag_service.vectors.base import Candidate, IndexSpec, SearchRequest, VectorPoint
from rag_service.vectors.conditions import Every, Match
from rag_service.vectors.edge import EdgeVectorStore
from rag_service.vectors.graph import Graph, Seeker
from tests.waiting import until

REPOSITORY = Path(__file__).parents[2]
DIMENSIONS = 16
SIZE = 600
ANN = AccessScope("acme", frozenset({PUBLIC, "user:ann"}))
GROUP = AccessScope("acme", frozenset({"group:3"}))

DIES_WITH_A_GRAPH_UNDER_WAY = """
import os, signal, sys, time
from pathlib import Path
from rag_service.vectors import graph
from tests.unit.test_vectors_graph import *
graph.FIRST = graph.LEAST = 1
graph._Process.wait = lambda self: time.sleep(60)
store = EdgeVectorStore(Path(sys.argv[1]))
store.create("docs", IndexSpec(DIMENSIONS))
store.upsert("docs", [point(number) for number in range(50)])
while not [child for child in psutil.Process().children() if child.status() != "zombie"]:
    time.sleep(0.01)
print(psutil.Process().children()[0].pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def vector(number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    made = np.random.default_rng(number).normal(size=DIMENSIONS).astype(np.float32)
    return made / np.linalg.norm(made)


def point(number: int, **changes: Any) -> VectorPoint:
    made = VectorPoint(
        chunk_id=str(uuid5(NAMESPACE_OID, str(number))),
        team="acme",
        document_id=str(number),
        version=1,
        text_hash="",
        dense=vector(number),
        lexical=SparseVector((number,), (1.0,)),
        access=AccessTokens((PUBLIC, f"group:{number % 10}"), ()),
        fields={},
    )
    return replace(made, **changes)


NUMBERS = {point(number).chunk_id: number for number in range(2 * SIZE)}


def search(store: EdgeVectorStore, near: int, scope: AccessScope = ANN, limit: int = 10) -> list[Candidate]:
    return store.search("docs", SearchRequest(vector(near), None, None, limit), scope)


def found(store: EdgeVectorStore, near: int, scope: AccessScope = ANN, limit: int = 10) -> list[int]:
    return [NUMBERS[candidate.chunk_id] for candidate in search(store, near, scope, limit)]


def compared(store: EdgeVectorStore, *question: Any) -> list[Candidate]:
    """The answer without any graph."""
    kept = store._shard("docs")._graph
    kept._seeker, seeker = None, kept._seeker
    try:
        return search(store, *question)
    finally:
        kept._seeker = seeker


def has_graph(store: EdgeVectorStore) -> bool:
    return store._shard("docs")._graph._seeker is not None


def settled(store: EdgeVectorStore) -> bool:
    return not store._shard("docs")._graph.busy


def graphs(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "docs" / "graph").glob("*"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "vectors"


@pytest.fixture
def store(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EdgeVectorStore]:
    """With a graph of SIZE points; another one is made after twice as many writes."""
    monkeypatch.setattr(graph, "FIRST", SIZE)
    monkeypatch.setattr(graph, "LEAST", SIZE)
    monkeypatch.setattr(graph, "_ANSWER_S", 60.0)
    store = EdgeVectorStore(root)
    store.create("docs", IndexSpec(DIMENSIONS))
    store.upsert("docs", [point(number) for number in range(SIZE)])
    until(lambda: has_graph(store), 120)
    yield store
    store.close()


class TestWhatIsFound:
    def test_the_same_as_by_comparing_all_with_the_same_scores(self, store: EdgeVectorStore) -> None:
        for scope, limit in [(ANN, 10), (GROUP, 10), (ANN, 300), (GROUP, 59), (GROUP, 100)]:
            for near in range(SIZE, SIZE + 10):
                assert search(store, near, scope, limit) == compared(store, near, scope, limit)

    def test_the_graph_is_what_proposes(self, store: EdgeVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
        nothing = graph.Proposal(frozenset({point(7).chunk_id}), since=2**40)
        monkeypatch.setattr(Seeker, "ask", lambda *_: lambda: nothing)
        assert found(store, 1, limit=1) == [7]

    def test_each_question_gets_its_own_answer_in_whatever_order_they_are_waited_for(
        self, store: EdgeVectorStore
    ) -> None:
        seeker = store._shard("docs")._graph._seeker
        assert seeker is not None
        everything = Every((Match("team", ("acme",)),))
        alone = [seeker.ask(vector(number), 5, everything)() for number in range(20)]
        waits = [seeker.ask(vector(number), 5, everything) for number in range(20)]
        del waits[7]  # somebody who asked and went away
        assert [wait() for wait in reversed(waits)] == [*reversed(alone[8:]), *reversed(alone[:7])]
        assert len({answer.chunk_ids for answer in alone if answer}) == 20

    def test_what_was_written_since_is_found_and_what_was_deleted_is_not(self, store: EdgeVectorStore) -> None:
        store.upsert("docs", [point(SIZE), point(1, dense=vector(SIZE + 1))])
        store.delete("docs", "2")
        assert found(store, SIZE)[0] == SIZE
        assert found(store, SIZE + 1)[0] == 1
        assert 2 not in found(store, 2)
        assert found(store, 3)[0] == 3

    def test_access_that_changed_since_holds_at_once(self, store: EdgeVectorStore) -> None:
        store.update("docs", "1", access=AccessTokens(("group:3",), ()))
        store.update("docs", "2", access=AccessTokens((PUBLIC,), ("user:ann",)))
        store.update("docs", "4", access=AccessTokens(("group:3",), ()))
        assert (found(store, 1)[0] == 1, found(store, 1, GROUP)[0]) == (False, 1)
        assert found(store, 2)[0] != 2
        assert found(store, 4, GROUP)[0] == 4
        everyone = {number for near in range(SIZE) for number in found(store, near)}
        assert not everyone & {1, 2, 4}

    def test_a_store_that_does_not_mark_what_is_new_is_caught(
        self, store: EdgeVectorStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store._shard("docs")._epoch = 0
        store.upsert("docs", [point(SIZE)])
        assert SIZE not in found(store, SIZE)

    def test_a_new_graph_knows_what_the_former_one_did_not(self, store: EdgeVectorStore, root: Path) -> None:
        (before,) = graphs(root)
        store.upsert("docs", [point(number) for number in range(SIZE, 2 * SIZE)])
        until(lambda: graphs(root) not in ([before], [before, "making"], sorted([before, "making"])), 120)
        until(lambda: settled(store), 120)
        (after,) = graphs(root)
        assert int(after) > int(before)
        assert store._shard("docs")._unknown == 0
        assert found(store, SIZE + 5)[0] == SIZE + 5
        assert search(store, 5) == compared(store, 5)


class TestLifeOfAGraph:
    def test_a_store_opened_again_uses_the_graph_that_is_there(self, store: EdgeVectorStore, root: Path) -> None:
        before = graphs(root)
        store.upsert("docs", [point(SIZE)])
        store.close()
        assert found(store, SIZE)[0] == SIZE
        until(lambda: has_graph(store), 120)
        assert graphs(root) == before
        assert store._shard("docs")._unknown == 1
        store.upsert("docs", [point(SIZE + 1)])
        assert [found(store, near)[0] for near in (5, SIZE, SIZE + 1)] == [5, SIZE, SIZE + 1]

    def test_a_killed_seeker_is_missed_by_nobody(self, store: EdgeVectorStore) -> None:
        expected = search(store, 5)
        store._shard("docs")._graph._seeker.kill()  # type: ignore[union-attr] # the fixture waited for it
        assert search(store, 5) == expected
        until(lambda: has_graph(store), 120)
        assert search(store, 5) == expected

    def test_a_graph_that_cannot_be_loaded_is_thrown_away(self, store: EdgeVectorStore, root: Path) -> None:
        (name,) = graphs(root)
        store.close()
        for path in (root / "docs" / "graph" / name).rglob("*.json"):
            path.write_bytes(b"torn")
        assert found(store, 5)[0] == 5
        until(lambda: settled(store), 120)
        assert (has_graph(store), graphs(root)) == (False, [])

    def test_a_dropped_index_leaves_neither_process_nor_file(self, store: EdgeVectorStore, root: Path) -> None:
        seeker = store._shard("docs")._graph._seeker
        assert seeker is not None
        child = psutil.Process(seeker._process._child.pid)
        store.drop("docs")
        assert not child.is_running()
        assert [path.name for path in root.iterdir()] == [".lock"]

    def test_a_graph_that_is_due_is_made_even_if_two_were_under_way_meanwhile(self, root: Path) -> None:
        """Otherwise the last tenth of a large import waits for a write that may never come."""
        copying, copied = Semaphore(0), Semaphore(0)

        def copy(_folder: Path) -> int:
            copying.release()
            copied.acquire()
            raise RetryableError("The disk is full.")

        graph = Graph(root, DIMENSIONS, copy)
        graph.grow()
        for _ in range(3):
            assert copying.acquire(timeout=10)
            graph.grow()
            copied.release()
        assert copying.acquire(timeout=10)
        copied.release()
        until(lambda: not graph.busy)
        assert not copying.acquire(blocking=False)
        graph.close()

    def test_writers_wait_for_the_copy_and_readers_do_not(
        self, store: EdgeVectorStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shard = store._shard("docs")
        with shard._writing:
            assert found(store, 5)[0] == 5


class TestCrashes:
    def test_a_process_killed_while_a_graph_is_made_loses_nothing_and_leaves_no_child(self, root: Path) -> None:
        command = [sys.executable, "-c", DIES_WITH_A_GRAPH_UNDER_WAY, str(root)]
        died = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=REPOSITORY)
        assert died.returncode == -signal.SIGKILL, died.stderr
        until(lambda: not psutil.pid_exists(int(died.stdout)) or _is_zombie(int(died.stdout)), 120)
        assert graphs(root) == ["making"]
        store = EdgeVectorStore(root)
        assert sorted(found(store, 1, limit=100)) == list(range(50))
        assert graphs(root) == []
        store.close()

    def test_a_maker_that_is_killed_leaves_the_store_as_it_was(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(graph, "FIRST", 50)
        monkeypatch.setattr(graph, "LEAST", 50)
        monkeypatch.setattr(graph._Process, "wait", _killing(graph._Process.wait))
        store = EdgeVectorStore(root)
        store.create("docs", IndexSpec(DIMENSIONS))
        store.upsert("docs", [point(number) for number in range(50)])
        until(lambda: settled(store), 120)
        assert "no graph was made" in caplog.text
        assert (has_graph(store), graphs(root)) == (False, [])
        assert sorted(found(store, 1, limit=100)) == list(range(50))
        store.close()


def _killing(wait: Callable[[Any], int]) -> Callable[[Any], int]:
    def killed(process: Any) -> int:
        os.kill(process._child.pid, signal.SIGKILL)
        return wait(process)

    return killed


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
