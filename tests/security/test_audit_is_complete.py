"""Whatever changes what is there or who may read it is in the audit log: who, from where, what, before and after.

A new route that writes fails these tests until it has its row here, and its entry in the log.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from rag_service.db import Transaction, audit, builds, documents, jobs
from rag_service.db.audit import AuditFilter, Recorded
from rag_service.db.audit_chain import verify
from rag_service.types import DocumentFailure, IndexState, JobState
from tests.conftest import Service, Started, Team, settings_for

VERSIONS = "/v1/admin/index-versions"
# Routes that concern all teams.
OF_THE_SERVICE = {"create_backup", "reconcile", "accept_fingerprint"}
# Routes that are asked by POST and change nothing.
READING = {"retrieve", "why_not", "replay_query", "validate_source", "test_webhook"}
# What is said of an answer is its own record of who said it.
READING |= {"give_feedback"}


@dataclass
class Place:
    """A team to act in, with one fresh thing of each kind on demand."""

    team: Team
    folder: Path
    made: dict[str, str] = field(default_factory=dict)

    def document(self) -> str:
        return str(self.team.put(f"A text {uuid.uuid4()}.")["id"])

    def source(self) -> str:
        body = {"name": f"s-{uuid.uuid4()}", "type": "files", "config": {"root": str(self.folder)}}
        return str(self.team.admin.post("/v1/sources", json=body).json()["id"])

    def collection(self) -> str:
        made = self.team.manager.post("/v1/collections", json={"name": f"c-{uuid.uuid4().hex}"})
        return str(made.json()["id"])

    def query_set(self) -> str:
        return str(self.team.manager.post("/v1/query-sets", json={"name": fresh("set")}).json()["id"])

    def webhook(self) -> str:
        body = {"url": "https://hooks.example/hook", "events": ["probe.failed"]}
        return str(self.team.manager.post("/v1/webhooks", json=body).json()["id"])

    def feedback(self) -> str:
        query = self.team.manager.post("/v1/retrieve", json={"query": "x"}).json()["query_id"]
        said = self.team.manager.post("/v1/feedback", json={"query_id": query, "rating": "like"})
        return str(said.json()["id"])

    def key(self) -> str:
        body = {"name": "k", "scopes": ["query"]}
        return str(self.team.manager.post(f"/v1/teams/{self.team.id}/keys", json=body).json()["id"])

    def probe(self) -> str:
        return str(self.team.manager.post("/v1/probes", json={"name": fresh("p"), **EXPECTS_NOTHING}).json()["id"])


EXPECTS_NOTHING: dict[str, Any] = {"query": "q", "expect": {"nothing": True}}


def fresh(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


Ask = Callable[[Place, TestClient], Response]


def _resumed(at: Place, client: TestClient) -> Response:
    path = f"/v1/sources/{at.source()}"
    at.team.manager.post(f"{path}/pause")
    answer: Response = client.post(f"{path}/resume")
    return answer


def _judged_set(at: Place, client: TestClient) -> Response:
    document = at.document()
    at.team.service.work()
    query = at.team.admin.post("/v1/retrieve", json={"query": "a text"}).json()["query_id"]
    liked = {"query_id": query, "document_id": document, "rating": "like"}
    at.team.admin.post("/v1/feedback", json=liked).raise_for_status()
    answer: Response = client.post("/v1/query-sets:from-feedback", json={"name": fresh("set")})
    return answer


# By operation: the action in the log, and a request that succeeds.
WRITING: dict[str, tuple[str, Ask]] = {
    "create_team": ("team.created", lambda _, client: client.post("/v1/teams", json={"name": fresh("team")})),
    "create_key": (
        "key.created",
        lambda at, client: client.post(f"/v1/teams/{at.team.id}/keys", json={"name": "k", "scopes": ["query"]}),
    ),
    "revoke_key": ("key.revoked", lambda at, client: client.delete(f"/v1/teams/{at.team.id}/keys/{at.key()}")),
    "create_backup": ("backup.started", lambda _, client: client.post("/v1/admin/backups", json={})),
    "reconcile": ("reconcile.started", lambda _, client: client.post("/v1/admin/reconcile", json={})),
    "create_reindex": (
        "reindex.started",
        lambda at, client: client.post(
            "/v1/admin/reindex", json={"scope": {"team": at.team.id}, "from_stage": "metadata"}
        ),
    ),
    "create_collection": (
        "collection.created",
        lambda _, client: client.post("/v1/collections", json={"name": fresh("c")}),
    ),
    "update_collection": (
        "collection.changed",
        lambda at, client: client.patch(f"/v1/collections/{at.collection()}", json={"name": fresh("d")}),
    ),
    "delete_collection": (
        "collection.deleted",
        lambda at, client: client.delete(f"/v1/collections/{at.collection()}"),
    ),
    "create_document": (
        "document.created",
        lambda _, client: client.post("/v1/documents", json={"text": "A text.", "external_id": fresh("x")}),
    ),
    "create_documents": (
        "document.created",
        lambda _, client: client.post("/v1/documents:batch", json={"documents": [{"text": fresh("a")}]}),
    ),
    "replace_document_content": (
        "document.replaced",
        lambda at, client: client.put(f"/v1/documents/{at.document()}/content", json={"text": fresh("b")}),
    ),
    "update_document_metadata": (
        "document.changed",
        lambda at, client: client.patch(f"/v1/documents/{at.document()}/metadata", json={"k": 1}),
    ),
    "replace_document_acl": (
        "document.acl_changed",
        lambda at, client: client.patch(f"/v1/documents/{at.document()}/acl", json={"groups": ["staff"]}),
    ),
    "delete_document": ("document.deleted", lambda at, client: client.delete(f"/v1/documents/{at.document()}")),
    "create_source": (
        "source.created",
        lambda at, client: client.post(
            "/v1/sources", json={"name": fresh("s"), "type": "files", "config": {"root": str(at.folder)}}
        ),
    ),
    "update_source": (
        "source.changed",
        lambda at, client: client.patch(f"/v1/sources/{at.source()}", json={"acl": {"groups": ["staff"]}}),
    ),
    "delete_source": ("source.deleted", lambda at, client: client.delete(f"/v1/sources/{at.source()}")),
    "sync_source": ("source.sync_requested", lambda at, client: client.post(f"/v1/sources/{at.source()}/sync")),
    "pause_source": ("source.paused", lambda at, client: client.post(f"/v1/sources/{at.source()}/pause")),
    "resume_source": ("source.resumed", _resumed),
    "create_query_set": (
        "query_set.created",
        lambda _, client: client.post("/v1/query-sets", json={"name": fresh("set")}),
    ),
    "import_query_set": (
        "query_set.created",
        lambda _, client: client.post(
            "/v1/query-sets:import", data={"name": fresh("set")}, files={"file": b"query,external_id\nq,a\n"}
        ),
    ),
    "create_query_set_from_feedback": ("query_set.created", _judged_set),
    "update_query_set": (
        "query_set.changed",
        lambda at, client: client.patch(f"/v1/query-sets/{at.query_set()}", json={"description": "d"}),
    ),
    "add_labelled_queries": (
        "query_set.changed",
        lambda at, client: client.post(f"/v1/query-sets/{at.query_set()}/queries", json={"queries": []}),
    ),
    "replace_labelled_queries": (
        "query_set.changed",
        lambda at, client: client.put(f"/v1/query-sets/{at.query_set()}/queries", json={"queries": []}),
    ),
    "delete_query_set": ("query_set.deleted", lambda at, client: client.delete(f"/v1/query-sets/{at.query_set()}")),
    "create_index_version": (
        "index_version.created",
        lambda at, client: client.post(VERSIONS, json={"collection": at.collection()}),
    ),
    "update_index_version": (
        "index_version.changed",
        lambda at, client: client.patch(f"{VERSIONS}/{_index(at)}", json={"priority": "low"}),
    ),
    "pause_index_version": (
        "index_version.paused",
        lambda at, client: client.post(f"{VERSIONS}/{_index(at)}:pause"),
    ),
    "resume_index_version": (
        "index_version.resumed",
        lambda at, client: client.post(f"{VERSIONS}/{_index(at)}:resume"),
    ),
    "cancel_index_version": (
        "index_version.cancelled",
        lambda at, client: client.post(f"{VERSIONS}/{_index(at)}:cancel"),
    ),
    "evaluate_index_version": (
        "index_version.evaluated",
        lambda at, client: client.post(
            f"{VERSIONS}/{_index(at, 'catching_up')}:evaluate", json={"query_set": _questions(at)}
        ),
    ),
    "promote_index_version": (
        "index_version.promoted",
        lambda at, client: client.post(f"{VERSIONS}/{_index(at)}:promote", json={"force": True}),
    ),
    "rollback_index_version": (
        "index_version.rolled_back",
        lambda at, client: client.post(f"{VERSIONS}/{_promoted(at)}:rollback"),
    ),
    "cancel_job": ("job.canceled", lambda at, client: client.post(f"/v1/jobs/{_job(at)}/cancel")),
    "delete_feedback": ("feedback.deleted", lambda at, client: client.delete(f"/v1/feedback/{at.feedback()}")),
    "create_webhook": (
        "webhook.created",
        lambda _, client: client.post(
            "/v1/webhooks", json={"url": "https://hooks.example", "events": ["probe.failed"]}
        ),
    ),
    "update_webhook": (
        "webhook.changed",
        lambda at, client: client.patch(f"/v1/webhooks/{at.webhook()}", json={"enabled": False}),
    ),
    "delete_webhook": ("webhook.deleted", lambda at, client: client.delete(f"/v1/webhooks/{at.webhook()}")),
    "rotate_webhook_secret": (
        "webhook.secret_rotated",
        lambda at, client: client.post(f"/v1/webhooks/{at.webhook()}:rotate"),
    ),
    "recover_webhook": (
        "webhook.replayed",
        lambda at, client: client.post(f"/v1/webhooks/{at.webhook()}:recover", json={"since": "2026-01-31T12:00:00Z"}),
    ),
    "retry_dead_letters": (
        "dead_letter.retried",
        lambda at, client: client.post("/v1/admin/dead-letters:retry", json={"ids": [_letter(at)]}),
    ),
    "discard_dead_letters": (
        "dead_letter.discarded",
        lambda at, client: client.post("/v1/admin/dead-letters:discard", json={"ids": [_letter(at)]}),
    ),
    "create_probe": (
        "probe.created",
        lambda _, client: client.post("/v1/probes", json={"name": fresh("p"), **EXPECTS_NOTHING}),
    ),
    "update_probe": (
        "probe.changed",
        lambda at, client: client.patch(f"/v1/probes/{at.probe()}", json={"every_s": 60}),
    ),
    "delete_probe": ("probe.deleted", lambda at, client: client.delete(f"/v1/probes/{at.probe()}")),
    "run_probe": ("probe.run_requested", lambda at, client: client.post(f"/v1/probes/{at.probe()}/run")),
    "pause_probe": ("probe.paused", lambda at, client: client.post(f"/v1/probes/{at.probe()}/pause")),
    "resume_probe": ("probe.resumed", lambda at, client: client.post(f"/v1/probes/{_paused_probe(at)}/resume")),
    "accept_fingerprint": (
        "fingerprint.accepted",
        lambda _, client: client.post("/v1/admin/fingerprints:accept", json={"model": "hashing"}),
    ),
}


def _paused_probe(at: Place) -> str:
    probe_id = at.probe()
    at.team.manager.post(f"/v1/probes/{probe_id}/pause")
    return probe_id


def _job(at: Place) -> str:
    return str(at.team.put(fresh("text"))["job_id"])


def _index(at: Place, state: str = "building") -> str:
    """An index version of the team's collection that is being built."""
    made = str(at.team.admin.post(VERSIONS, json={}).json()["id"])
    with at.team.service.runtime.database.transaction() as transaction:
        assert builds.change(transaction.connection, made, tuple(IndexState), state=state)
    return made


