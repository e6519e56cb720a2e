"""Texts of many threads share the model: fairly, in small slices, and without sharing each other's failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rag_service.embedding.base import TextKind
from rag_service.embedding.batching import Batcher, Tokens
from rag_service.errors import RetryableError
from tests.waiting import until

POISON = 666


class Model:
    """A stand-in for the network: a text's vector is its first token and its length. Runs when it is let."""

    def __init__(self, lanes: int = 1) -> None:
        self.lanes = lanes
        self.slices: list[list[Tokens]] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        self.inside = 0
        self.counting = threading.Lock()

    def forward(self, texts: Sequence[Tokens]) -> NDArray[np.float32]:
        with self.counting:
            self.inside += 1
        assert self.inside <= self.lanes, "the model was run by too many threads at once"
        self.slices.append(list(texts))
        self.entered.release()
        try:
            assert self.open.wait(10)
            if any(POISON in text for text in texts):
                raise ValueError("poison")
            return np.array([[text[0], len(text)] for text in texts], dtype=np.float32)
        finally:
            with self.counting:
                self.inside -= 1


@pytest.fixture
def model() -> Model:
    return Model()


def texts_of(first: int, lengths: Sequence[int]) -> list[list[int]]:
    return [[first + place] * length for place, length in enumerate(lengths)]


