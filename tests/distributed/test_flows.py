"""The main job through many processes: what one API process is told, workers do and every other one knows."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.cluster import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PUBLIC = {"public": True}


class Team:
    """A team of one test, and what its tests ask of any API process."""

    def __init__(self, service: Cluster) -> None:
        self.service = service
        self.name = f"team-{uuid.uuid4().hex[:8]}"
        service.request("POST", "/v1/teams", json={"id": self.name, "name": self.name})

    def ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return self.service.request(method, path, team=self.name, **options)

    def key(self, user: str) -> str:
        wanted = {"name": user, "scopes": ["query"], "user": user}
        return str(self.service.request("POST", f"/v1/teams/{self.name}/keys", json=wanted)["key"])

    def put(self, text: str, **fields: Any) -> dict[str, Any]:
        return self.ask("POST", "/v1/documents", json={"text": text, "acl": PUBLIC, **fields})

    def found(self, query: str, **options: Any) -> list[str]:
        answer = self.ask("POST", "/v1/retrieve", json={"query": query}, **options)
        return sorted({str(hit["external_id"]) for hit in answer["results"]})

    def source(self, folder: Path) -> str:
        wanted = {"name": "tree", "type": "files", "config": {"root": str(folder)}, "acl": PUBLIC}
        return str(self.ask("POST", "/v1/sources", json=wanted)["id"])

    def sync(self, source: str) -> str:
        return str(self.ask("POST", f"/v1/sources/{source}/sync", json={})["job_id"])

    def documents(self, source: str) -> dict[str, int]:
        counts: dict[str, int] = self.ask("GET", f"/v1/sources/{source}")["documents"]
        return counts


@pytest.fixture
def team(service: Cluster) -> Team:
    return Team(service)


def write(folder: Path, count: int, word: str = "whale", size: int = 30) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:05}.md").write_text(
            f"# Number {number}\n\nThe {word} {number} swims. " + "Waves roll. " * size
        )


def test_all_processes_started_at_once_on_an_empty_database(service: Cluster) -> None:
    for api in service.apis:
        parts = api.request("GET", "/readyz")["parts"]
        assert {name: part["ready"] for name, part in parts.items()} == dict.fromkeys(parts, True)
        assert {"database", "queue", "vectors", "embedder", "indexes"} <= set(parts)


def test_an_upload_to_one_api_process_is_found_through_the_other(service: Cluster, team: Team) -> None:
    team.put("The heron stands in the reeds.", external_id="heron")
    took = service.wait_for("the heron is found", lambda: team.found("heron reeds", api=1) == ["heron"])
    assert took < 20


def test_each_reader_finds_what_she_may_read_and_no_more_from_the_change_on(service: Cluster, team: Team) -> None:
    document = team.put("The heron of ann.", external_id="ann", acl={"users": ["ann"]})
    team.put("The heron of bob.", external_id="bob", acl={"users": ["bob"]})
    ann, bob = team.key("ann"), team.key("bob")
    service.wait_for("both are indexed", lambda: len(team.found("heron")) == 2)
    assert team.found("heron", key=ann, api=0) == ["ann"]
    assert team.found("heron", key=bob, api=1) == ["bob"]
    team.ask("PATCH", f"/v1/documents/{document['id']}/acl", json={"users": ["bob"]})
    # No waiting: the revocation holds from the commit on, whichever process is asked.
    assert team.found("heron", key=ann, api=1) == []


def test_a_source_is_synced_changed_and_synced_again(service: Cluster, team: Team, tmp_path: Path) -> None:
    write(tmp_path / "docs", 40)
    source = team.source(tmp_path / "docs")
    first = service.job(team.sync(source), team.name)
    assert (first["state"], first["counters"]["new"]) == ("succeeded", 40)
    assert team.found("whale 7", api=1)
    (tmp_path / "docs" / "00000.md").unlink()
    (tmp_path / "docs" / "00001.md").write_text("# Other\n\nA walrus instead.")
    second = service.job(team.sync(source), team.name)
    counted = {name: second["counters"][name] for name in ("new", "modified", "deleted", "skipped")}
    assert counted == {"new": 0, "modified": 1, "deleted": 1, "skipped": 38}
    assert team.found("walrus", api=1)[0] == "00001.md"
    assert "00000.md" not in team.found("whale", api=1)


def test_a_deleted_document_is_gone_for_everybody_at_once(service: Cluster, team: Team) -> None:
    document = team.put("The heron stands in the reeds.", external_id="heron")
    service.wait_for("the heron is found", lambda: team.found("heron", api=1) == ["heron"])
    team.ask("DELETE", f"/v1/documents/{document['id']}")
    assert team.found("heron", api=1) == []


def test_a_cancelled_sync_ends_and_the_next_one_completes_it(service: Cluster, team: Team, tmp_path: Path) -> None:
    write(tmp_path / "docs", 300)
    source = team.source(tmp_path / "docs")
    job_id = team.sync(source)
    service.wait_for("some documents are through", lambda: team.documents(source).get("ready", 0) > 5)
    team.ask("POST", f"/v1/jobs/{job_id}/cancel", api=1)
    assert service.job(job_id, team.name)["state"] == "canceled"
    again = service.job(team.sync(source), team.name)
    assert again["state"] == "succeeded"
    assert team.documents(source) == {"ready": 300}


def test_a_killed_api_process_and_a_killed_worker_lose_nothing(service: Cluster, team: Team, tmp_path: Path) -> None:
    write(tmp_path / "docs", 200)
    source = team.source(tmp_path / "docs")
    job_id = team.sync(source)
    service.wait_for("the workers are at it", lambda: team.documents(source).get("ready", 0) > 10)
    service.workers[0].kill()
    service.apis[0].kill()
    try:
        document = service.apis[1].request(
            "POST", "/v1/documents", team=team.name, json={"text": "Written meanwhile.", "acl": PUBLIC}
        )
        job = service.job(job_id, team.name, patience_s=240)
        assert (job["state"], job["counters"]["new"]) == ("succeeded", 200)
        counts = service.apis[1].request("GET", f"/v1/sources/{source}", team=team.name)["documents"]
        assert counts == {"ready": 200}
        assert service.job(document["job_id"], team.name)["state"] == "succeeded"
    finally:
        service.workers[0].start()
        service.apis[0].start()


def test_an_index_is_built_by_the_workers_though_one_is_killed_and_each_api_process_knows_which_answers(
    service: Cluster, team: Team
) -> None:
    count = 40
    for number in range(count):
        team.put(f"The whale {number} swims. " + "Waves roll. " * 60, external_id=f"w{number:02}")

    def answer(api: int = 0) -> tuple[int, set[str]]:
        """How many documents answer, and out of which index versions."""
        wanted = {"query": "whale", "top_k": 100, "max_chunks_per_document": 1}
        hits = team.ask("POST", "/v1/retrieve", json=wanted, api=api)["results"]
        return len(hits), {hit["provenance"]["index_version"] for hit in hits}

    service.wait_for("all answer", lambda: answer()[0] == count, patience_s=240)
    (former,) = team.ask("GET", "/v1/admin/index-versions")["data"]
    wanted = {"collection": "default", "pipeline": {"chunking": {"tokens": 40}}, "max_concurrency": 2}
    built = team.ask("POST", "/v1/admin/index-versions", json=wanted)["id"]

    def look(api: int = 0) -> dict[str, Any]:
        return team.ask("GET", f"/v1/admin/index-versions/{built}", api=api)

    service.wait_for("the build is on its way", lambda: look()["progress"]["done"] > 0)
    service.workers[0].kill()
    try:
        late = team.put("The whale that came late.", external_id="late")
        assert service.job(late["job_id"], team.name)["state"] == "succeeded"
        service.wait_for("the build is ready", lambda: look(api=1)["state"] == "ready", patience_s=240)
    finally:
        service.workers[0].start()
    team.ask("POST", f"/v1/admin/index-versions/{built}:promote", json={"force": True}, api=1)
    assert [answer(api) for api in (0, 1)] == [(count + 1, {built})] * 2
    team.ask("POST", f"/v1/admin/index-versions/{built}:rollback", api=0)
    assert [answer(api) for api in (0, 1)] == [(count + 1, {former["id"]})] * 2


def test_a_worker_told_to_stop_hands_back_what_it_holds(service: Cluster, team: Team, tmp_path: Path) -> None:
    write(tmp_path / "docs", 200)
    source = team.source(tmp_path / "docs")
    job_id = team.sync(source)
    service.wait_for("the workers are at it", lambda: team.documents(source).get("ready", 0) > 10)
    began = time.monotonic()
    try:
        assert service.workers[0].stop(patience_s=40) == 0
        # No lease runs out: that alone would take three quarters of a minute.
        job = service.job(job_id, team.name)
        assert (job["state"], job["counters"]["new"]) == ("succeeded", 200)
        assert time.monotonic() - began < 120
    finally:
        service.workers[0].start()
