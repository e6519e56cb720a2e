"""The life of a document over HTTP: taken in, found, replaced, closed off, described, deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_service.db import chunks, collections, documents
from tests.conftest import Service, Started, Team, settings_for

LEAVE = "# Parental leave\n\nEvery parent may take sixteen weeks of leave.\n\n## Pay\n\nThe salary goes on in full."
NEW_LEAVE = "# Parental leave\n\nEvery parent may take eighteen weeks of leave."


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that works only when told to, so that what holds in between can be seen."""
    with Started(settings_for(Path(tmp_path_factory.mktemp("idle"))), worker=False) as started:
        yield started


def test_a_filter_on_updated_at_means_the_time_that_the_record_shows(idle: Service) -> None:
    team = idle.new_team()
    accepted = team.put("Leave is granted.", external_id="d")
    for change in (None, {"year": 2031}):
        if change is not None:
            team.manager.patch(f"/v1/documents/{accepted['id']}/metadata", json=change).raise_for_status()
        written = team.document(accepted["id"])["updated_at"]
        idle.work()
        assert team.document(accepted["id"])["updated_at"] == written, "to be ready is no change of the document"
        assert team.retrieve("leave", filter={"updated_at": {"$gte": written, "$lte": written}})
        assert not team.retrieve("leave", filter={"updated_at": {"$gt": written}})


def test_an_uploaded_text_becomes_ready_and_is_found_with_its_exact_place(team: Team) -> None:
    accepted = team.put(LEAVE, external_id="handbook/leave", title="Leave", uri="https://x.example/leave")
    assert accepted["status"] == "accepted"
    assert (accepted["version"], accepted["deduplicated"]) == (1, False)
    team.drain()

    record = team.document(accepted["id"])
    assert record["status"] == "ready"
    assert record["indexed_version"] == 1
    assert record["chunk_count"] > 0
    assert record["searchable_at"] is not None
    assert record["content_hash"] == hashlib.sha256(LEAVE.encode()).hexdigest()
    hit = team.retrieve("how many weeks may parents take")[0]
    text = team.manager.get(f"/v1/documents/{accepted['id']}/text").json()
    assert text["version"] == 1
    assert text["text"][hit["position"]["start"] : hit["position"]["end"]] == hit["text"]
    assert (hit["title"], hit["uri"], hit["external_id"]) == ("Leave", "https://x.example/leave", "handbook/leave")


def test_a_write_points_to_the_job_that_follows_and_the_job_says_how_it_ended(team: Team) -> None:
    answer = team.manager.post("/v1/documents", json={"text": LEAVE})
    assert answer.headers["Location"] == f"/v1/jobs/{answer.json()['job_id']}"
    team.drain()
    job = team.manager.get(answer.headers["Location"]).json()
    assert (job["kind"], job["state"], job["document_id"]) == ("index", "succeeded", answer.json()["id"])
    assert job["progress"] == {"done": 1, "total": 1, "percent": 100.0}
    assert {"parse", "chunk", "embed", "index"} <= job["stages_ms"].keys()