def _promoted(at: Place) -> str:
    index = _index(at)
    at.team.admin.post(f"{VERSIONS}/{index}:promote", json={"force": True}).raise_for_status()
    return index


def _questions(at: Place) -> str:
    body = {"name": fresh("set"), "queries": [{"query": "what", "expect_nothing": True}]}
    return str(at.team.manager.post("/v1/query-sets", json=body).json()["name"])


def _letter(at: Place) -> str:
    """A job that gave up."""
    job_id = _job(at)
    with at.team.service.runtime.database.transaction() as transaction:
        job = jobs.claim(transaction.connection, job_id, 60)
        assert job is not None
        assert job.document_id is not None
        assert job.version is not None
        failure = DocumentFailure("embed", "no_key", "The API refuses our key.", retryable=True, error_class="auth")
        assert jobs.finish(transaction.connection, job, JobState.FAILED, error=asdict(failure))
        documents.fail(transaction.connection, job.document_id, job.version, failure)
    return job_id


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Started(settings_for(tmp_path_factory.mktemp("audited"), trace_content=True), worker=False) as service:
        yield service


@pytest.fixture
def place(own: Service, tmp_path: Path) -> Place:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("A page of the folder.")
    return Place(own.new_team(), folder)


def log(service: Service, **narrowing: Any) -> list[Recorded]:
    with service.runtime.database.read() as connection:
        return list(audit.in_order(connection, AuditFilter(**narrowing)))


