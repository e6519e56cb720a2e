"""A graph of neighbours for a large index: a copy of the shard, made and searched in processes of its own.

Making a graph holds the interpreter lock for as long as it takes (16 s at 100,000 points), and so does loading one
(0.6 s): in the process that serves, both would stop everything. So the graph only ever proposes. It is a copy of the
shard as it was at one moment, points written since then are known by their `epoch`, and the shard itself filters and
scores what the graph proposed together with all that is newer. A graph that is old, broken, killed or missing
changes the time of a search and nothing else; the folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock, Thread
from typing import TypeVar

from rag_service.errors import RagError
from rag_service.types import Vector
from rag_service.vectors.conditions import Every

FIRST = 50_000  # points: fewer are compared one by one as fast as another process answers
LEAST, SHARE = 5_000, 0.1  # a new graph is made for so many new points, and such a share of all
SLACK = 14  # proposals beyond the wanted ones, for points that have changed since
DEEPEST = 500  # deeper draws compare every point
_ANSWER_S = 2.0
_START_S = 300.0
_MAKING = "making"

log = logging.getLogger(__name__)

_Child = TypeVar("_Child", "_Process", "Seeker")


def is_due(unknown: int, points: int) -> bool:
    """Whether an index of so many points, so many of them unknown to its graph, is worth making a new one."""
    return points >= FIRST and unknown >= max(LEAST, SHARE * points)


@dataclass(frozen=True, slots=True)
class Proposal:
    """Chunks that may be the nearest ones among the points written before epoch `since`."""

    chunk_ids: frozenset[str]
    since: int


class _Process:
    """A child of this module's kind. It dies with us, and when it is told to."""

    def __init__(self, task: str, folder: Path, last: int, *descriptors: int) -> None:
        lifeline, self._lifeline = os.pipe()
        command = [sys.executable, "-P", "-m", f"{__name__}_process", task, str(folder), str(lifeline), str(last)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAG_")}
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)  # noqa: PTH100 - '' is the cwd here
        try:
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter with our own arguments
                command,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=(lifeline, *descriptors), env=environment, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(lifeline)

    def wait(self) -> int:
        return self._child.wait()

    def kill(self) -> None:
        self._child.kill()

    def end(self) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._lifeline)


@dataclass(eq=False, slots=True)
class _Asked:
    chunk_ids: frozenset[str] | None = None


class Seeker:
    """A process that has loaded a graph and answers one question after the other."""

    def __init__(self, folder: Path, since: int) -> None:
        self.folder = folder
        self.since = since
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _Process("serve", folder, theirs.fileno(), theirs.fileno())
        seconds, rest = divmod(_ANSWER_S, 1)
        patience = struct.pack("@ll", int(seconds), int(rest * 1e6))
        # Sending too: a child that reads nothing holds nobody up for longer than one that does not answer.
        for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, direction, patience)
        self._connection = Connection(ours.detach())
        self._sending, self._receiving = Lock(), Lock()
        self._waiting: deque[_Asked] = deque()
        self._ended = False

    def ready(self) -> bool:
        """Wait until it can be asked; False when it never will."""
        with contextlib.suppress(OSError, EOFError):
            if self._connection.poll(_START_S):
                self._connection.recv()
                return True
        return False

    def ask(self, vector: Vector, limit: int, where: Every) -> Callable[[], Proposal | None]:
        """Ask, and get the call that waits for the answer: None when there is none, now or in time.

        It is not asked again then.
        """
        asked = _Asked()
        with self._sending, self._trusting():
            if not self._ended:
                self._connection.send((vector, limit, where))
                self._waiting.append(asked)
        return lambda: self._answer(asked)

    def _answer(self, asked: _Asked) -> Proposal | None:
        """Answers come in the order of the questions: who waits for one takes those before it out of the way."""
        with self._receiving, self._trusting():
            while asked.chunk_ids is None and not self._ended:
                chunk_ids = frozenset(self._connection.recv())
                self._waiting.popleft().chunk_ids = chunk_ids
        return None if asked.chunk_ids is None else Proposal(asked.chunk_ids, self.since)

    @contextlib.contextmanager
    def _trusting(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError):
            self._ended = True
            self._process.kill()

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self._process.kill()  # whoever waits for an answer has the end of it instead
        with self._sending, self._receiving:
            self._ended = True
            self._connection.close()
            self._process.end()