def test_every_answer_with_a_job_points_to_it(team: Team, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(LEAVE)
    source = team.admin.post("/v1/sources", json={"name": "s", "type": "files", "config": {"root": str(tmp_path)}})
    team.manager.post("/v1/collections", json={"name": "passing"}).raise_for_status()
    probe = {"name": "p", "query": "leave", "expect": {"nothing": True}}
    probe_id = team.manager.post("/v1/probes", json=probe).json()["id"]
    document = team.put(LEAVE)["id"]
    for method, path in (
        ("POST", f"/v1/sources/{source.json()['id']}/sync"),
        ("DELETE", f"/v1/sources/{source.json()['id']}"),
        ("DELETE", "/v1/collections/passing"),
        ("POST", f"/v1/probes/{probe_id}/run"),
        ("PATCH", f"/v1/documents/{document}/metadata"),
        ("DELETE", f"/v1/documents/{document}"),
    ):
        answer = team.manager.request(method, path, json={"year": 2026} if method == "PATCH" else None)
        assert answer.status_code == 202, path
        job = answer.json()["job_id"]
        assert answer.headers.get("Location") == (f"/v1/jobs/{job}" if job else None), path
        assert job or method == "PATCH", path


def test_chunks_are_listed_in_reading_order_page_by_page(team: Team) -> None:
    text = "\n\n".join(f"## Part {n}\n\n" + f"Sentence {n} about topic {n}. " * 60 for n in range(8))
    made = team.put(text)
    team.drain()
    path, seen, cursor = f"/v1/documents/{made['id']}/chunks", [], None
    while True:
        page = team.manager.get(path, params={"limit": 3, **({"after": cursor} if cursor else {})}).json()
        assert len(page["data"]) <= 3
        seen += page["data"]
        if not page["has_more"]:
            break
        cursor = page["next_cursor"]
    assert [chunk["ordinal"] for chunk in seen] == list(range(len(seen)))
    assert len(seen) == team.document(made["id"])["chunk_count"] > 3
    whole = team.manager.get(f"/v1/documents/{made['id']}/text").json()["text"]
    assert all(whole[chunk["start"] : chunk["end"]] == chunk["text"] for chunk in seen)


def test_a_document_without_an_id_of_its_own_is_known_by_its_text(team: Team) -> None:
    made = team.put("Just a text.")
    assert made["external_id"] == f"sha256:{hashlib.sha256(b'Just a text.').hexdigest()}"


def test_the_same_content_again_makes_no_new_version(team: Team) -> None:
    first = team.put(LEAVE, external_id="leave")
    team.drain()
    again = team.put(LEAVE, external_id="leave")
    assert again == {**first, "status": "ready", "job_id": None, "deduplicated": True}


def test_the_same_content_with_other_words_about_it_embeds_nothing(team: Team) -> None:
    first = team.put(LEAVE, external_id="leave", title="Old")
    team.drain()
    again = team.put(LEAVE, external_id="leave", title="New", metadata={"year": 2026})
    assert (again["version"], again["deduplicated"]) == (1, True)
    team.drain()
    assert team.manager.get(f"/v1/jobs/{again['job_id']}").json()["kind"] == "refresh"
    hit = team.retrieve("weeks", filter={"year": 2026})[0]
    assert (hit["document_id"], hit["title"]) == (first["id"], "New")


def test_on_conflict_skip_leaves_the_document_and_error_refuses(team: Team) -> None:
    first = team.put(LEAVE, external_id="leave")
    team.drain()
    skipped = team.put(NEW_LEAVE, external_id="leave", on_conflict="skip")
    assert (skipped["id"], skipped["version"], skipped["deduplicated"]) == (first["id"], 1, True)
    refused = team.manager.post(
        "/v1/documents", json={"text": NEW_LEAVE, "external_id": "leave", "on_conflict": "error"}
    )
    assert (refused.status_code, refused.json()["code"]) == (409, "document_exists")
    assert team.document(first["id"])["version"] == 1


def test_the_old_version_answers_until_the_new_one_is_complete(idle: Service) -> None:
    team = idle.new_team()
    first = team.put(LEAVE, external_id="leave")
    assert team.retrieve("weeks of leave") == []
    idle.work()
    replaced = team.manager.put(f"/v1/documents/{first['id']}/content", json={"text": NEW_LEAVE})
    assert replaced.status_code == 202
    assert (replaced.json()["id"], replaced.json()["version"]) == (first["id"], 2)

    assert "sixteen" in team.retrieve("weeks of leave")[0]["text"]
    between = team.document(first["id"])
    assert (between["version"], between["indexed_version"], between["status"]) == (2, 1, "accepted")
    assert "sixteen" in team.manager.get(f"/v1/documents/{first['id']}/text").json()["text"]
    idle.work()
    results = team.retrieve("weeks of leave")
    assert "eighteen" in results[0]["text"]
    assert all("sixteen" not in result["text"] for result in results)
    assert {result["provenance"]["version"] for result in results} == {2}


def test_replacing_content_keeps_everything_else(team: Team) -> None:
    first = team.put(LEAVE, external_id="leave", title="T", uri="urn:u", metadata={"year": 1}, acl={"users": ["ada"]})
    team.drain()
    kept = {key: team.document(first["id"])[key] for key in ("external_id", "title", "uri", "metadata", "acl")}
    team.manager.put(f"/v1/documents/{first['id']}/content", json={"text": NEW_LEAVE})
    team.drain()
    after = team.document(first["id"])
    assert {key: after[key] for key in kept} == kept
    assert (after["version"], after["status"]) == (2, "ready")


def test_a_narrowed_acl_holds_before_any_job_has_run(idle: Service) -> None:
    team = idle.new_team()
    made = team.put(LEAVE, acl={"users": ["ada", "bob"]})
    idle.work()
    ada, bob = team.client("query", user="ada"), team.client("query", user="bob")
    assert team.retrieve("leave", bob)
    patched = team.manager.patch(f"/v1/documents/{made['id']}/acl", json={"users": ["ada"]})
    assert patched.status_code == 202
    assert team.retrieve("leave", bob) == []
    assert bob.get(f"/v1/documents/{made['id']}").status_code == 404
    idle.work()
    assert team.retrieve("leave", bob) == []
    assert team.retrieve("leave", ada)
    assert team.document(made["id"])["version"] == 1


def test_a_widened_acl_lets_in_and_a_denial_wins(team: Team) -> None:
    made = team.put(LEAVE, acl={})
    team.drain()
    ada = team.client("query", user="ada", groups=["staff", "interns"])
    assert team.retrieve("leave", ada) == []
    team.manager.patch(f"/v1/documents/{made['id']}/acl", json={"groups": ["staff"]})
    team.drain()
    assert team.retrieve("leave", ada)
    team.manager.patch(f"/v1/documents/{made['id']}/acl", json={"groups": ["staff"], "deny_groups": ["interns"]})
    assert team.retrieve("leave", ada) == []


def test_metadata_is_merged_and_null_removes(team: Team) -> None:
    made = team.put(LEAVE, metadata={"year": 2025, "kind": "policy", "tags": ["a", "b"]})
    team.drain()
    path = f"/v1/documents/{made['id']}/metadata"
    assert team.manager.patch(path, json={"year": 2026, "kind": None, "draft": False}).status_code == 202
    team.drain()
    assert team.document(made["id"])["metadata"] == {"year": 2026, "tags": ["a", "b"], "draft": False}
    assert team.retrieve("leave", filter={"year": {"$gte": 2026}})
    assert team.retrieve("leave", filter={"kind": "policy"}) == []
    events = team.manager.get(f"/v1/documents/{made['id']}/events").json()["data"]
    assert [event["kind"] for event in events] == ["fields_changed", "indexed", "accepted"]


def test_a_merge_that_would_not_be_metadata_is_refused_as_a_whole(team: Team) -> None:
    made = team.put(LEAVE, metadata={"year": 2025})
    path = f"/v1/documents/{made['id']}/metadata"
    for patch in ({"a": {"nested": 1}}, {"no good": 1}, {f"k{n}": n for n in range(64)}, {"n": 2**63}, {"n": [None]}):
        refused = team.manager.patch(path, json=patch)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), patch
    assert team.document(made["id"])["metadata"] == {"year": 2025}


