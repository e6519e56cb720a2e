"""`rag admin`: beside a running service and without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rag_service.backup import manifest
from rag_service.cli import app
from rag_service.cli.serving import Serving, serving
from tests.conftest import ADMIN_KEY, Started, settings_for


def rag(data: Path, *arguments: str, exits: int = 0, url: str | None = None) -> Result:
    env = {
        "RAG_DATA_DIR": str(data),
        "RAG_EMBEDDER": "hashing",
        "RAG_ADMIN_KEY": ADMIN_KEY,
        "RAG_URL": url,
        "RAG_API_KEY": None,
        "RAG_TEAM": None,
    }
    result = CliRunner().invoke(app, arguments, env=env)
    assert result.exit_code == exits, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder of a service that was stopped."""
    with Started(settings_for(tmp_path / "data"), worker=False) as service:
        team = service.new_team()
        team.put("The canteen opens at noon.", external_id="canteen")
        service.work()
    return tmp_path / "data"


@pytest.fixture
def running(data: Path) -> Iterator[Serving]:
    with serving(settings_for(data), "127.0.0.1", 0) as started:
        yield started


def test_a_stopped_service_is_backed_up_compared_and_restored(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "backups" / "monday"
    assert "1" in rag(data, "admin", "backup", str(target)).stdout
    assert manifest.verify(target).counts["documents"] == 1
    assert "is there already" in rag(data, "admin", "backup", str(target), exits=2).stderr
    assert "All is well" in rag(data, "admin", "reconcile").stdout
    told = json.loads(rag(tmp_path / "new", "admin", "restore", str(target), "--json").stdout)
    assert told["counts"]["documents"] == 1
    assert "--force" in rag(tmp_path / "new", "admin", "restore", str(target), exits=2).stderr
    assert "rag serve" in rag(tmp_path / "new", "admin", "restore", str(target), "--force").stdout
    assert "no complete backup" in rag(tmp_path / "third", "admin", "restore", str(tmp_path), exits=2).stderr


def test_a_running_service_does_it_itself_and_the_backup_comes_to_where_it_was_asked_for(
    running: Serving, data: Path, tmp_path: Path
) -> None:
    target = tmp_path / "elsewhere" / "tuesday"
    told = json.loads(rag(data, "admin", "backup", str(target), "--json", url=running.url).stdout)
    assert told["state"] == "succeeded"
    assert told["report"]["path"] == str(target)
    assert manifest.verify(target).counts["points"] == 1
    assert list((data / "backups").iterdir()) == []
    assert "All is well" in rag(data, "admin", "reconcile", url=running.url).stdout
    assert "Another process" in rag(data, "admin", "restore", str(target), "--force", exits=2).stderr


def test_a_backup_on_another_file_system_is_copied_and_checked(
    running: Serving, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def of_one_file_system(self: Path, target: Path) -> Path:
        if self.parent == data / "backups" and not self.name.startswith("."):
            raise OSError(18, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", of_one_file_system)
    target = tmp_path / "elsewhere"
    rag(data, "admin", "backup", str(target), url=running.url)
    assert manifest.verify(target).counts["documents"] == 1
    assert list((data / "backups").iterdir()) == []


def test_what_is_not_mended_is_an_error(running: Serving, data: Path) -> None:
    vectors = running.runtime.vectors
    with running.runtime.database.read() as connection:
        from rag_service.db import collections

        (index,) = collections.all_active(connection)
    vectors.drop(index.id)
    running.runtime.catalogue.make_indexes()
    failed = rag(data, "admin", "reconcile", exits=1, url=running.url)
    assert "missing_points" in failed.stdout
    assert "--repair" in failed.stderr
    rag(data, "admin", "reconcile", "--repair", url=running.url)


def test_the_routes_of_upkeep(running: Serving, data: Path) -> None:
    import httpx

    admin = httpx.Client(base_url=running.url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}, trust_env=False)
    with admin:
        begun: Any = admin.post("/v1/admin/backups", json={"name": "wednesday"})
        assert begun.status_code == 202
        while (ended := admin.get("/v1/admin/operations").json()["data"][0])["state"] == "running":
            pass
        assert ended["id"] == begun.json()["id"]
        assert ended["report"]["path"] == str(data / "backups" / "wednesday")
        again = admin.post("/v1/admin/backups", json={"name": "wednesday"})
        assert (again.status_code, again.json()["code"]) == (409, "backup_exists")
        for name in ("../out", "/etc/x", ".hidden", "a/b", ""):
            assert admin.post("/v1/admin/backups", json={"name": name}).status_code == 422
