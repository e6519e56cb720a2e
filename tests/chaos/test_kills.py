"""Kill the process again and again: nothing is lost, nothing is doubled, and work goes on soon."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.kills import killed_in_a_sync, killed_with_a_job
from tests.chaos.report import seed_of

FILES, KILLS = 400, 6


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_in_a_sync_lose_and_double_nothing(tmp_path: Path) -> None:
    report = killed_in_a_sync(tmp_path, seed_of(20_11), files=FILES, kills=KILLS)
    print(report)  # noqa: T201 - the seed of a run that failed
    assert report.wrong == ()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_kills_catch_chunk_ids_that_are_made_up_anew(tmp_path: Path) -> None:
    report = killed_in_a_sync(tmp_path, seed_of(20_11), files=FILES, kills=KILLS, mutant="random_chunk_ids")
    assert report.wrong


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_whose_holder_was_killed_is_taken_up_soon(tmp_path: Path) -> None:
    report = killed_with_a_job(tmp_path, seed_of(3), runs=2)
    print(report)  # noqa: T201 - the seed of a run that failed
    assert report.wrong == ()
