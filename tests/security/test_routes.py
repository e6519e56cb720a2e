"""Every route is guarded, opens to the scopes written here and no others, and hides other teams altogether.

A new route fails these tests until it has its rows here, and a line in the table of `route_matrix.py`.
"""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

import rag_service.api
from rag_service.db import Connection, documents
from rag_service.db.documents import Document
from rag_service.errors import NotFound
from tests.conftest import ADMIN_KEY, Service, Team

OPEN = {"livez", "readyz"}

# Scopes of a team's key, each alone, that a route opens to. An admin key of the service opens every one.
_ANY = {"query", "ingest", "impersonate", "manage", "admin"}
_MANAGE = {"manage", "admin"}
_INGEST = _MANAGE | {"ingest"}
_QUERY = _MANAGE | {"query"}
OPENS_TO: dict[str, set[str]] = {
    "create_team": set(),
    "list_teams": set(),
    "create_key": _MANAGE,
    "list_keys": _MANAGE,
    "revoke_key": _MANAGE,
    "create_collection": _MANAGE,
    "list_collections": _ANY,
    "get_collection": _ANY,
    "update_collection": _MANAGE,
    "delete_collection": _MANAGE,
    "create_document": _INGEST,
    "create_documents": _INGEST,
    "list_documents": _INGEST | _QUERY,
    "get_document": _INGEST | _QUERY,
    "get_document_text": _INGEST | _QUERY,
    "list_document_chunks": _INGEST | _QUERY,
    "list_document_events": _INGEST | _QUERY,
    "replace_document_content": _INGEST,
    "update_document_metadata": _INGEST,
    "replace_document_acl": _INGEST,
    "delete_document": _INGEST,
    "list_source_types": _ANY,
    "create_source": _MANAGE,
    "list_sources": _MANAGE,
    "validate_source": _MANAGE,
    "get_source": _MANAGE,
    "update_source": _MANAGE,
    "delete_source": _MANAGE,
    "sync_source": _MANAGE,
    "pause_source": _MANAGE,
    "resume_source": _MANAGE,
    "list_jobs": _INGEST,
    "get_job": _INGEST,
    "cancel_job": _MANAGE,
    "metrics": set(),
    "retrieve": _QUERY,
    "why_not": _QUERY,
    "get_query": _QUERY,
    "replay_query": _QUERY,
    "give_feedback": _QUERY,
    "list_feedback": _MANAGE,
    "summarise_feedback": _MANAGE,
    "export_feedback": _MANAGE,
    "delete_feedback": _MANAGE,
    "create_webhook": _MANAGE,
    "list_webhooks": _MANAGE,
    "get_webhook": _MANAGE,
    "update_webhook": _MANAGE,
    "delete_webhook": _MANAGE,
    "rotate_webhook_secret": _MANAGE,
    "test_webhook": _MANAGE,
    "list_webhook_deliveries": _MANAGE,
    "recover_webhook": _MANAGE,
    "list_dead_letters": set(),
    "retry_dead_letters": set(),
    "discard_dead_letters": set(),
    "list_audit": {"admin"},
    "export_audit": {"admin"},
    "create_index_version": set(),
    "list_index_versions": set(),
    "get_index_version": set(),
    "update_index_version": set(),
    "pause_index_version": set(),
    "resume_index_version": set(),
    "cancel_index_version": set(),
    "evaluate_index_version": set(),
    "promote_index_version": set(),
    "rollback_index_version": set(),
    "create_backup": set(),
    "reconcile": set(),
    "list_operations": set(),
    "create_reindex": set(),
    "create_probe": _MANAGE,
    "list_probes": _MANAGE,
    "get_probe": _MANAGE,
    "update_probe": _MANAGE,
    "delete_probe": _MANAGE,
    "run_probe": _MANAGE,
    "pause_probe": _MANAGE,
    "resume_probe": _MANAGE,
    "list_probe_runs": _MANAGE,
    "get_collection_health": _MANAGE,
    "list_fingerprints": set(),
    "accept_fingerprint": set(),
    "create_query_set": _MANAGE,
    "list_query_sets": _MANAGE,
    "get_query_set": _MANAGE,
    "update_query_set": _MANAGE,
    "delete_query_set": _MANAGE,
    "list_labelled_queries": _MANAGE,
    "add_labelled_queries": _MANAGE,
    "replace_labelled_queries": _MANAGE,
    "import_query_set": _MANAGE,
    "export_query_set": _MANAGE,
    "create_query_set_from_feedback": _MANAGE,
}

