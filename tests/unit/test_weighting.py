"""What the legs of a question weigh when nobody has said."""

from __future__ import annotations

import random

import pytest

from rag_service.embedding.scripts import known_scripts, share_known
from rag_service.retrieval.fusion import fuse
from rag_service.retrieval.plan import FusionSpec
from rag_service.retrieval.weighting import Voice, weighed
from rag_service.vectors.base import Candidate

DEFAULT = FusionSpec()


def drawn(count: int, *, dense_spread: float, lexical_spread: float, level: float = 0.0) -> list[Candidate]:
    """Candidates whose two scores are independent; BM25 scores reach from 0 to ten times the spread."""
    chance = random.Random(7)
    return [
        Candidate(
            f"c{n:03}",
            level + dense_spread * chance.random(),
            n + 1,
            10 * lexical_spread * chance.random(),
            n + 1,
        )
        for n in range(count)
    ]


def weights(candidates: list[Candidate], voice: Voice | None = None, spec: FusionSpec = DEFAULT) -> tuple[float, float]:
    return weighed(spec, voice or Voice(), candidates)[0].weights


def test_weights_that_were_given_stay() -> None:
    given = FusionSpec(dense_weight=0.9)
    candidates = drawn(100, dense_spread=0.5, lexical_spread=1)
    assert weighed(given, Voice(legible=0, wordless=True, named=True), candidates) == (given, "given")


def test_few_candidates_tell_no_spread_and_take_the_usual_weights() -> None:
    assert weights(drawn(19, dense_spread=0.1, lexical_spread=1)) == pytest.approx((0.7, 0.3))


def test_a_model_whose_scores_lie_close_together_counts_more_so_that_both_legs_decide() -> None:
    wide = drawn(100, dense_spread=0.6, lexical_spread=1)
    narrow = drawn(100, dense_spread=0.06, lexical_spread=1, level=0.8)
    assert weights(narrow)[0] > weights(wide)[0]
    orders = [
        [one.candidate.chunk_id for one in fuse(candidates, weighed(DEFAULT, Voice(), candidates)[0])][:10]
        for candidates in (wide, narrow)
    ]
    assert len(set(orders[0]) & set(orders[1])) >= 9


def test_scores_stay_on_their_scale_whatever_the_weights() -> None:
    for spread in (0.0, 0.001, 0.05, 0.5):
        dense, lexical = weights(drawn(100, dense_spread=spread, lexical_spread=1))
        assert dense + lexical == pytest.approx(1)
        assert 0.3 <= dense <= 0.95


@pytest.mark.parametrize("spec", [FusionSpec(), FusionSpec("rrf")], ids=["weighted", "rrf"])
def test_a_script_that_the_model_does_not_know_leaves_the_words_in_charge(spec: FusionSpec) -> None:
    candidates = drawn(100, dense_spread=0.2, lexical_spread=1)
    known, half, unknown = (weights(candidates, Voice(legible=share), spec) for share in (1.0, 0.5, 0.0))
    whole = sum(spec.weights)
    assert known[0] > half[0] > unknown[0]
    assert unknown == pytest.approx((0.1 * whole, 0.9 * whole))
    assert "script" in weighed(spec, Voice(legible=0.0), candidates)[1]


def test_an_exact_name_raises_the_words_and_a_question_without_words_has_none() -> None:
    candidates = drawn(100, dense_spread=0.2, lexical_spread=1)
    assert weights(candidates, Voice(named=True)) == pytest.approx((0.3, 0.7))
    assert weights(candidates, Voice(wordless=True, named=True)) == (1.0, 0.0)


def test_a_script_is_known_by_more_than_its_letters() -> None:
    english = (
        [f"word{n}" for n in range(300)] + [chr(0x627 + n) for n in range(30)] + [chr(0x4E00 + n) for n in range(488)]
    )
    multilingual = english + ["كلم" + chr(0x627 + n) for n in range(28)] * 10 + [chr(0x4E00 + n) for n in range(5000)]
    assert known_scripts(english) == {"LATIN"}
    assert known_scripts(multilingual) == {"LATIN", "ARABIC", "CJK"}


def test_the_share_of_known_letters_counts_letters_only() -> None:
    assert share_known("how long?", {"LATIN"}) == 1
    assert share_known("Straße 12", {"LATIN"}) == 1
    assert share_known("12 + 34 = ?", set()) == 1
    assert share_known("كيف", {"LATIN"}) == 0
    assert share_known("ab 中文", {"LATIN"}) == 0.5
