"""The regression gate lets no loss of quality through, and no measurement either that was not made."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gate import BASELINE, losses, read_baseline, write_baseline
from rag_service.evaluation.metrics import ndcg

BEFORE = {"small": {"dense": 0.50, "hybrid": 0.60}, "large": {"hybrid": 0.70}}


def test_equal_or_better_quality_passes() -> None:
    assert losses(BEFORE, BEFORE) == []
    assert losses({"small": {"dense": 0.9, "hybrid": 0.9}}, BEFORE) == []


def test_a_loss_within_the_tolerance_passes_and_one_beyond_is_named() -> None:
    assert losses({"small": {"dense": 0.491, "hybrid": 0.60}}, BEFORE) == []
    [loss] = losses({"small": {"dense": 0.50, "hybrid": 0.589}}, BEFORE)
    assert loss == "small, hybrid: 0.5890, 0.6000 before"


def test_a_gain_on_one_leg_does_not_hide_the_loss_on_another() -> None:
    assert len(losses({"small": {"dense": 0.30, "hybrid": 0.90}}, BEFORE)) == 1


@pytest.mark.parametrize("measured", [{}, {"dense": 0.5}, {"dense": 0.5, "hybrid": float("nan")}])
def test_what_was_not_measured_counts_as_lost(measured: dict[str, float]) -> None:
    assert losses({"small": measured}, BEFORE)


def test_a_worsened_ranking_is_caught() -> None:
    grades = {f"q{n}": {f"d{n}": 1.0} for n in range(10)}
    good = {key: [f"d{key[1:]}", "x", "y"] for key in grades}
    # The broken variant: one answer in ten has slipped to the second place.
    broken = {key: (["x", f"d{key[1:]}"] if key == "q3" else ranking) for key, ranking in good.items()}

    def quality(rankings: dict[str, list[str]]) -> dict[str, dict[str, float]]:
        scores = [ndcg(ranking, grades[key]) for key, ranking in rankings.items()]
        return {"small": {"hybrid": sum(scores) / len(scores)}}

    assert losses(quality(good), quality(good)) == []
    assert losses(quality(broken), quality(good))


def test_a_baseline_keeps_the_collections_that_were_not_measured(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    write_baseline(BEFORE, file)
    write_baseline({"small": {"dense": 0.123456}}, file)
    assert read_baseline(file) == {"small": {"dense": 0.1235}, "large": {"hybrid": 0.70}}


def test_the_committed_baseline_names_every_leg() -> None:
    baseline = read_baseline(BASELINE)
    assert baseline
    for legs in baseline.values():
        assert legs.keys() == {"dense", "lexical", "hybrid"}
        assert all(0 < value <= 1 for value in legs.values())