class Graph:
    """Keeps the newest graph of an index, in `folder`. Nothing here raises for a graph that cannot be had.

    `copy` writes the shard as it is to a folder and gives the epoch of the points to come.
    """

    def __init__(self, folder: Path, dimensions: int, copy: Callable[[Path], int]) -> None:
        self._folder = folder
        self._dimensions = dimensions
        self._copy = copy
        self._state = Lock()
        self._seeker: Seeker | None = None
        self._worker: Thread | None = None
        self._under_way: _Process | Seeker | None = None
        self._again = False
        self._closed = False

    def open(self) -> int | None:
        """Start the newest graph there is, in the background; the epoch of the points that it does not know."""
        found = sorted(int(path.name) for path in self._folder.glob("*") if path.name.isdecimal())
        for path in self._folder.glob("*"):
            if not found or path.name != str(found[-1]):
                shutil.rmtree(path, ignore_errors=True)
        if not found:
            return None
        self._begin(lambda: self._serve(found[-1]))
        return found[-1]

    @property
    def busy(self) -> bool:
        """Whether a graph is being made or loaded."""
        return self._worker is not None

    def grow(self) -> None:
        """Make a new graph in the background, now or when what is under way is done."""
        self._begin(self._make, later=True)

    def ask(self, vector: Vector, limit: int, where: Every) -> Callable[[], Proposal | None] | None:
        """Ask what may be the `limit` nearest points that satisfy `where`, and get the call that waits for the answer.

        None where there is no graph to ask.
        """
        seeker = self._seeker
        if seeker is None or limit > DEEPEST:
            return None
        answer = seeker.ask(vector, limit + SLACK, where)
        return lambda: self._answered(seeker, answer())

    def _answered(self, seeker: Seeker, proposal: Proposal | None) -> Proposal | None:
        if proposal is None and self._replace(None, only=seeker):
            self._begin(lambda: self._serve(seeker.since))
        return proposal

    def close(self) -> None:
        with self._state:
            self._closed = True
            worker, under_way = self._worker, self._under_way
            if under_way is not None:
                under_way.kill()
        if worker is not None:
            worker.join()
        self._replace(None)

    def _begin(self, work: Callable[[], None], *, later: bool = False) -> None:
        """Do `work` in the background; while something is under way not at all, or `later` make a graph then."""
        with self._state:
            if self._worker is None:
                self._start(work)
            else:
                self._again = self._again or later

    def _start(self, work: Callable[[], None]) -> None:
        """With the state held."""
        self._again = False
        if not self._closed:
            self._worker = Thread(target=self._work, args=(work,), name="graph", daemon=True)
            self._worker.start()

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            with self._state:
                self._worker = None
                if self._again:
                    self._start(self._make)

    def _make(self) -> None:
        making = self._folder / _MAKING
        try:
            shutil.rmtree(making, ignore_errors=True)
            self._folder.mkdir(exist_ok=True)
            since = self._copy(making)
            maker = self._started(lambda: _Process("make", making, self._dimensions))
            if maker is None:
                return
            status = maker.wait()
            maker.end()
            if status:
                if not self._closed:
                    log.warning("no graph was made: its process ended with status %d; searches go on without", status)
                return
            making.rename(self._folder / str(since))
            self._serve(since)
        except (OSError, RagError) as error:
            log.warning("no graph was made (%s); searches go on without", error)
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def _serve(self, since: int) -> None:
        folder = self._folder / str(since)
        seeker = self._started(lambda: Seeker(folder, since))
        if seeker is None:
            return
        if seeker.ready():
            self._replace(seeker)
        else:
            seeker.end()
            if not self._closed:
                log.warning("a graph cannot be loaded; searches go on without")
                shutil.rmtree(folder, ignore_errors=True)

    def _started(self, start: Callable[[], _Child]) -> _Child | None:
        """A process that `close` can kill; None once closed."""
        with self._state:
            if self._closed:
                return None
            started = start()
            self._under_way = started
            return started

    def _replace(self, seeker: Seeker | None, only: Seeker | None = None) -> bool:
        """Ask `seeker` from now on; False when it is another than `only` that would be replaced."""
        with self._state:
            if only is not None and self._seeker is not only:
                return False
            former, self._seeker = self._seeker, seeker
        if former is not None:
            former.end()
            if seeker is not None:
                shutil.rmtree(former.folder, ignore_errors=True)
        return True
