"""Cosines of different models on one scale, for questions to collections that were embedded differently.

What a cosine of 0.4 means depends on the model: each puts unrelated texts at a level of its own. So a model's level is
measured by itself, as mean and standard deviation of the cosines between twenty sentences about nothing in common, and
a cosine becomes that of the first model which stands as many deviations above its level. No document takes part in it,
so what an asker may not read cannot move a score, and equal models are not touched at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rag_service.embedding.base import Embedder
from rag_service.vectors.base import Candidate

UNRELATED = (
    "The ferry to the island leaves at six in the morning.",
    "A prime number has no divisors but one and itself.",
    "Knead the dough until it no longer sticks to your hands.",
    "The court dismissed the appeal for want of evidence.",
    "Volcanic ash drifted over three provinces.",
    "Employees may carry over five days of leave.",
    "Her violin was made in Cremona in 1721.",
    "Reset the router by holding the button for ten seconds.",
    "The striker scored twice before half time.",
    "Photosynthesis turns light into chemical energy.",
    "Interest rates were left unchanged this quarter.",
    "The novel is told by a retired postman.",
    "Wear gloves when handling the solvent.",
    "Migrating geese rest on the estuary in autumn.",
    "The bridge was closed for inspection of its cables.",
    "Vaccination reduced the number of hospital admissions.",
    "The emperor moved his capital to the river.",
    "Compile the module with optimisation switched on.",
    "Her passport expired two days before the flight.",
    "Plant the bulbs a hand's breadth deep in October.",
)
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True, slots=True)
class Level:
    """Where a model puts what has nothing to do with each other: mean and standard deviation of its cosines."""

    mean: float
    spread: float


@dataclass(frozen=True, slots=True)
class Scale:
    """Takes a model's cosines onto the scale of another one."""

    own: Level
    reference: Level

    def apply(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        return [
            Candidate(one.chunk_id, self._moved(one.dense), one.dense_rank, one.lexical, one.lexical_rank)
            for one in candidates
        ]

    def _moved(self, cosine: float | None) -> float | None:
        if cosine is None:
            return None
        return self.reference.mean + (cosine - self.own.mean) / self.own.spread * self.reference.spread


def level_of(embedder: Embedder) -> Level:
    """Costs the embedding of twenty sentences. Raises RetryableError when a remote model does not answer."""
    vectors = embedder.embed(UNRELATED, "query")
    cosines = (vectors @ vectors.T)[np.triu_indices(len(UNRELATED), k=1)]
    return Level(float(np.mean(cosines)), max(_LEAST_SPREAD, float(np.std(cosines))))
