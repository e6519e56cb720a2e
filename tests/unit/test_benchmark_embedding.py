"""The comparison of embedders: rates side by side, and how far apart the vectors are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import embedding
from benchmarks.embedding import THEIRS, measured

PASSAGES = ("one", "two", "three")


class Clock:
    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def embedder(self, seconds: float, turned: float = 0.0) -> Callable[[Sequence[str]], NDArray[np.float32]]:
        """Takes so long for a text, and turns the vector of the last one by so many radians."""

        def embed(texts: Sequence[str]) -> NDArray[np.float32]:
            self.now += seconds * len(texts)
            angles = np.array([*[0.0] * (len(texts) - 1), turned])
            return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

        return embed


def test_rates_are_told_beside_the_usual_one_and_the_worst_vector_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(embedding, "time", clock)
    slow, fast = clock.embedder(0.5), clock.embedder(0.125, turned=0.5)
    theirs, ours = measured({THEIRS: (slow, slow), "ours": (fast, fast)}, PASSAGES, ("a question",), rounds=2)
    assert theirs == {"embedder": THEIRS, "texts_s": 2.0, "times": 1.0, "question_ms": 500.0, "cosine": 1.0}
    assert (ours["texts_s"], ours["times"], ours["question_ms"]) == (8.0, 4.0, 125.0)
    assert ours["cosine"] == pytest.approx(np.cos(0.5))
