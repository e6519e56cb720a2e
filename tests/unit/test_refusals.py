"""Mixes of settings that cannot work are refused before anything is opened, in one sentence that names the setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rag_service.db import Database
from rag_service.errors import ConfigError
from rag_service.runtime import build
from rag_service.runtime.folder import check_shared
from rag_service.runtime.variants import Role
from rag_service.settings import Settings

WHOLE = {
    "embedder": "hashing",
    "redis_url": "redis://127.0.0.1:1/0",
    "qdrant_url": "http://127.0.0.1:1",
    "database_url": "postgresql://u@127.0.0.1:1/d",
    "admin_key": "rag_admin_of_all_processes",
}


@pytest.mark.parametrize(
    ("changed", "role", "named"),
    [
        ({"qdrant_url": None}, "api", "RAG_QDRANT_URL"),
        ({"qdrant_url": "qdrant:6333"}, "api", "RAG_QDRANT_URL"),
        ({"qdrant_url": "http://:secret@qdrant:port"}, "worker", "RAG_QDRANT_URL"),
        ({"database_url": None}, "api", "RAG_DATABASE_URL"),
        ({"database_url": "sqlite:///shared.db"}, "worker", "RAG_DATABASE_URL"),
        ({"database_url": "mysql://u:secret@h/d"}, "api", "RAG_DATABASE_URL"),
        ({"admin_key": None}, "api", "RAG_ADMIN_KEY"),
        ({"redis_url": None}, "worker", "RAG_REDIS_URL"),
        ({"redis_url": None}, "scheduler", "RAG_REDIS_URL"),
        ({"redis_url": "http://:secret@h"}, "api", "RAG_REDIS_URL"),
    ],
)
def test_an_impossible_mix_is_refused(tmp_path: Path, changed: dict[str, Any], role: Role, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as refused:
        build(Settings(data_dir=tmp_path, **{**WHOLE, **changed}), role)
    assert "secret" not in refused.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("role", ["api", "worker", "scheduler"])
def test_the_whole_mix_is_not(tmp_path: Path, role: Role) -> None:
    build(Settings.model_validate({"data_dir": tmp_path, **WHOLE}), role).close()


def test_a_worker_needs_no_admin_key(tmp_path: Path) -> None:
    build(Settings.model_validate({"data_dir": tmp_path, **WHOLE, "admin_key": None}), "worker").close()


def test_a_data_folder_that_is_not_the_one_of_the_database_is_refused(tmp_path: Path) -> None:
    for name in ("shared", "of another machine"):
        (tmp_path / name).mkdir()
    database = Database(f"sqlite:///{tmp_path / 'rag.db'}")
    database.migrate()
    check_shared(tmp_path / "shared", database)
    check_shared(tmp_path / "shared", database)
    with pytest.raises(ConfigError, match="not the one of this database"):
        check_shared(tmp_path / "of another machine", database)
    database.close()
