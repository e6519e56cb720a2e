"""A backup fits any database: from SQLite to Postgres and back. Needs a Postgres that tests can start."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_service.errors import Conflict
from rag_service.runtime.restoring import restore
from tests.churn import NAMES, answers, known_team, questions, same, text_of
from tests.conftest import Started, settings_for

servers = pytest.importorskip("tests.distributed.servers", reason="there is no Postgres to start here")


def quietly(_stage: str, _done: int, _total: int | None) -> None:
    pass


def test_a_service_moves_from_sqlite_to_postgres_and_back_by_backups(tmp_path: Path) -> None:
    asked = questions(40)
    with Started(settings_for(tmp_path / "first"), worker=False) as service:
        team = service.new_team()
        team.retrieve("settle")
        for number, name in enumerate(NAMES[:6]):
            team.put(text_of(number), external_id=name)
        service.work()
        before = answers(team, asked)
        assert service.runtime.upkeep.take_backup(tmp_path / "one").error is None
    with servers.postgres_server() as postgres:
        url = postgres.new_database("restored").replace("postgresql://", "postgresql+psycopg://")
        on_postgres = settings_for(tmp_path / "second", database_url=url)
        restore(on_postgres, tmp_path / "one", quietly)
        with Started(on_postgres, worker=False) as service:
            assert same(answers(known_team(service, team), asked), before)
            assert service.runtime.upkeep.reconciler.run(quietly, mend=False)["found"] == 0
            ended = service.runtime.upkeep.take_backup(tmp_path / "two")
            assert ended.report is not None, ended.error
            assert ended.report["missing"] == {"blobs": 0, "points": 0}
        with pytest.raises(Conflict, match="not empty"):
            restore(on_postgres, tmp_path / "one", quietly, force=True)
    restore(settings_for(tmp_path / "third"), tmp_path / "two", quietly)
    with Started(settings_for(tmp_path / "third"), worker=False) as service:
        assert same(answers(known_team(service, team), asked), before)
