"""Whatever comes between building, switching and going back: access is exact, nothing is lost, nothing is mixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.index_interleavings import MUTANTS, interleave
from tests.chaos.report import seed_of


@pytest.mark.slow
def test_index_versions_agree_with_the_catalogue_whatever_comes_between(tmp_path: Path) -> None:
    report = interleave(tmp_path, seed_of(2), examples=14)
    print(report)  # noqa: T201 - the seed of a run that failed
    assert report.wrong == ()
    assert {"builds", "promotions", "rollbacks", "cancels", "kills", "intrusions"} <= report.numbers.keys()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_variant_is_caught(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    report = interleave(tmp_path, 2, examples=60, until_wrong=True)
    assert report.wrong