def operations(service: Service) -> dict[str, str]:
    paths = service.anonymous.get("/openapi.json").json()["paths"]
    return {details["operationId"]: method for item in paths.values() for method, details in item.items()}


def entry_of(place: Place, operation: str) -> list[Recorded]:
    """Do it under a request id of its own; returns the entries of that request."""
    action, ask = WRITING[operation]
    request_id = f"audit-{uuid.uuid4()}"
    client = place.team.admin
    client.headers["X-Request-Id"] = request_id
    answer = ask(place, client)
    assert answer.status_code < 300, answer.text
    found = log(place.team.service, request_id=request_id)
    assert {entry.action for entry in found} <= {action}
    return found


def test_every_route_that_writes_is_tried_here(own: Service) -> None:
    asked = {operation for operation, method in operations(own).items() if method != "get"}
    assert asked == WRITING.keys() | READING


def test_the_table_of_actions_names_them_all() -> None:
    told = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    assert {action for action, _ in WRITING.values() if f"`{action}`" not in told} == set()


@pytest.mark.parametrize("operation", WRITING)
def test_every_route_that_writes_leaves_an_entry(place: Place, operation: str) -> None:
    (entry,) = entry_of(place, operation)
    assert entry.outcome == "done"
    assert entry.target
    of_no_team = operation in OF_THE_SERVICE
    assert entry.team_id == (None if of_no_team else entry.target if operation == "create_team" else place.team.id)
    assert entry.author["kind"] == "admin_key"
    assert entry.author["address"] == "testclient"