def test_a_deleted_document_is_gone_at_once_and_leaves_a_tombstone_to_those_who_write(idle: Service) -> None:
    team = idle.new_team()
    made = team.put(LEAVE, metadata={"secret": "thing"}, acl={"users": ["ada"]})
    idle.work()
    reader, writer = team.client("query"), team.client("ingest")
    path = f"/v1/documents/{made['id']}"
    gone = writer.delete(path)
    assert (gone.status_code, gone.json()["status"]) == (202, "deleted")
    assert team.retrieve("leave") == []
    for client, expected in ((reader, 404), (writer, 200), (team.manager, 200)):
        assert client.get(path).status_code == expected
    for view in ("/text", "/chunks"):
        assert team.manager.get(path + view).status_code == 404
    idle.work()
    tombstone = team.document(made["id"])
    assert tombstone["deleted_at"] is not None
    assert tombstone["status"] == "deleted"
    times = {"created_at", "updated_at", "deleted_at"}
    kept = {name for name, value in tombstone.items() if value}
    assert kept == {"id", "external_id", "collection", "status", "version", *times}
    assert team.manager.get("/v1/documents").json()["data"] == []
    assert [row["id"] for row in team.manager.get("/v1/documents?status=deleted").json()["data"]] == [made["id"]]


@pytest.mark.parametrize("method", ["delete", "put", "patch"])
def test_a_deleted_document_takes_no_writes(team: Team, method: str) -> None:
    made = team.put(LEAVE)
    team.manager.delete(f"/v1/documents/{made['id']}")
    path, body = {
        "delete": ("", None),
        "put": ("/content", {"text": NEW_LEAVE}),
        "patch": ("/acl", {"public": True}),
    }[method]
    assert team.manager.request(method, f"/v1/documents/{made['id']}{path}", json=body).status_code == 404