class Crowd:
    """Calls from several threads, each known to be waiting before the next one is made."""

    def __init__(self, batcher: Batcher, pool: ThreadPoolExecutor) -> None:
        self._batcher = batcher
        self._pool = pool

    def call(self, texts: Sequence[Tokens], kind: TextKind) -> Future[list[NDArray[np.float32]]]:
        before = self._batcher._submissions
        answer = self._pool.submit(self._batcher.embed, texts, kind)
        until(lambda: self._batcher._submissions > before, 10)
        return answer


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 64), st.sampled_from([None, 1, 4, 16]))
@settings(max_examples=100, deadline=None)
def test_vectors_come_in_order_and_no_slice_is_larger_than_allowed(
    lengths: list[int], slice_tokens: int, step: int | None
) -> None:
    model = Model()
    vectors = Batcher(model.forward, slice_tokens, step=step).embed(texts_of(1, lengths), "document")
    assert [tuple(vector) for vector in vectors] == [(1 + place, length) for place, length in enumerate(lengths)]
    for batch in model.slices:
        padded = -(-len(batch[0]) // (step or 1)) * (step or 1)
        assert len(batch) == 1 or len(batch) * padded <= slice_tokens
        assert [len(text) for text in batch] == sorted(map(len, batch), reverse=True)
        assert step is None or padded - len(batch[-1]) < step


def test_the_text_whose_turn_it_is_is_in_the_next_slice_however_many_longer_ones_are_there(model: Model) -> None:
    batcher = Batcher(model.forward, slice_tokens=16, step=4)
    with ThreadPoolExecutor(4) as pool:
        crowd = Crowd(batcher, pool)
        model.open.clear()
        first = crowd.call([[1]], "document")
        model.entered.acquire()
        answers = [crowd.call(texts_of(10, [5]), "document"), crowd.call(texts_of(20, [8] * 4), "document")]
        model.open.set()
        assert [len(answer.result(10)) for answer in [first, *answers]] == [1, 1, 4]
    assert [10] * 5 in model.slices[1]


def test_texts_of_several_callers_share_a_slice_with_texts_of_their_length(model: Model) -> None:
    batcher = Batcher(model.forward, slice_tokens=40)
    with ThreadPoolExecutor(4) as pool:
        crowd = Crowd(batcher, pool)
        model.open.clear()
        first = crowd.call([[1]], "document")
        model.entered.acquire()
        answers = [crowd.call(texts_of(10, [20, 2]), "document"), crowd.call(texts_of(20, [20, 2]), "document")]
        model.open.set()
        assert [len(answer.result(10)) for answer in [first, *answers]] == [1, 2, 2]
    assert [sorted(map(len, batch)) for batch in model.slices] == [[1], [20, 20], [2, 2]]


def test_a_query_waits_for_the_slice_under_way_and_for_no_other(model: Model) -> None:
    batcher = Batcher(model.forward, slice_tokens=10)
    with ThreadPoolExecutor(4) as pool:
        crowd = Crowd(batcher, pool)
        model.open.clear()
        bulk = crowd.call(texts_of(100, [10] * 20), "document")
        model.entered.acquire()
        query = crowd.call([[7, 7]], "query")
        model.open.set()
        assert tuple(query.result(10)[0]) == (7, 2)
        assert len(bulk.result(10)) == 20
    assert model.slices.index([[7, 7]]) == 1


def test_the_texts_of_one_caller_run_in_all_lanes_and_in_no_more() -> None:
    model = Model(lanes=3)
    with ThreadPoolExecutor(4) as pool, ThreadPoolExecutor(1) as callers:
        crowd = Crowd(Batcher(model.forward, 10, lanes=3, executor=pool), callers)
        model.open.clear()
        answer = crowd.call(texts_of(1, [10] * 20), "document")
        for _ in range(3):
            assert model.entered.acquire(timeout=10)
        assert not model.entered.acquire(timeout=0.05)
        model.open.set()
        assert [tuple(vector) for vector in answer.result(10)] == [(1 + place, 10) for place in range(20)]


@pytest.mark.parametrize("lanes", [0, 1], ids=["in the callers' threads", "in one thread"])
def test_who_waits_is_woken_up_once_however_many_slices_the_others_have(
    lanes: int, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(texts: Sequence[Tokens]) -> NDArray[np.float32]:
        time.sleep(0.002)  # for whoever was woken up to lie down again
        return model.forward(texts)

    batcher = Batcher(forward, 10, executor=ThreadPoolExecutor(1) if lanes else None)
    waits: list[int] = []

    class Counting(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            if vars(self)["_lock"] is batcher._lock:  # and not what starts threads, say
                waits.append(threading.get_ident())
            return super().wait(timeout)

    monkeypatch.setattr(threading, "Condition", Counting)
    with ThreadPoolExecutor(8) as pool:
        crowd = Crowd(batcher, pool)
        model.open.clear()
        calls = [crowd.call(texts_of(100 * number, [10] * 10), "document") for number in range(1, 9)]
        model.open.set()
        for call in calls:
            call.result(10)
    assert len(model.slices) == 80
    assert waits
    assert len(set(waits)) == len(waits)


def test_more_lanes_than_there_are_would_be_noticed() -> None:
    model = Model(lanes=2)
    with ThreadPoolExecutor(4) as pool:
        batcher = Batcher(model.forward, 10, lanes=3, executor=pool)
        model.open.clear()
        with pytest.raises(AssertionError, match="too many threads"):
            batcher.embed(texts_of(1, [10] * 20), "document")
        model.open.set()


def test_who_comes_while_the_service_stops_hears_that_it_may_try_again(model: Model) -> None:
    pool = ThreadPoolExecutor(1)
    batcher = Batcher(model.forward, 10, executor=pool)
    pool.shutdown()
    for _ in range(2):
        with pytest.raises(RetryableError, match="stopping"):
            batcher.embed([[1]], "document")


def test_an_older_call_is_not_starved_by_newer_ones(model: Model) -> None:
    batcher = Batcher(model.forward, slice_tokens=10)
    with ThreadPoolExecutor(8) as pool:
        crowd = Crowd(batcher, pool)
        model.open.clear()
        answers = [crowd.call([[1] * 10], "document")]
        model.entered.acquire()
        answers += [
            crowd.call(texts_of(10 * number, [length]), "document") for number, length in ((1, 1), (2, 10), (3, 9))
        ]
        model.open.set()
        for answer in answers:
            answer.result(10)
    assert [batch[0][0] for batch in model.slices] == [1, 10, 20, 30]


def test_a_failing_slice_fails_those_who_have_a_text_in_it_and_nobody_else(model: Model) -> None:
    batcher = Batcher(model.forward, slice_tokens=10)
    with ThreadPoolExecutor(4) as pool:
        crowd = Crowd(batcher, pool)
        model.open.clear()
        first = crowd.call([[1] * 10], "document")
        model.entered.acquire()
        broken = crowd.call([[POISON] * 10, [2] * 9], "document")
        sound = crowd.call(texts_of(30, [8, 8]), "document")
        model.open.set()
        with pytest.raises(ValueError, match="poison"):
            broken.result(10)
        assert len(first.result(10)) == 1
        assert [tuple(vector) for vector in sound.result(10)] == [(30, 8), (31, 8)]
    assert len(batcher.embed([[5]], "query")) == 1
    assert not any(batcher._pending.values())


def test_an_interrupt_stops_its_own_thread_and_the_others_may_try_again() -> None:
    entered, proceed = threading.Event(), threading.Event()

    def forward(texts: Sequence[Tokens]) -> NDArray[np.float32]:
        entered.set()
        proceed.wait(10)
        if any(text[0] == 1 for text in texts):
            raise KeyboardInterrupt
        return np.ones((len(texts), 2), dtype=np.float32)

    batcher = Batcher(forward, slice_tokens=100)
    outcome: list[BaseException] = []

    def leader() -> None:
        try:
            batcher.embed([[1]], "document")
        except KeyboardInterrupt as error:
            outcome.append(error)

    thread = threading.Thread(target=leader)
    thread.start()
    assert entered.wait(10)
    proceed.set()
    thread.join(10)
    assert len(outcome) == 1
    assert len(batcher.embed([[2]], "document")) == 1


def test_who_shares_a_slice_with_an_interrupted_thread_hears_that_it_may_try_again(model: Model) -> None:
    batcher = Batcher(model.forward, slice_tokens=100)
    interrupted = [False]

    def forward(texts: Sequence[Tokens]) -> NDArray[np.float32]:
        if len(texts) == 2 and not interrupted[0]:
            interrupted[0] = True
            raise KeyboardInterrupt
        return model.forward(texts)

    batcher._forward = forward
    results: list[str] = []

    def caller(token: int) -> None:
        try:
            batcher.embed([[token]], "document")
            results.append("done")
        except (RetryableError, KeyboardInterrupt) as error:
            results.append(type(error).__name__)

    model.open.clear()
    threads = [threading.Thread(target=caller, args=(token,)) for token in (1, 2, 3)]
    threads[0].start()
    model.entered.acquire()
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(batcher._pending["document"]) == 2, 10)
    model.open.set()
    for thread in threads:
        thread.join(10)
    assert sorted(results) == ["KeyboardInterrupt", "RetryableError", "done"]


@pytest.mark.parametrize("lanes", [0, 1, 3], ids=["in the callers' threads", "one thread", "three threads"])
def test_many_threads_of_mixed_work_all_get_their_own_vectors(lanes: int) -> None:
    executor = ThreadPoolExecutor(lanes) if lanes else None
    batcher = Batcher(Model(lanes or 1).forward, slice_tokens=64, lanes=lanes or 1, executor=executor)

    def work(number: int) -> bool:
        kind: TextKind = "query" if number % 3 == 0 else "document"
        lengths = [1 + (number * 7 + place) % 23 for place in range(1 + number % 9)]
        vectors = batcher.embed(texts_of(1000 * number, lengths), kind)
        return [tuple(vector) for vector in vectors] == [
            (1000 * number + place, length) for place, length in enumerate(lengths)
        ]

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(work, range(1, 300)))


def test_a_short_document_does_not_wait_for_all_texts_of_a_long_one(model: Model) -> None:
    batcher = Batcher(model.forward, slice_tokens=10)
    with ThreadPoolExecutor(2) as pool:
        crowd = Crowd(batcher, pool)
        model.open.clear()
        long = crowd.call(texts_of(1, [10] * 20), "document")
        model.entered.acquire()
        short = crowd.call(texts_of(900, [10] * 2), "document")
        model.open.set()
        assert len(short.result(10)) == 2
        assert len(long.result(10)) == 20
    turns = [place for place, batch in enumerate(model.slices) if batch[0][0] >= 900]
    assert turns == [1, 3]
