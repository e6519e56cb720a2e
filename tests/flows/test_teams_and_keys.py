"""Teams, their keys, and what each scope opens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rag_service.db import teams
from tests.conftest import ADMIN_KEY, Service, Team

LATER = (datetime.now(UTC) + timedelta(hours=1)).isoformat()


def test_a_team_gets_its_id_from_its_name_and_starts_with_the_default_collection(service: Service) -> None:
    made = service.admin.post("/v1/teams", json={"name": "  Équipe  Ressources Humaines! "})
    assert made.status_code == 201
    assert made.json()["id"] == "equipe-ressources-humaines"
    client = service.client(ADMIN_KEY, **{"X-Rag-Team": made.json()["id"]})
    assert [row["name"] for row in client.get("/v1/collections").json()["data"]] == ["default"]
    again = service.admin.post("/v1/teams", json={"name": "Équipe Ressources Humaines"})
    assert (again.status_code, again.json()["code"]) == (409, "team_exists")


@pytest.mark.parametrize("team_id", ["Upper", "-a", "a_b", "a" * 64, "", "a b"])
def test_a_team_id_that_is_no_slug_is_refused(service: Service, team_id: str) -> None:
    assert service.admin.post("/v1/teams", json={"id": team_id, "name": "x"}).status_code == 422


def test_a_name_without_latin_letters_gets_an_id_all_the_same(service: Service) -> None:
    made = service.admin.post("/v1/teams", json={"name": "人事部"})
    assert made.status_code == 201
    assert made.json()["id"].startswith("team-")


def test_teams_are_listed_for_admin_keys_only(service: Service, team: Team) -> None:
    seen, cursor = set(), None
    while True:
        page = service.admin.get("/v1/teams", params={"limit": 5, **({"after": cursor} if cursor else {})}).json()
        seen |= {row["id"] for row in page["data"]}
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert team.id in seen
    assert team.manager.get("/v1/teams").status_code == 403
    assert team.manager.post("/v1/teams", json={"name": "mine"}).status_code == 403


def test_the_secret_of_a_key_is_shown_once_and_stored_nowhere(service: Service, team: Team) -> None:
    made = service.admin.post(f"/v1/teams/{team.id}/keys", json={"name": "k", "scopes": ["query", "query"]})
    secret = made.json()["key"]
    assert secret.startswith("rag_")
    assert len(secret) >= 47
    assert made.json()["scopes"] == ["query"]
    listed = service.admin.get(f"/v1/teams/{team.id}/keys")
    assert made.json()["id"] in {row["id"] for row in listed.json()["data"]}
    assert "key" not in listed.json()["data"][0]
    assert secret not in listed.text
    for path in service.runtime.settings.data_dir.glob("rag.db*"):
        assert secret.encode() not in path.read_bytes()


def test_a_revoked_key_is_refused_from_the_next_request_on(service: Service, team: Team) -> None:
    made = service.admin.post(f"/v1/teams/{team.id}/keys", json={"name": "k", "scopes": ["query"]}).json()
    client = service.client(made["key"])
    assert client.get("/v1/collections").status_code == 200
    path = f"/v1/teams/{team.id}/keys/{made['id']}"
    revoked = service.admin.delete(path)
    assert revoked.status_code == 200
    assert revoked.json()["revoked_at"] is not None
    assert client.get("/v1/collections").status_code == 401
    assert service.admin.delete(path).json()["revoked_at"] == revoked.json()["revoked_at"]


def test_expired_revoked_unknown_and_malformed_keys_are_told_the_same(service: Service, team: Team) -> None:
    revoked = service.admin.post(f"/v1/teams/{team.id}/keys", json={"name": "k", "scopes": ["query"]}).json()
    service.admin.delete(f"/v1/teams/{team.id}/keys/{revoked['id']}")
    with service.runtime.database.transaction() as transaction:
        past = datetime.now(UTC) - timedelta(seconds=1)
        secret = "rag_that-has-expired"
        teams.add_key(transaction.connection, secret, team_id=team.id, name="old", scopes=["manage"], expires_at=past)
    good = team.key("query", expires_at=LATER)
    headers = [
        *(f"Bearer {key}" for key in (revoked["key"], secret, "rag_unknown", "", " ", "x" * 600, f"{good}x", "ÿ")),
        *(f"{scheme} {good}" for scheme in ("Basic", "Token", "")),
        good,
        "",
    ]
    answers = [
        service.anonymous.get("/v1/collections", headers={b"Authorization": each.encode("latin-1")}) for each in headers
    ] + [service.anonymous.get("/v1/collections")]
    told = {tuple(sorted((k, v) for k, v in answer.json().items() if k != "request_id")) for answer in answers}
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
    assert len(told) == 1
    assert service.client(good).get("/v1/collections").status_code == 200


@pytest.mark.parametrize("when", ["2020-01-01T00:00:00Z", "2999-01-01T00:00:00", "soon"])
def test_a_key_expires_in_the_future_at_a_time_with_a_zone(service: Service, team: Team, when: str) -> None:
    wanted = {"name": "k", "scopes": ["query"], "expires_at": when}
    assert service.admin.post(f"/v1/teams/{team.id}/keys", json=wanted).status_code == 422


@pytest.mark.parametrize("scopes", [[], ["root"], ["query", "root"], "query"])
def test_a_key_has_scopes_that_exist(service: Service, team: Team, scopes: object) -> None:
    assert service.admin.post(f"/v1/teams/{team.id}/keys", json={"name": "k", "scopes": scopes}).status_code == 422


def test_a_manage_key_makes_keys_of_its_team_but_none_with_admin(team: Team, other_team: Team) -> None:
    path = f"/v1/teams/{team.id}/keys"
    assert team.manager.post(path, json={"name": "k", "scopes": ["manage", "impersonate"]}).status_code == 201
    assert team.manager.post(path, json={"name": "k", "scopes": ["query", "admin"]}).status_code == 403
    assert team.manager.get(path).status_code == 200
    for scopes in (("query",), ("ingest",), ("impersonate",), ("query", "ingest", "impersonate")):
        assert team.client(*scopes).get(path).status_code == 403
    assert other_team.manager.get(path).status_code == 404


def test_an_admin_key_names_its_team(service: Service, team: Team) -> None:
    missing = service.admin.get("/v1/collections")
    assert (missing.status_code, missing.json()["code"]) == (422, "team_required")
    assert "X-Rag-Team" in missing.json()["detail"]
    unknown = service.client(ADMIN_KEY, **{"X-Rag-Team": "no-such-team"}).get("/v1/collections")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert team.admin.get("/v1/collections").status_code == 200


def test_a_team_key_cannot_name_another_team_whether_it_exists_or_not(
    service: Service, team: Team, other_team: Team
) -> None:
    secret = team.key("manage")
    assert service.client(secret, **{"X-Rag-Team": team.id}).get("/v1/collections").status_code == 200
    told = []
    for name in (other_team.id, "no-such-team", ""):
        answer = service.client(secret, **{"X-Rag-Team": name, "X-Request-Id": "same"}).get("/v1/collections")
        assert answer.status_code == 403
        told.append(answer.content)
    assert len(set(told)) == 1


def test_a_key_of_the_whole_service_with_admin_acts_for_any_team_it_names(service: Service, team: Team) -> None:
    with service.runtime.database.transaction() as transaction:
        teams.add_key(transaction.connection, "rag_second-admin", team_id=None, name="a", scopes=["admin"])
    second = service.client("rag_second-admin", **{"X-Rag-Team": team.id})
    assert second.get("/v1/teams").status_code == 200
    assert second.post("/v1/documents", json={"text": "x"}).status_code == 202


def test_a_team_key_with_admin_does_everything_in_its_team_and_nothing_outside(team: Team, other_team: Team) -> None:
    client = team.client("admin")
    assert client.post("/v1/collections", json={"name": "new"}).status_code == 201
    assert client.post("/v1/retrieve", json={"query": "x", "as_user": {"user": "ada"}}).status_code == 200
    assert client.get("/v1/teams").status_code == 403
    assert client.get(f"/v1/teams/{other_team.id}/keys").status_code == 404
    assert client.post(f"/v1/teams/{team.id}/keys", json={"name": "k", "scopes": ["admin"]}).status_code == 403
