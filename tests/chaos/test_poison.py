"""A poison document harms itself only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.poison import POISONS, poisoned
from tests.chaos.report import seed_of


@pytest.mark.slow
def test_five_poison_documents_are_parked_and_their_neighbours_are_ready(tmp_path: Path) -> None:
    report = poisoned(tmp_path, seed_of(5), neighbours=60)
    print(report)  # noqa: T201 - the seed of a run that failed
    assert report.wrong == ()
    assert (report.numbers["ready"], report.numbers["parked"]) == (60, len(POISONS))
