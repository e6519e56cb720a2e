"""Many backups of one service while its documents change without a pause, each restored and compared with its own rows.

`RAG_TEST_BACKUPS=20` takes twenty (some minutes); without it there are three.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rag_service.db import collections, inventory, jobs
from rag_service.runtime.restoring import restore
from tests.churn import answers, churning, known_team, questions, rebuild, same
from tests.conftest import Service, Started, Team, settings_for
from tests.waiting import until

BACKUPS = int(os.environ.get("RAG_TEST_BACKUPS", "3"))
QUESTIONS = 100


def quietly(_stage: str, _done: int, _total: int | None) -> None:
    pass


@pytest.mark.timeout(120 + 60 * BACKUPS)
def test_every_backup_taken_while_ingesting_restores_to_what_its_own_rows_say(tmp_path: Path) -> None:
    taken = []
    with Started(settings_for(tmp_path / "data")) as service:
        team = service.new_team()
        team.retrieve("settle")
        with churning(team, seed=BACKUPS) as churn:
            for number in range(BACKUPS):
                until(lambda: churn.done >= 25 * (number + 1), 120)  # noqa: B023 - called before the next number
                ended = service.runtime.upkeep.take_backup(tmp_path / f"backup-{number}")
                assert ended.report is not None, ended.error
                assert ended.report["missing"] == {"blobs": 0, "points": 0}
                taken.append(ended.report["counts"])
        service.drain()
        assert service.runtime.upkeep.reconciler.run(quietly, mend=False)["found"] == 0
    assert taken[-1]["points"] > 50
    for number, counts in enumerate(taken):
        _check(tmp_path, number, counts, team)


def _check(tmp_path: Path, number: int, counts: dict[str, int], team: Team) -> None:
    # As many candidates as there are chunks: at the last place of a draw, a tie in the last digit would tell.
    settings = settings_for(tmp_path / f"restored-{number}", candidates=1000)
    restore(settings, tmp_path / f"backup-{number}", quietly)
    asked = questions(QUESTIONS, seed=number)
    with Started(settings, worker=False) as service:
        restored = known_team(service, team)
        assert _points(service) == counts["points"]
        found = answers(restored, asked)
        rebuild(service.runtime)
        assert same(found, answers(restored, asked)), f"backup {number}"
        service.work()
        with service.runtime.database.read() as connection:
            assert jobs.count_open(connection) == 0
        assert service.runtime.upkeep.reconciler.run(quietly, mend=False)["found"] == 0


def _points(service: Service) -> int:
    """Points in the index, which are as many as chunks that answer by the rows."""
    with service.runtime.database.read() as connection:
        indexes = collections.all_active(connection)
        expected = sum(inventory.answering_chunks(connection, index.id) for index in indexes)
    held = sum(1 for index in indexes for _ in service.runtime.vectors.stored(index.id))
    assert held == expected
    return held
