"""Cancelling: wishes are, consequences are not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_service.db import jobs
from rag_service.types import JobKind
from tests.conftest import Service, Started, Team, settings_for
from tests.flows.test_sources import make


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Started(settings_for(tmp_path / "data"), worker=False) as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    root.mkdir()
    for name in ("leave", "parking", "lunch"):
        (root / f"{name}.md").write_text(f"# {name.title()}\n\nThe rules on {name}.")
    return root


def cancel(team: Team, job_id: str) -> dict[str, Any]:
    answer = team.manager.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 202, answer.text
    record: dict[str, Any] = answer.json()
    return record


def kept(service: Service, words: bytes) -> bool:
    """Whether any blob still holds these words."""
    blobs = (service.runtime.settings.data_dir / "blobs").rglob("*")
    return any(words in path.read_bytes() for path in blobs if path.is_file())


def everything(patch: pytest.MonkeyPatch) -> None:
    """A broken variant: whatever waits is cancelled."""
    patch.setattr(JobKind, "may_be_canceled", property(lambda _kind: True))
    patch.setattr(jobs, "_CANCELABLE", list(JobKind))


def _cancel_a_removal(service: Service, team: Team, _folder: Path) -> None:
    made = team.put("The rules on secrets.")
    service.work()
    gone = team.manager.delete(f"/v1/documents/{made['id']}").json()["job_id"]
    refused = team.manager.post(f"/v1/jobs/{gone}/cancel")
    service.work()
    assert not kept(service, b"secrets")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_cancelable")


def _cancel_a_sync(service: Service, team: Team, folder: Path) -> None:
    path = f"/v1/sources/{make(team, folder, deletion_protection={'max_percent': 100})['id']}/sync"
    team.manager.post(path)
    service.work()
    (folder / "leave.md").unlink()
    os.utime(folder / "lunch.md", (1e9, 1e9))
    job = team.manager.post(path).json()["job_id"]
    service.runtime.runner.run(job)
    assert cancel(team, job)["state"] == "canceled"
    service.work()
    assert not kept(service, b"on leave")
    touched = team.retrieve("lunch", filter={"modified_at": {"$lt": "2002-01-01"}})
    assert [hit["external_id"] for hit in touched] == ["lunch.md"]


@pytest.mark.parametrize("scenario", [_cancel_a_removal, _cancel_a_sync])
class TestWhatWasAcknowledged:
    def test_is_carried_out_whatever_is_cancelled(
        self, service: Service, team: Team, folder: Path, scenario: Callable[..., None]
    ) -> None:
        scenario(service, team, folder)

    def test_would_be_lost_if_all_that_waits_were_cancelled(
        self, service: Service, team: Team, folder: Path, scenario: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        everything(monkeypatch)
        with pytest.raises(AssertionError):
            scenario(service, team, folder)