def test_a_route_that_forgets_the_log_would_be_noticed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transaction, "audit", lambda *_, **__: None)
    assert entry_of(place, "replace_document_acl") == []


def test_an_acl_is_told_as_it_was_and_as_it_is_and_texts_are_not(place: Place) -> None:
    made = place.team.put("A secret text.", title="A secret title", acl={"users": ["ada"]}, metadata={"k": "a secret"})
    path = f"/v1/documents/{made['id']}"
    place.team.manager.patch(f"{path}/acl", json={"groups": ["staff"], "deny_users": ["eve"]})
    place.team.manager.patch(f"{path}/metadata", json={"k": "another secret"})
    place.team.manager.delete(path)
    created, changed, described, deleted = log(place.team.service, target=made["id"])
    nobody = {"public": False, "users": [], "groups": [], "deny_users": [], "deny_groups": []}
    first, second = {**nobody, "users": ["ada"]}, {**nobody, "groups": ["staff"], "deny_users": ["eve"]}
    assert (created.before, created.after) == (None, {"acl": first})
    assert (changed.before, changed.after) == ({"acl": first}, {"acl": second})
    assert described.action == "document.changed"
    assert (deleted.before, deleted.after) == ({"acl": second}, None)
    told = " ".join(entry.exported() for entry in (created, changed, described, deleted))
    assert "secret" not in told


def test_who_acts_is_told_with_the_person_a_key_speaks_for(place: Place) -> None:
    client = place.team.client("ingest", user="ada", groups=["staff", "hr"])
    made = client.post("/v1/documents", json={"text": "By Ada."}).json()
    (entry,) = log(place.team.service, target=made["id"])
    keys = place.team.manager.get(f"/v1/teams/{place.team.id}/keys").json()["data"]
    assert entry.author == {
        "kind": "key",
        "key_id": next(key["id"] for key in keys if key["user"] == "ada"),
        "key_name": "a test's key",
        "user": "ada",
        "groups": ["hr", "staff"],
        "address": "testclient",
        "request_id": entry.author["request_id"],
    }