# A body that each route takes, for those that need one.
BODIES: dict[str, dict[str, Any]] = {
    "create_key": {"name": "k", "scopes": ["query"]},
    "update_collection": {"description": "d"},
    "replace_document_content": {"text": "x"},
    "update_document_metadata": {"k": 1},
    "replace_document_acl": {"public": True},
    "update_source": {"schedule_s": 60},
    "sync_source": {},
    "replay_query": {"query": "plans"},
    "give_feedback": {"query_id": "q_of_nobody", "rating": "like"},
    "update_webhook": {"description": "d"},
    "recover_webhook": {"since": "2026-01-31T12:00:00Z"},
    "retry_dead_letters": {"ids": ["job_of_nobody"]},
    "discard_dead_letters": {"ids": ["job_of_nobody"]},
    "create_index_version": {"collection": "collection-of-nobody"},
    "update_index_version": {"priority": "low"},
    "evaluate_index_version": {},
    "promote_index_version": {},
    "create_backup": {"name": "-"},
    "reconcile": {"repair": "-"},
    "create_reindex": {"scope": {"team": "team-of-nobody"}, "from_stage": "metadata"},
    "update_probe": {"every_s": 60},
    "accept_fingerprint": {"model": "-"},
    "update_query_set": {"description": "d"},
    "add_labelled_queries": {"queries": []},
    "replace_labelled_queries": {"queries": []},
}

# Ids that stand elsewhere than in the path: (route, where, name), and what of another team is put there.
ELSEWHERE: list[tuple[str, str, str, str]] = [
    ("list_documents", "query", "source", "source_id"),
    ("list_documents", "query", "collection", "collection"),
    ("list_jobs", "query", "source", "source_id"),
    ("list_jobs", "query", "document", "document_id"),
    ("list_query_sets", "query", "collection", "collection"),
    ("create_query_set", "body", "collection", "collection"),
    ("create_query_set_from_feedback", "body", "collection", "collection"),
    ("create_document", "body", "collection", "collection"),
    ("create_source", "body", "collection", "collection"),
    ("list_probes", "query", "collection", "collection"),
    ("create_probe", "body", "collection", "collection"),
    ("create_probe", "body", "expect", "source_id"),
    ("list_feedback", "query", "query_id", "query_id"),
    ("list_feedback", "query", "collection", "collection"),
    ("list_feedback", "query", "source", "source_id"),
    ("list_feedback", "query", "document", "document_id"),
    ("summarise_feedback", "query", "source", "source_id"),
    ("summarise_feedback", "query", "collection", "collection"),
    ("export_feedback", "query", "source", "source_id"),
    ("export_feedback", "query", "collection", "collection"),
    ("give_feedback", "body", "query_id", "query_id"),
    ("give_feedback", "body", "chunk_id", "document_id"),
    ("give_feedback", "body", "document_id", "document_id"),
    ("give_feedback", "body", "expected_document_id", "document_id"),
    ("retrieve", "body", "collections", "collection"),
    ("retrieve", "body", "filter", "source_id"),
    ("why_not", "body", "document_id", "document_id"),
    ("why_not", "body", "collection", "collection"),
    ("why_not", "body", "collections", "collection"),
    ("list_index_versions", "query", "collection", "collection"),
    ("create_index_version", "body", "collection", "collection"),
]


@dataclass(frozen=True)
class Operation:
    id: str
    method: str
    path: str

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.path)

    def call(self, client: TestClient, ids: dict[str, str], **more: Any) -> Response:
        body = {"json": BODIES[self.id]} if self.id in BODIES else {}
        answer: Response = client.request(self.method, self.path.format(**ids), **{**body, **more})
        return answer


