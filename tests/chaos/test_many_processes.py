"""Several processes over a real Redis and Postgres, struck at random moments."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.many_processes import queue_lost, servers_out, zombies
from tests.chaos.report import seed_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_queue_that_is_emptied_and_killed_loses_nothing(tmp_path: Path) -> None:
    report = queue_lost(tmp_path, seed_of(1), files=80, worker_kills=2, redis_kills=1, outage_s=4)
    print(report)  # noqa: T201 - the seed of a run that failed
    assert report.wrong == ()


def test_workers_that_were_stopped_beyond_their_lease_do_no_harm(tmp_path: Path) -> None:
    report = zombies(tmp_path, seed_of(1), stops=1)
    print(report)  # noqa: T201 - the seed of a run that failed
    assert report.wrong == ()


def test_servers_that_are_away_cost_nothing_that_was_accepted(tmp_path: Path) -> None:
    report = servers_out(tmp_path, seed_of(1), rounds=1)
    print(report)  # noqa: T201 - the seed of a run that failed
    assert report.wrong == ()
    assert report.numbers["refused"]


def test_an_outage_that_is_told_as_a_fault_of_the_service_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="internal"):
        servers_out(tmp_path, seed_of(1), rounds=1, mutant="bare_database_errors")