def test_a_request_that_fails_leaves_none(place: Place) -> None:
    before = len(log(place.team.service))
    assert place.team.manager.patch("/v1/collections/default", json={"name": "x"}).status_code == 409
    assert place.team.manager.post("/v1/documents", json={"text": ""}).status_code == 422
    assert place.team.manager.delete("/v1/documents/doc_none").status_code == 404
    assert place.team.manager.post("/v1/retrieve", json={"query": "x"}).status_code == 200
    after = log(place.team.service)[before:]
    assert {entry.action for entry in after} <= {"key.created"}


def test_a_job_that_has_ended_is_not_on_record_as_cancelled(place: Place) -> None:
    failed, waiting = _letter(place), _job(place)
    for job_id in (failed, waiting, waiting):
        assert place.team.manager.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    entries = log(place.team.service, team_id=place.team.id, action="job.canceled")
    assert [entry.target for entry in entries] == [waiting]


def test_what_a_valid_key_may_not_do_is_on_record_as_refused(place: Place) -> None:
    client = place.team.client("query")
    secret = "not-for-the-log"
    assert client.delete(f"/v1/documents/{secret}").status_code == 403
    assert place.team.service.anonymous.delete(f"/v1/documents/{secret}").status_code == 401
    (entry,) = log(place.team.service, team_id=place.team.id, outcome="refused")
    assert (entry.action, entry.target, entry.author["kind"]) == ("request.refused", "delete_document", "key")
    assert secret not in entry.exported()


def test_every_letter_has_an_entry_of_its_own_that_says_what_it_was_of(place: Place) -> None:
    ids = sorted(_letter(place) for _ in range(3))
    asked = {"filter": {"team": place.team.id, "error_class": "auth"}}
    service = place.team.service
    assert service.admin.post("/v1/admin/dead-letters:discard", json=asked).json() == {"discarded": 3}
    assert service.admin.post("/v1/admin/dead-letters:discard", json=asked).json() == {"discarded": 0}
    entries = log(service, team_id=place.team.id, action="dead_letter.discarded")
    assert sorted(entry.target for entry in entries) == ids
    assert {(entry.detail["kind"], entry.detail["code"]) for entry in entries} == {("index", "no_key")}
    assert all(entry.detail["document"].startswith("doc_") for entry in entries)


def test_what_a_sync_changes_of_access_is_on_record_under_its_job(place: Place) -> None:
    team, service = place.team, place.team.service
    for number in range(4):
        (place.folder / f"{number}.md").write_text(f"Page {number}.")
    source = place.source()
    path = f"/v1/sources/{source}"
    team.manager.post(f"{path}/sync")
    service.work()
    for number in range(4):
        (place.folder / f"{number}.md").unlink()
    job_id = team.manager.post(f"{path}/sync", json={"confirm_deletions": True}).json()["job_id"]
    service.work()
    (gone,) = log(service, action="documents.deleted", team_id=team.id)
    assert gone.target == source
    assert gone.author == {"kind": "worker", "request_id": job_id}
    assert len(gone.detail["documents"]) == 4
    team.manager.delete(path)
    rest = log(service, action="documents.deleted", team_id=team.id)[-1]
    assert len(rest.detail["documents"]) == 1
    assert rest.author["kind"] == "key"


def test_the_log_holds_together_after_all_that(own: Service, place: Place) -> None:
    place.document()
    with own.runtime.database.read() as connection:
        chain = verify(connection)
    assert chain.faults == []
    assert chain.seq == len(log(own)) > 3


def test_a_team_sees_its_own_entries_and_the_service_sees_all(own: Service, place: Place) -> None:
    other = own.new_team()
    other.put("Theirs.")
    place.document()
    insider = place.team.client("admin")
    mine = insider.get("/v1/admin/audit", params={"limit": 1000}).json()["data"]
    assert {entry["team_id"] for entry in mine} == {place.team.id}
    assert {"team.created", "key.created", "document.created"} <= {entry["action"] for entry in mine}
    everything = own.admin.get("/v1/admin/audit", params={"limit": 1000}).json()["data"]
    assert {place.team.id, other.id} <= {entry["team_id"] for entry in everything}
    named = other.admin.get("/v1/admin/audit").json()["data"]
    assert {entry["team_id"] for entry in named} == {other.id}
    assert place.team.manager.get("/v1/admin/audit").status_code == 403


