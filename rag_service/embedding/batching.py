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

    `spent` is how many tokens have been computed for it, counted from where the others stood when it came.
    """

    number: int
    waiting: int
    spent: int
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
        self._changed = threading.Condition()
        self._running = 0
        self._submissions = 0
        self._level = 0
        self._pending: dict[TextKind, list[_Text]] = {"query": [], "document": []}

    def embed(self, texts: Sequence[Tokens], kind: TextKind) -> list[NDArray[np.float32]]:
        """One vector per text, in order. Raises what `forward` raised for a slice with one of these texts."""
        with self._changed:
            self._submissions += 1
            submission = _Submission(self._submissions, len(texts), self._level)
            self._pending[kind] += [_Text(tokens, place, submission) for place, tokens in enumerate(texts)]
        try:
            while batch := self._next_slice(submission):
                self._start(batch)
        finally:
            self._forget(submission)
        if submission.error is not None:
            raise submission.error
        return [submission.vectors[place] for place in range(len(texts))]

    def _next_slice(self, submission: _Submission) -> list[_Text]:
        """The slice that the caller is to start now; empty when its own texts are done."""
        with self._changed:
            self._changed.wait_for(lambda: submission.settled or self._may_start)
            if submission.settled:
                return []
            self._running += 1
            return self._take_slice()

    @property
    def _may_start(self) -> bool:
        return self._running < self._lanes and any(self._pending.values())

    def _start(self, batch: list[_Text]) -> None:
        if self._executor is None:
            return self._run(batch)
        try:
            self._executor.submit(self._run, batch)
        except RuntimeError:  # the interpreter is going down
            self.settle(batch, _NOTHING, RetryableError("The service is stopping. Try again."))

    def _run(self, batch: list[_Text]) -> None:
        embedded(len(batch))
        with _Settling(self, batch) as settling:
            settling.vectors = self._forward([text.tokens for text in batch])

    def settle(self, batch: Sequence[_Text], vectors: NDArray[np.float32], error: BaseException | None) -> None:
        """Hand a slice's outcome to those who wait for it, and let the next slice run."""
        with self._changed:
            for place, text in enumerate(batch):
                text.submission.waiting -= 1
                if error is None:
                    text.submission.vectors[text.place] = vectors[place]
                else:
                    text.submission.error = error
            self._running -= 1
            self._changed.notify_all()

    def _take_slice(self) -> list[_Text]:
        queue = self._pending["query"] or self._pending["document"]
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
        if submission.waiting:
            with self._changed:
                for queue in self._pending.values():
                    queue[:] = [text for text in queue if text.submission is not submission]


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
