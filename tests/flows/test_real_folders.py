"""Real folders through a real sync: documentation trees without a failure, broken and malicious files without harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Service, Team

DATA = Path(__file__).parent.parent.parent.parent / "shared" / "data"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real files is not beside the project"),
]


def sync(team: Team, folder: Path) -> dict[str, Any]:
    source = {
        "name": folder.name,
        "type": "files",
        "config": {"root": str(folder.resolve()), "default_excludes": False},
        "acl": {"public": True},
    }
    made = team.admin.post("/v1/sources", json=source)
    assert made.status_code == 201, made.text
    job_id = team.admin.post(f"/v1/sources/{made.json()['id']}/sync").json()["job_id"]
    team.drain(120)
    job: dict[str, Any] = team.admin.get(f"/v1/jobs/{job_id}").json()
    return job


def failed(team: Team) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = team.manager.get("/v1/documents?status=failed&limit=1000").json()["data"]
    return found


@pytest.mark.timeout(900)
def test_four_documentation_trees_go_in_without_a_failure(service: Service) -> None:
    total = 0
    for tree in sorted((DATA / "docs").iterdir()):
        team = service.new_team()
        job = sync(team, tree)
        assert failed(team) == []
        assert job["state"] == "succeeded"
        assert job["counters"]["new"] == job["counters"]["scanned"]
        total += job["counters"]["new"]
    assert total == 1174


@pytest.mark.timeout(900)
def test_hostile_files_fail_with_a_reason_and_harm_nobody(service: Service) -> None:
    team = service.new_team()
    team.put("An innocent neighbour about gardening.", external_id="neighbour")
    job = sync(team, DATA / "files" / "hostile")
    assert job["state"] in ("succeeded", "completed_with_errors")
    for document in failed(team):
        error = document["error"]
        assert error["stage"] in ("parse", "chunk", "fetch"), document
        assert error["code"] != "internal_error", document
        assert len(error["message"]) > 20, document
    assert team.retrieve("gardening")[0]["external_id"] == "neighbour"
    assert service.anonymous.get("/readyz").status_code == 200
