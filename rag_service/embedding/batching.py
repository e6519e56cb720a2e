"""One model, many callers: texts submitted by several threads share batches, and queries overtake documents."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rag_service.embedding.base import TextKind
from rag_service.errors import RetryableError
from rag_service.observe.metrics import embedded

Tokens: TypeAlias = Sequence[int]
# token ids of n texts, longest first -> their vectors, shape (n, dimensions)
Forward: TypeAlias = Callable[[Sequence[Tokens]], NDArray[np.float32]]
_NOTHING = np.empty((0, 0), dtype=np.float32)


@dataclass(eq=False, slots=True)
class _Submission:
    """What one call asked for: its vectors as they arrive, or why they will not.

    `spent` is how many tokens have been computed for it, counted from where the others stood when it came. `changed` is
    its own: while a slice woke up everybody who waits, threads were switched 1.7 times as often (a folder, 8 workers).
    """

    number: int
    waiting: int
    spent: int
    changed: threading.Condition
    vectors: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    error: BaseException | None = None

    @property
    def settled(self) -> bool:
        return not self.waiting or self.error is not None


@dataclass(eq=False, slots=True)
class _Text:
    tokens: Tokens
    place: int
    submission: _Submission

    @property
    def turn(self) -> tuple[int, int, int]:
        """The submission that has had least first, of equals the oldest, and its longest text first."""
        return self.submission.spent, self.submission.number, -len(self.tokens)


class Batcher:
    """Runs `forward` on at most `lanes` slices at a time, of at most `slice_tokens` tokens each, padding included.

    Slices run in the threads of `executor`; where there is none, whoever waits while a lane is free runs the next
    slice, be it of others. A slice holds the texts closest in length to the one whose turn it is, where `step` is given
    only those that are as long once lengths are rounded up to it. A slice that fails fails the calls that have a text
    in it, and no others. A query waits for at most the slices under way and the queries before it. A document of few
    texts does not wait for all texts of a long one: those who wait are served by turns.
    """

    def __init__(
        self,
        forward: Forward,
        slice_tokens: int,
        lanes: int = 1,
        executor: Executor | None = None,
        *,
        step: int | None = None,
    ) -> None:
        self._forward = forward
        self._slice_tokens = slice_tokens
        self._step = step
        self._lanes = lanes
        self._executor = executor
        self._lock = threading.Lock()
        self._running = 0
        self._submissions = 0
        self._level = 0
        self._pending: dict[TextKind, list[_Text]] = {"query": [], "document": []}

    def embed(self, texts: Sequence[Tokens], kind: TextKind) -> list[NDArray[np.float32]]:
        """One vector per text, in order. Raises what `forward` raised for a slice with one of these texts."""
        with self._lock:
            self._submissions += 1
            changed = threading.Condition(self._lock)
            submission = _Submission(self._submissions, len(texts), self._level, changed)
            self._pending[kind] += [_Text(tokens, place, submission) for place, tokens in enumerate(texts)]
        try:
            if self._executor is None:
                self._take_part(submission)
            else:
                self._employ(self._executor)
                with self._lock:
                    submission.changed.wait_for(lambda: submission.settled)
        finally:
            self._forget(submission)
        if submission.error is not None:
            raise submission.error
        return [submission.vectors[place] for place in range(len(texts))]

    def _take_part(self, submission: _Submission) -> None:
        """Run slices while a lane is free, until the texts of `submission` are done."""
        while batch := self._next_slice_for(submission):
            self._run(batch)

    def _next_slice_for(self, submission: _Submission) -> list[_Text]:
        """Wait for a lane, or until the texts of `submission` are done: then it is empty."""
        with self._lock:
            submission.changed.wait_for(lambda: submission.settled or self._may_start)
            return [] if submission.settled else self._take_slice()

    @property
    def _may_start(self) -> bool:
        return self._running < self._lanes and bool(self._first_queue)

    @property
    def _first_queue(self) -> list[_Text]:
        return self._pending["query"] or self._pending["document"]

    def _employ(self, executor: Executor) -> None:
        """Have the free lanes run slices until none are left. Raises RetryableError once the interpreter goes down."""
        with self._lock:
            idle = self._lanes - self._running if self._first_queue else 0
        try:
            for _ in range(idle):
                executor.submit(self._drain, executor)
        except RuntimeError:
            raise RetryableError("The service is stopping. Try again.") from None

    def _drain(self, executor: Executor) -> None:
        try:
            while batch := self._next_slice():
                self._run(batch)
        finally:
            self._employ(executor)

    def _next_slice(self) -> list[_Text]:
        with self._lock:
            return self._take_slice() if self._may_start else []

    def _run(self, batch: list[_Text]) -> None:
        embedded(len(batch))
        with _Settling(self, batch) as settling:
            settling.vectors = self._forward([text.tokens for text in batch])

    def settle(self, batch: Sequence[_Text], vectors: NDArray[np.float32], error: BaseException | None) -> None:
        """Hand a slice's outcome to those who wait for it."""
        with self._lock:
            self._running -= 1
            for place, text in enumerate(batch):
                text.submission.waiting -= 1
                if error is None:
                    text.submission.vectors[text.place] = vectors[place]
                else:
                    text.submission.error = error
            for submission in {text.submission for text in batch}:
                if submission.settled:
                    submission.changed.notify()

    def _take_slice(self) -> list[_Text]:
        """With the lock held, and something pending."""
        self._running += 1
        queue = self._first_queue
        queue.sort(key=lambda text: len(text.tokens), reverse=True)
        turn = min(range(len(queue)), key=lambda place: queue[place].turn)
        chosen = self._slice(queue, turn)
        self._level = queue[turn].submission.spent
        batch = queue[chosen]
        del queue[chosen]
        for text in batch:
            text.submission.spent += len(text.tokens)
        return batch

    def _slice(self, queue: Sequence[_Text], turn: int) -> slice:
        """Of `queue`, longest first, what is computed together with the text whose `turn` it is.

        Padding texts of a folder of documents to the longest of a slice took 3 % of the time, however close in length
        they were: those of one step need none beyond it.
        """
        longest = len(queue[turn].tokens)
        if self._step is None:
            return slice(turn, turn + max(1, self._slice_tokens // max(1, longest)))
        length = rounded_up(longest, self._step)
        alike = [place for place, text in enumerate(queue) if rounded_up(len(text.tokens), self._step) == length]
        rows = max(1, self._slice_tokens // max(1, length))
        first = max(alike[0], min(turn, alike[-1] + 1 - rows))
        return slice(first, min(first + rows, alike[-1] + 1))

    def _forget(self, submission: _Submission) -> None:
        """Who leaves while a lane is free has somebody else go on, of those whose threads run the slices."""
        with self._lock:
            if submission.waiting:
                for queue in self._pending.values():
                    queue[:] = [text for text in queue if text.submission is not submission]
            if self._executor is None and self._may_start:
                self._first_queue[0].submission.changed.notify()


class _Settling:
    """Makes sure that a slice is settled whatever happens: nobody may wait for ever for a run that failed."""

    def __init__(self, batcher: Batcher, batch: Sequence[_Text]) -> None:
        self._batcher = batcher
        self._batch = batch
        self.vectors = _NOTHING

    def __enter__(self) -> _Settling:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Failures reach the submitters; an interrupt also stops the thread that it was meant for."""
        interrupted = error is not None and not isinstance(error, Exception)
        reason = RetryableError("Embedding was interrupted. Try again.") if interrupted else error
        self._batcher.settle(self._batch, self.vectors, reason)
        return not interrupted


def rounded_up(length: int, step: int) -> int:
    return -(-length // step) * step


def padded(texts: Sequence[Tokens], padding: int, multiple: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and attention mask, both of shape (n, tokens of the longest text, rounded up to a `multiple`)."""
    shape = (len(texts), rounded_up(max(map(len, texts)), multiple))
    ids, mask = np.full(shape, padding, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return ids, mask
