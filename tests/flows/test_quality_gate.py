"""Quality on one small collection, through the service with its real model, held to the committed baseline."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.beir import load
from benchmarks.gate import losses, read_baseline
from benchmarks.quality import MODES, measure
from benchmarks.service import running_service

COLLECTIONS = Path(__file__).parents[3] / "shared" / "data" / "collections"
SMALL = "adi"


@pytest.mark.slow
def test_no_leg_has_fallen_below_the_baseline() -> None:
    folder = COLLECTIONS / SMALL
    if not folder.is_dir():
        pytest.skip("the evaluation collections are not here")
    with running_service(log_level="warning") as service:
        measured = measure(service, load(folder))
    assert losses({SMALL: {mode: measured[mode] for mode in MODES}}, read_baseline()) == []
