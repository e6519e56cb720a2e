"""Sources over a real folder: synced, edited, emptied, held back, confirmed, paused, removed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Service, Started, Team, settings_for
from tests.flows.test_interleavings import held_with

TOPICS = ("leave", "salary", "badges", "parking", "lunch", "travel", "laptops", "training", "safety", "holidays")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "handbook"
    (root / "more").mkdir(parents=True)
    for n, topic in enumerate(TOPICS):
        (root / ("more" if n % 2 else ".") / f"{topic}.md").write_text(f"# {topic.title()}\n\nThe rules on {topic}.")
    return root


def make(team: Team, folder: Path, **more: Any) -> dict[str, Any]:
    wanted = {"name": "handbook", "type": "files", "config": {"root": str(folder)}, "acl": {"public": True}, **more}
    made = team.admin.post("/v1/sources", json=wanted)
    assert made.status_code == 201, made.text
    record: dict[str, Any] = made.json()
    return record


def sync(team: Team, source: dict[str, Any], **body: Any) -> dict[str, Any]:
    """Sync to the end; returns the job."""
    started = team.manager.post(f"/v1/sources/{source['id']}/sync", json=body or None)
    assert started.status_code == 202, started.text
    team.drain()
    job: dict[str, Any] = team.manager.get(f"/v1/jobs/{started.json()['job_id']}").json()
    return job


def get(team: Team, source: dict[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = team.manager.get(f"/v1/sources/{source['id']}").json()
    return record


def test_source_types_come_with_the_schema_of_their_configuration(team: Team) -> None:
    types = {row["type"]: row for row in team.client("query").get("/v1/source-types").json()["data"]}
    assert "root" in types["files"]["config_schema"]["required"]
    assert types["files"]["reports_acl"] is False


def test_a_folder_is_synced_and_its_files_are_found(team: Team, folder: Path) -> None:
    source = make(team, folder)
    job = sync(team, source)
    assert (job["kind"], job["state"], job["source_id"]) == ("sync", "succeeded", source["id"])
    assert job["counters"] | {} == {
        "scanned": 10,
        "new": 10,
        "modified": 0,
        "metadata_modified": 0,
        "deleted": 0,
        "skipped": 0,
        "failed": 0,
    }
    assert job["progress"] == {"done": 10, "total": 10, "percent": 100.0}
    assert {"parse", "embed", "index"} <= job["stages_ms"].keys()
    record = get(team, source)
    assert record["documents"] == {"ready": 10}
    assert record["last_success_at"] is not None
    hit = team.retrieve("rules on parking", team.client("query"))[0]
    assert hit["external_id"] == "more/parking.md"
    assert hit["provenance"]["source_id"] == source["id"]
    assert team.retrieve("rules", filter={"source": source["id"]})
    listed = team.manager.get("/v1/documents", params={"source": source["id"], "limit": 100}).json()["data"]
    assert len(listed) == 10


def test_only_what_changed_is_taken_in_again(team: Team, folder: Path) -> None:
    source = make(team, folder)
    sync(team, source)
    (folder / "leave.md").write_text("# Leave\n\nEighteen weeks of leave from now on.")
    (folder / "new.md").write_text("# New\n\nA file that was not there.")
    (folder / "lunch.md").unlink()
    counters = sync(team, source)["counters"]
    assert counters["scanned"] == 10
    assert (counters["new"], counters["modified"], counters["deleted"], counters["skipped"]) == (1, 1, 1, 8)
    assert "Eighteen" in team.retrieve("weeks of leave")[0]["text"]
    assert "lunch.md" not in {hit["external_id"] for hit in team.retrieve("lunch")}


def test_too_many_deletions_are_held_until_they_are_confirmed(team: Team, folder: Path) -> None:
    source = make(team, folder)
    sync(team, source)
    for path in (folder / "more").iterdir():
        path.unlink()
    job = sync(team, source)
    assert (job["state"], job["counters"]["deleted"]) == ("succeeded", 0)
    assert get(team, source)["held_deletions"] == 5
    assert get(team, source)["documents"] == {"ready": 10}
    assert sync(team, source, confirm_deletions=True)["counters"]["deleted"] == 5
    after = get(team, source)
    assert (after["held_deletions"], after["documents"]) == (0, {"ready": 5, "deleted": 5})
    assert "more/parking.md" not in {hit["external_id"] for hit in team.retrieve("parking")}


def test_the_share_that_may_be_deleted_unasked_is_the_sources_own(team: Team, folder: Path) -> None:
    source = make(team, folder, deletion_protection={"max_percent": 50})
    sync(team, source)
    for path in (folder / "more").iterdir():
        path.unlink()
    assert sync(team, source)["counters"]["deleted"] == 5


def test_a_file_that_cannot_be_parsed_fails_alone(team: Team, folder: Path) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing more")
    source = make(team, folder)
    job = sync(team, source)
    assert (job["state"], job["counters"]["failed"], job["counters"]["new"]) == ("completed_with_errors", 1, 11)
    assert get(team, source)["documents"] == {"ready": 10, "failed": 1}


def test_a_new_default_acl_holds_at_once_for_documents_without_their_own(team: Team, folder: Path) -> None:
    source = make(team, folder)
    sync(team, source)
    reader = team.client("query")
    kept = next(hit for hit in team.retrieve("rules on leave", reader) if hit["external_id"] == "leave.md")
    own = {"public": True}
    assert team.manager.patch(f"/v1/documents/{kept['document_id']}/acl", json=own).status_code == 202
    changed = team.manager.patch(f"/v1/sources/{source['id']}", json={"acl": {"groups": ["staff"]}})
    assert changed.json()["acl"]["groups"] == ["staff"]
    assert {hit["external_id"] for hit in team.retrieve("rules", reader, top_k=100)} == {"leave.md"}
    assert len(team.retrieve("rules", team.client("query", groups=["staff"]), top_k=100)) == 10
    sync(team, source)
    assert {hit["external_id"] for hit in team.retrieve("rules", reader, top_k=100)} == {"leave.md"}


def test_without_an_acl_of_its_own_a_source_is_read_by_managers_only(team: Team, folder: Path) -> None:
    sync(team, make(team, folder, acl={}))
    assert team.retrieve("rules", team.client("query", user="ada", groups=["staff"])) == []
    assert team.retrieve("rules")


def test_a_paused_source_does_not_sync_until_it_is_resumed(team: Team, folder: Path) -> None:
    source = make(team, folder)
    path = f"/v1/sources/{source['id']}"
    assert team.manager.post(f"{path}/pause").json()["paused"] is True
    refused = team.manager.post(f"{path}/sync")
    assert (refused.status_code, refused.json()["code"]) == (409, "source_paused")
    assert team.manager.post(f"{path}/resume").json()["paused"] is False
    assert sync(team, source)["state"] == "succeeded"


def test_a_source_with_a_schedule_is_due_at_once_and_syncs_by_itself(team: Team, folder: Path) -> None:
    source = make(team, folder, schedule_s=3600)
    assert source["next_run_at"] is not None
    team.service.runtime.sweep()
    team.drain()
    assert get(team, source)["documents"] == {"ready": 10}
    ended = team.manager.patch(f"/v1/sources/{source['id']}", json={"schedule_s": None})
    assert (ended.json()["schedule_s"], ended.json()["next_run_at"]) == (None, None)


@pytest.mark.parametrize(("documents", "left"), [("delete", 0), ("keep", 10)])
def test_a_source_is_deleted_with_its_documents_or_without(team: Team, folder: Path, documents: str, left: int) -> None:
    source = make(team, folder)
    sync(team, source)
    gone = team.manager.delete(f"/v1/sources/{source['id']}", params={"documents": documents})
    assert gone.status_code == 202
    assert len(team.retrieve("rules", team.client("query"), top_k=100)) == left
    team.drain()
    assert team.manager.get(f"/v1/sources/{source['id']}").status_code == 404
    assert len(team.retrieve("rules", team.client("query"), top_k=100)) == left


def test_what_a_source_left_is_listed_and_what_never_was_one_is_told(
    team: Team, other_team: Team, folder: Path
) -> None:
    source = make(team, folder)
    for path in ("/v1/documents", "/v1/jobs"):
        asked = partial(team.manager.get, path)
        assert asked(params={"source": source["id"]}).json()["data"] == []
        answers = [asked(params={"source": named}) for named in ("nope", source["name"])]
        answers.append(other_team.manager.get(path, params={"source": source["id"]}))
        assert {(answer.status_code, answer.json()["detail"].partition(".")[0]) for answer in answers} == {
            (404, "There is no such source in this team")
        }
    sync(team, source)
    team.manager.delete(f"/v1/sources/{source['id']}")
    gone = team.manager.get("/v1/documents", params={"source": source["id"], "status": "deleted"}).json()["data"]
    assert len(gone) == len(TOPICS)


def test_a_folder_that_went_away_fails_the_sync_and_deletes_nothing(team: Team, folder: Path) -> None:
    source = make(team, folder)
    sync(team, source)
    folder.rename(folder.with_name("elsewhere"))
    job = sync(team, source)
    assert job["state"] == "failed"
    assert job["error"]["message"]
    assert get(team, source)["last_error"]["code"] == job["error"]["code"]
    assert get(team, source)["documents"] == {"ready": 10}


def test_content_of_a_source_is_not_replaced_behind_its_back(team: Team, folder: Path) -> None:
    source = make(team, folder)
    sync(team, source)
    document = team.manager.get("/v1/documents", params={"source": source["id"]}).json()["data"][0]
    refused = team.manager.put(f"/v1/documents/{document['id']}/content", json={"text": "x"})
    assert (refused.status_code, refused.json()["code"]) == (409, "owned_by_source")


def test_a_configuration_is_tried_without_being_kept(team: Team, folder: Path) -> None:
    tried = team.admin.post("/v1/sources/validate", json={"type": "files", "config": {"root": str(folder)}})
    assert tried.status_code == 200
    assert tried.json()["items"] == 10
    assert len(tried.json()["sample"]) == 5
    assert team.manager.get("/v1/sources").json()["data"] == []


@pytest.mark.parametrize(
    ("source_type", "config", "names"),
    [
        ("carrier-pigeon", {}, "type"),
        ("files", {}, "root"),
        ("files", {"root": "relative"}, "root"),
        ("files", {"root": "/srv", "colour": "red"}, "colour"),
        ("files", {"root": "/srv", "include": []}, "include"),
    ],
)
def test_a_wrong_configuration_is_refused_by_the_name_of_its_field(
    team: Team, source_type: str, config: dict[str, Any], names: str
) -> None:
    for path, more in (("/v1/sources", {"name": "s"}), ("/v1/sources/validate", {})):
        answer = team.admin.post(path, json={"type": source_type, "config": config, **more})
        assert answer.status_code == 422
        assert names in answer.json()["detail"]
    assert team.manager.get("/v1/sources").json()["data"] == []


def test_the_servers_disk_is_read_for_admin_keys_only(team: Team, folder: Path) -> None:
    body = {"type": "files", "config": {"root": str(folder)}}
    for client in (team.manager, team.client("admin")):
        assert client.post("/v1/sources", json={"name": "s", **body}).status_code == 403
        assert client.post("/v1/sources/validate", json=body).status_code == 403
    source = make(team, folder)
    moved = team.manager.patch(f"/v1/sources/{source['id']}", json={"config": {"root": "/"}})
    assert moved.status_code == 403
    assert get(team, source)["config"] == {"root": str(folder)}


def test_within_the_source_root_managers_make_files_sources_and_nobody_outside_it(tmp_path: Path, folder: Path) -> None:
    settings = settings_for(tmp_path / "data", source_root=folder)
    with Started(settings, worker=False) as service:
        team = service.new_team()

        def make_at(root: str) -> int:
            config = {"name": root, "type": "files", "config": {"root": root}}
            return int(team.manager.post("/v1/sources", json=config).status_code)

        assert make_at(str(folder / "more")) == 201
        assert make_at(str(tmp_path)) == 422
        assert make_at(f"{folder}/../data") == 422
        assert make_at(f"{folder}-beside") == 422


def test_confirming_deletions_waits_for_a_sync_that_is_on_its_way(tmp_path: Path, folder: Path) -> None:
    with Started(settings_for(tmp_path / "data"), worker=False) as service:
        team = service.new_team()
        path = f"/v1/sources/{make(team, folder)['id']}/sync"
        first = team.manager.post(path).json()["job_id"]
        assert team.manager.post(path).json()["job_id"] == first
        confirmed = team.manager.post(path, json={"confirm_deletions": True})
        assert (confirmed.status_code, confirmed.json()["code"]) == (409, "sync_running")


def test_a_cancelled_sync_stops_and_deletes_nothing(tmp_path: Path, folder: Path) -> None:
    with Started(settings_for(tmp_path / "data"), worker=False) as service:
        _cancel_before_it_runs(service, folder)


def _cancel_before_it_runs(service: Service, folder: Path) -> None:
    team = service.new_team()
    source = make(team, folder)
    job_id = team.manager.post(f"/v1/sources/{source['id']}/sync").json()["job_id"]
    cancelled = team.manager.post(f"/v1/jobs/{job_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "canceled")
    service.work()
    assert get(team, source)["documents"] == {}
    again = team.manager.post(f"/v1/jobs/{job_id}/cancel")
    assert again.json() == cancelled.json()


def test_what_a_cancelled_sync_left_undone_the_next_one_does(tmp_path: Path, folder: Path) -> None:
    with Started(settings_for(tmp_path / "data"), worker=False) as service:
        team = service.new_team()
        source = make(team, folder)
        job_id = team.manager.post(f"/v1/sources/{source['id']}/sync").json()["job_id"]
        service.runtime.runner.run(job_id)
        team.manager.post(f"/v1/jobs/{job_id}/cancel")
        service.work()
        assert get(team, source)["documents"] == {"failed": 10}
        team.manager.post(f"/v1/sources/{source['id']}/sync")
        service.work()
        assert get(team, source)["documents"] == {"ready": 10}


def test_a_file_that_would_be_refused_as_an_upload_is_refused_in_a_source(tmp_path: Path, folder: Path) -> None:
    (folder / "manual.md").write_text("# Manual\n\n" + "The rules on everything. " * 100)
    (folder / "a-short.md").write_text("x" * 1024)
    with Started(settings_for(tmp_path / "narrow", max_upload_bytes=1024)) as service:
        team = service.new_team()
        job = sync(team, make(team, folder))
        assert (job["state"], job["counters"]["failed"]) == ("completed_with_errors", 1)
        refused = team.manager.get("/v1/documents", params={"status": "failed"}).json()["data"]
        assert [(row["external_id"], row["error"]["code"]) for row in refused] == [("manual.md", "too_large")]
        assert "RAG_MAX_UPLOAD_BYTES" in refused[0]["error"]["message"]
        assert len(held_with(service, "x" * 1024)) == 1, "put again when the other was refused"
