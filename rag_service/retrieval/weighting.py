"""How much each leg of a question counts, where nobody has said: it depends on what the leg can say about it.

Each rule looks at the question, at the model, or at scores of passages that the asker may read, and at nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rag_service.retrieval.plan import FusionSpec
from rag_service.vectors.base import Candidate

# Measured on 13 collections (docs/decisions.md): with each leg's scores brought to the same spread, means of nDCG@10
# are within 0.001 for dense shares of 0.42 to 0.48, and no collection falls below its better leg by more than 0.005.
_DENSE_SHARE = 0.44
_LEAST_DENSE, _MOST_DENSE = 0.3, 0.95
_FEWEST = 20  # candidates from which a spread can be told
_LEAST_SPREAD = 0.01
# A leg that cannot read the question still breaks ties: as good as none on three collections in foreign scripts.
_ILLEGIBLE_DENSE = 0.1
_NAMED_DENSE = 0.3


@dataclass(frozen=True, slots=True)
class Voice:
    """What is known of the question before anything is searched.

    legible: share of its letters in scripts the model knows. wordless: nothing is left of it for the lexical leg.
    named: it quotes exact words or is mostly an identifier. silent: the model did not answer.
    """

    legible: float = 1.0
    silent: bool = False
    wordless: bool = False
    named: bool = False


def weighed(spec: FusionSpec, voice: Voice, candidates: Sequence[Candidate]) -> tuple[FusionSpec, str]:
    """`spec` with its weights settled, and why they are what they are. Weights that were given stay as they are."""
    if voice.silent:
        return spec, "the dense leg is unavailable"
    if spec.weights_given:
        return spec, "given"
    dense, reason = _share(spec, candidates)
    if voice.wordless:
        dense, reason = 1.0, "the question has no words that the lexical leg counts"
    elif voice.legible < 1:
        dense, reason = max(_ILLEGIBLE_DENSE, dense * voice.legible), "the model does not know the question's script"
    elif voice.named and dense > _NAMED_DENSE:
        dense, reason = _NAMED_DENSE, "the question names something exactly"
    whole = sum(spec.weights)
    return replace(spec, dense_weight=round(whole * dense, 6), lexical_weight=round(whole * (1 - dense), 6)), reason


def _share(spec: FusionSpec, candidates: Sequence[Candidate]) -> tuple[float, str]:
    usual = spec.weights[0] / sum(spec.weights)
    dense = [c.dense for c in candidates if c.dense is not None]
    lexical = [c.lexical for c in candidates if c.lexical is not None]
    highest = max(lexical, default=0.0)
    if spec.method != "weighted" or min(len(dense), len(lexical)) < _FEWEST or highest <= 0:
        return usual, "the method's own"
    by_meaning = _DENSE_SHARE / max(_LEAST_SPREAD, float(np.std(dense)))
    by_words = (1 - _DENSE_SHARE) / max(_LEAST_SPREAD, float(np.std(lexical)) / highest)
    share = by_meaning / (by_meaning + by_words)
    return min(_MOST_DENSE, max(_LEAST_DENSE, share)), "both legs' scores brought to the same spread"