def test_the_log_is_read_page_by_page_and_narrowed(own: Service, place: Place) -> None:
    ids = [place.document() for _ in range(5)]
    client = place.team.client("admin")

    def page(**params: Any) -> dict[str, Any]:
        answer = client.get("/v1/admin/audit", params=params)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    first = page(action="document.*", limit=3)
    second = page(action="document.*", limit=3, after=first["next_cursor"])
    assert [entry["target"] for entry in first["data"] + second["data"]] == ids[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)
    one = page(target=ids[2])["data"][0]
    assert [entry["seq"] for entry in page(since=one["at"], action="document.*")["data"]][-1] == one["seq"]
    assert one["seq"] not in [entry["seq"] for entry in page(until=one["at"])["data"]]
    assert [entry["target"] for entry in page(request_id=one["author"]["request_id"])["data"]] == [ids[2]]
    assert len(page(key=one["author"]["key_id"], action="document.created")["data"]) == 5
    assert page(outcome="refused")["data"] == []
    for wrong in ({"outcome": "x"}, {"since": "yesterday"}, {"since": "2026-01-01T00:00:00"}):
        assert client.get("/v1/admin/audit", params=wrong).status_code == 422


def test_the_log_is_taken_away_as_json_lines_that_verify(own: Service, place: Place) -> None:
    place.document()
    answer = own.admin.get("/v1/admin/audit/export")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = answer.text.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))
    from rag_service.db.audit_chain import Chain

    assert Chain().follow(map(Recorded.parsed, lines)).faults == []
    narrowed = place.team.client("admin").get("/v1/admin/audit/export", params={"action": "document.*"}).text
    assert [json.loads(line)["team_id"] for line in narrowed.splitlines()] == [place.team.id]


def test_addresses_are_kept_only_where_the_settings_say_so(tmp_path: Path) -> None:
    with Started(settings_for(tmp_path, audit_addresses=False), worker=False) as service:
        service.new_team()
        assert all("address" not in entry.author for entry in log(service))


@contextmanager
def answering(tmp_path: Path, **settings: Any) -> Iterator[Team]:
    with Started(settings_for(tmp_path, **settings), worker=False) as service:
        team = service.new_team()
        team.put("Turnips are grown in rows.")
        service.work()
        yield team


def test_answers_are_audited_on_request_by_ids_and_never_by_words(tmp_path: Path) -> None:
    with answering(tmp_path, retrieval_audit=True) as team:
        asker = team.client("query", "impersonate")
        body = {"query": "turnips and other secrets", "as_user": {"user": "ada", "groups": ["staff"]}}
        query_id = asker.post("/v1/retrieve", json=body).json()["query_id"]
        document = team.manager.get("/v1/documents").json()["data"][0]["id"]
        found = team.client("admin").get("/v1/admin/audit", params={"action": "retrieval.*"}).json()["data"]
        assert [(entry["target"], entry["detail"]) for entry in found] == [(query_id, {"documents": [document]})]
        author = found[0]["author"]
        assert (author["kind"], author["user"], author["groups"]) == ("key", "ada", ["staff"])
        assert "turnips" not in json.dumps(found).lower()


def test_answers_are_not_audited_unless_asked_for(tmp_path: Path) -> None:
    with answering(tmp_path) as team:
        team.retrieve("turnips")
        team.service.runtime.retrieval_audit.flush()
        assert log(team.service, action="retrieval.*") == []


def test_an_orderly_stop_loses_no_entry(tmp_path: Path) -> None:
    with answering(tmp_path, retrieval_audit=True) as team:
        asked = {team.manager.post("/v1/retrieve", json={"query": "turnips"}).json()["query_id"] for _ in range(40)}
    with Started(settings_for(tmp_path), worker=False) as service:
        assert {entry.target for entry in log(service, action="retrieval.answered")} == asked
        with service.runtime.database.read() as connection:
            assert verify(connection).faults == []