@dataclass(frozen=True)
class Owned:
    """A team with one of everything that has an id."""

    team: Team
    ids: dict[str, str]


@pytest.fixture(scope="module")
def operations(service: Service) -> dict[str, Operation]:
    paths = service.anonymous.get("/openapi.json").json()["paths"]
    found = [
        Operation(details["operationId"], method, path)
        for path, item in paths.items()
        for method, details in item.items()
    ]
    return {operation.id: operation for operation in found}


@pytest.fixture(scope="module")
def victim(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Owned:
    return own_everything(service, tmp_path_factory.mktemp("victim"), "victims-plans")


@pytest.fixture(scope="module")
def intruder(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Owned:
    return own_everything(service, tmp_path_factory.mktemp("intruder"), "intruders-own")


def own_everything(service: Service, folder: Path, collection: str) -> Owned:
    team = service.new_team()
    (folder / "a.md").write_text("Something of theirs.")
    team.manager.post("/v1/collections", json={"name": collection}).raise_for_status()
    config = {"name": "s", "type": "files", "config": {"root": str(folder)}}
    source = team.admin.post("/v1/sources", json=config).json()["id"]
    document = team.put("The plans of the victim.", collection=collection)
    key = team.manager.post(f"/v1/teams/{team.id}/keys", json={"name": "k", "scopes": ["query"]}).json()["id"]
    team.drain()
    query = team.manager.post("/v1/retrieve", json={"query": "plans", "collections": [collection]}).json()["query_id"]
    wanted = {"name": "p", "query": "plans", "collection": collection, "expect": {"documents": [document["id"]]}}
    probe = team.manager.post("/v1/probes", json=wanted).json()["id"]
    said = team.manager.post("/v1/feedback", json={"query_id": query, "rating": "like"}).json()["id"]
    hook = {"url": "https://hooks.example/hook", "events": ["probe.failed"]}
    webhook = team.manager.post("/v1/webhooks", json=hook).json()["id"]
    ids = {"team_id": team.id, "key_id": key, "collection": collection, "source_id": source, "query_id": query}
    ids |= {"feedback_id": said, "webhook_id": webhook, "probe_id": probe}
    about = {"name": "theirs", "collection": collection, "queries": [{"query": "plans", "expect_nothing": True}]}
    ids["query_set"] = team.manager.post("/v1/query-sets", json=about).json()["id"]
    ids["index_version"] = team.manager.get(f"/v1/collections/{collection}").json()["index_version"]
    return Owned(team, {**ids, "document_id": document["id"], "job_id": document["job_id"]})


def unknown(known: str) -> str:
    """An id that nobody has, of the same shape and length."""
    return known[:-4] + ("zzzz" if known[-4:] != "zzzz" else "yyyy")


def told(answer: Response) -> tuple[int, dict[str, Any], dict[str, str]]:
    """All that an answer tells, but for the ids and addresses of the request itself."""
    body = answer.json()
    shown = {name: value for name, value in body.items() if name not in ("instance", "request_id")}
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}
    return answer.status_code, shown, headers


def clients(team: Team) -> Iterator[TestClient]:
    yield team.manager
    yield team.admin
    yield team.client("admin")
    yield team.client("query", "ingest", "impersonate")
    yield team.client("query", user="ada", groups=["staff"])
    yield team.client("ingest")


def test_every_route_is_described_and_has_a_row(operations: dict[str, Operation]) -> None:
    modules = [
        import_module(f"rag_service.api.{found.name}") for found in pkgutil.iter_modules(rag_service.api.__path__)
    ]
    routes = [route for module in modules if hasattr(module, "router") for route in module.router.routes]
    routes = [route for route in routes if route.path != "/docs"]
    assert len(routes) == len(operations)
    assert operations.keys() - OPEN == OPENS_TO.keys(), (
        "Say in OPENS_TO which scopes a new route opens to, in BODIES what it takes if it needs a body, in ELSEWHERE "
        "where else an id stands; then write the table anew: python -m tests.security.route_matrix"
    )


def test_every_parameter_of_a_path_is_an_id_that_is_tried(operations: dict[str, Operation], victim: Owned) -> None:
    parameters = {name for operation in operations.values() for name in operation.parameters}
    assert parameters == victim.ids.keys()


def test_without_a_valid_key_every_route_is_closed(
    service: Service, operations: dict[str, Operation], victim: Owned
) -> None:
    for operation in operations.values():
        for client in (service.anonymous, service.client("rag_wrong"), service.client("")):
            answer = operation.call(client, victim.ids)
            expected = 200 if operation.id in OPEN else 401
            assert answer.status_code == expected, operation
    for path in ("/", "/v1", "/v1/", "/v1/nothing", "//v1/documents", "/v2/documents", "/docs/x"):
        assert service.anonymous.get(path).status_code == 401, path


def test_every_route_opens_to_its_scopes_and_no_others(
    service: Service, operations: dict[str, Operation], victim: Owned, intruder: Owned
) -> None:
    team = intruder.team
    holders = {scope: team.client(scope) for scope in sorted(_ANY)}
    # Ids of nobody, so that nothing comes of a call that is let through.
    ids = {name: unknown(value) for name, value in intruder.ids.items()} | {"team_id": team.id}
    for operation_id, opens_to in OPENS_TO.items():
        for scope, client in holders.items():
            status = operations[operation_id].call(client, ids).status_code
            assert (status != 403) == (scope in opens_to), (operation_id, scope, status)
            assert status < 500
        assert operations[operation_id].call(team.admin, ids).status_code != 403, operation_id


def attempts(operations: Iterable[Operation], victim: Owned, intruder: Owned) -> Iterator[tuple[Operation, Any, Any]]:
    """What the intruder is told with ids of the victim in place, and with ids of nobody in the same places."""
    for operation in operations:
        for client, places in product(clients(intruder.team), _places(operation)):
            if "team_id" in operation.parameters and client.headers["Authorization"].endswith(ADMIN_KEY):
                continue  # an admin key of the service rightly sees every team
            # All other parameters are the intruder's own, so that they are passed.
            foreign = {**intruder.ids, **{name: victim.ids[name] for name in places}}
            nobody = {**intruder.ids, **{name: unknown(victim.ids[name]) for name in places}}
            yield operation, told(operation.call(client, foreign)), told(operation.call(client, nobody))


def _places(operation: Operation) -> list[list[str]]:
    """Each parameter alone, and all of them together."""
    alone = [[name] for name in operation.parameters]
    return alone if len(alone) < 2 else [*alone, operation.parameters]


def test_what_belongs_to_another_team_looks_like_nothing_on_every_route(
    operations: dict[str, Operation], victim: Owned, intruder: Owned
) -> None:
    tried = list(attempts(operations.values(), victim, intruder))
    assert len(tried) > 100
    assert [operation for operation, foreign, nobody in tried if foreign != nobody] == []
    assert {foreign[0] for _, foreign, _ in tried} == {403, 404}
    said = json.dumps([foreign[1] for _, foreign, _ in tried])
    assert not any(name in said for name in victim.ids.values())


def test_a_route_that_forgets_the_team_would_be_noticed(
    operations: dict[str, Operation], victim: Owned, intruder: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_whatever_team(connection: Connection, team_id: str, document_id: str) -> Document:
        document = documents.load(connection, document_id)
        if document is None:
            raise NotFound(documents.UNKNOWN)
        return document

    monkeypatch.setattr(documents, "get", of_whatever_team)
    tried = attempts([operations["get_document"]], victim, intruder)
    assert [operation.id for operation, foreign, nobody in tried if foreign != nobody]


@pytest.mark.parametrize("elsewhere", ELSEWHERE, ids=lambda row: "-".join(row[:3]))
def test_ids_of_another_team_tell_nothing_in_queries_and_bodies_either(
    operations: dict[str, Operation],
    victim: Owned,
    intruder: Owned,
    elsewhere: tuple[str, str, str, str],
) -> None:
    operation_id, where, name, kind = elsewhere

    def call(client: TestClient, value: str) -> Response:
        if where == "query":
            return operations[operation_id].call(client, {}, params={name: value})
        expected = {"max_age_s": 60, "source": value}
        placed: Any = {"collections": [value], "filter": {"source": value}, "expect": expected}.get(name, value)
        bodies: dict[str, dict[str, Any]] = {
            "create_query_set": {"name": "n"},
            "create_query_set_from_feedback": {"name": "n"},
            "create_document": {"text": "x"},
            "create_source": {"name": "n", "type": "files", "config": {"root": "/nowhere"}},
            "create_probe": {"name": "n", "query": "plans", "expect": {"nothing": True}},
            "create_index_version": {},
            "retrieve": {"query": "plans"},
            "give_feedback": {"query_id": intruder.ids["query_id"], "rating": "like"},
            "why_not": {"query": "plans"} if name.endswith("_id") else {"query": "plans", "external_id": "x"},
        }
        return operations[operation_id].call(client, {}, json={**bodies[operation_id], name: placed})

    def shown(answer: Response) -> tuple[int, dict[str, Any]]:
        status, body, _ = told(answer)
        return status, {key: value for key, value in body.items() if key not in ("query_id", "usage")}

    for client in clients(intruder.team):
        foreign, nobody = call(client, victim.ids[kind]), call(client, unknown(victim.ids[kind]))
        assert shown(foreign) == shown(nobody)
        assert "The plans of the victim" not in foreign.text


def test_what_a_team_owns_is_untouched_by_all_that(victim: Owned) -> None:
    team, ids = victim.team, victim.ids
    assert team.document(ids["document_id"])["status"] == "ready"
    assert team.document(ids["document_id"])["acl"]["public"] is True
    assert team.manager.get(f"/v1/sources/{ids['source_id']}").json()["paused"] is False
    assert team.manager.get(f"/v1/jobs/{ids['job_id']}").json()["state"] == "succeeded"
    assert team.manager.get(f"/v1/probes/{ids['probe_id']}").json()["every_s"] == 3600
    assert [one["id"] for one in team.manager.get("/v1/feedback").json()["data"]] == [ids["feedback_id"]]
    webhook = team.manager.get(f"/v1/webhooks/{ids['webhook_id']}").json()
    assert (webhook["enabled"], webhook["secrets"], webhook["description"]) == (True, 1, "")
    keys = team.manager.get(f"/v1/teams/{team.id}/keys").json()["data"]
    assert next(key for key in keys if key["id"] == ids["key_id"])["revoked_at"] is None


def test_a_document_that_may_not_be_read_looks_like_none_within_a_team_too(
    operations: dict[str, Operation], victim: Owned
) -> None:
    team = victim.team
    secret = team.put("Not for Ada.", acl={"users": ["bob"]})
    denied = team.put("For all but Ada.", acl={"public": True, "deny_users": ["ada"]})
    team.drain()
    ada = team.client("query", user="ada")
    writer = team.client("ingest", user="ada")
    for hidden in (secret["id"], denied["id"]):
        for operation_id in ("get_document", "get_document_text", "list_document_chunks", "list_document_events"):
            operation = operations[operation_id]
            answer = operation.call(ada, {"document_id": hidden})
            assert told(answer) == told(operation.call(ada, {"document_id": unknown(hidden)}))
            assert answer.status_code == 404
        for operation_id in ("get_document_text", "list_document_chunks"):
            assert operations[operation_id].call(writer, {"document_id": hidden}).status_code == 404
        assert operations["get_document"].call(writer, {"document_id": hidden}).status_code == 200
    listed = {row["id"] for row in ada.get("/v1/documents").json()["data"]}
    assert listed.isdisjoint({secret["id"], denied["id"]})
    assert {secret["id"], denied["id"]} <= {row["id"] for row in writer.get("/v1/documents").json()["data"]}


def test_a_reader_is_not_shown_who_else_may_read(victim: Owned) -> None:
    path = f"/v1/documents/{victim.ids['document_id']}"
    assert victim.team.client("query").get(path).json()["acl"] is None
    assert victim.team.client("ingest").get(path).json()["acl"]["public"] is True