@pytest.mark.parametrize("purged", [False, True])
def test_a_deleted_document_put_in_again_is_searchable_again(team: Team, purged: bool) -> None:
    first = team.put(LEAVE, external_id="leave")
    team.drain()
    team.manager.delete(f"/v1/documents/{first['id']}")
    if purged:
        team.drain()
    back = team.put(LEAVE, external_id="leave")
    assert (back["id"], back["version"], back["deduplicated"]) == (first["id"], 2, False)
    team.drain()
    assert {hit["document_id"] for hit in team.retrieve("leave")} == {first["id"]}


@pytest.mark.parametrize("back", ["<p>Other words.</p>", "<p></p>"])
def test_what_was_deleted_is_erased_although_the_document_came_back_before(idle: Service, back: str) -> None:
    team = idle.new_team()
    made = team.put("Secret words of the first version.", external_id="twice")
    idle.work()
    team.manager.delete(f"/v1/documents/{made['id']}")
    assert team.put(back, external_id="twice", media_type="text/html")["id"] == made["id"]
    idle.work()
    status = team.document(made["id"])["status"]
    assert status == ("failed" if back == "<p></p>" else "ready")
    runtime = idle.runtime
    with runtime.database.read() as connection:
        row = documents.load(connection, made["id"])
        assert row is not None
        index = collections.active_index(connection, row.collection_id)
        kept = chunks.page(connection, row.id, limit=100, after=None).data
    assert all(point.version == 2 for point in runtime.vectors.stored(index.id, row.id))
    assert all(chunk.version == 2 for chunk in kept)
    blobs = [path.read_bytes() for path in runtime.settings.data_dir.glob("blobs/**/*") if path.is_file()]
    assert not any(b"Secret words" in blob for blob in blobs)


def test_text_of_a_document_that_is_not_ready_is_refused_with_what_to_wait_for(idle: Service) -> None:
    team = idle.new_team()
    made = team.put(LEAVE)
    early = team.manager.get(f"/v1/documents/{made['id']}/text")
    assert (early.status_code, early.json()["code"]) == (409, "not_ready")
    idle.work()
    assert team.manager.get(f"/v1/documents/{made['id']}/text").status_code == 200


def test_a_document_that_cannot_be_parsed_fails_alone_and_says_why(team: Team) -> None:
    broken = team.manager.post("/v1/documents", files={"file": ("broken.pdf", b"%PDF-1.7 nothing", "application/pdf")})
    whole = team.put(LEAVE)
    team.drain()
    failed = team.document(broken.json()["id"])
    assert failed["status"] == "failed"
    assert failed["error"]["stage"] == "parse"
    assert failed["error"]["code"]
    assert failed["error"]["message"]
    assert team.document(whole["id"])["status"] == "ready"
    assert [row["id"] for row in team.manager.get("/v1/documents?status=failed").json()["data"]] == [failed["id"]]
