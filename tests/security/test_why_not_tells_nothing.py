"""Asking why a document is missing must not reveal that it exists: to its asker, what may not be read is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rag_service.db import documents
from rag_service.retrieval.retriever import Retriever
from tests.conftest import Service, Team

ASKED = {"query": "salary", "filter": {"n": {"$gte": 0}}}


@pytest.fixture(scope="module")
def office(service: Service) -> Team:
    """Documents in every condition, none of which a key without identity may read."""
    team = service.new_team()
    team.put("The salary of Bob.", external_id="closed", acl={"users": ["bob"]})
    team.put("The salary of all but Ada.", external_id="denied", acl={"groups": ["staff"], "deny_users": ["ada"]})
    gone = team.put("The salary of last year.", external_id="deleted")
    files = {"file": ("bad.pdf", b"%PDF-1.4 broken", "application/pdf")}
    team.manager.post("/v1/documents", files=files, data={"external_id": "failed", "acl": '{"users": ["bob"]}'})
    team.drain()
    team.manager.delete(f"/v1/documents/{gone['id']}").raise_for_status()
    team.drain()
    return team


@pytest.fixture(scope="module")
def hidden(office: Team) -> list[dict[str, str]]:
    """Every such document by its id and by its external id."""
    rows = office.manager.get("/v1/documents", params={"limit": 100}).json()["data"]
    rows += office.manager.get("/v1/documents", params={"status": "deleted"}).json()["data"]
    assert {row["external_id"] for row in rows} == {"closed", "denied", "deleted", "failed"}
    return [named for row in rows for named in ({"document_id": row["id"]}, {"external_id": row["external_id"]})]


def readers(team: Team) -> list[TestClient]:
    return [
        team.client("query"),
        team.client("query", "ingest", "impersonate"),
        team.client("query", user="ada", groups=["staff"]),
    ]


def told(client: TestClient, named: dict[str, str], **more: Any) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Every byte of the answer, and every header but the date."""
    headers = {"X-Request-Id": "the-same"}
    answer = client.post("/v1/retrieve:why_not", json={**ASKED, **named, **more}, headers=headers)
    return answer.status_code, answer.content, [pair for pair in answer.headers.items() if pair[0] != "date"]


def differing(clients: list[TestClient], hidden: list[dict[str, str]]) -> list[dict[str, str]]:
    return [
        named
        for client in clients
        for named in hidden
        if told(client, named) != told(client, {name: "x" * len(value) for name, value in named.items()})
    ]


def test_what_may_not_be_read_is_answered_exactly_like_what_is_not_there(
    office: Team, hidden: list[dict[str, str]]
) -> None:
    for client in readers(office):
        assert {told(client, named)[0] for named in hidden} == {404}
    assert differing(readers(office), hidden) == []


def test_what_another_team_has_is_not_there_even_for_managers(
    office: Team, other_team: Team, hidden: list[dict[str, str]]
) -> None:
    clients = [other_team.manager, other_team.admin, *readers(other_team)]
    assert {told(client, named)[0] for client in clients for named in hidden} == {404}
    assert differing(clients, hidden) == []


def test_a_person_asked_for_is_told_no_more_than_that_person(office: Team, hidden: list[dict[str, str]]) -> None:
    application = office.client("query", "impersonate")
    for named in hidden:
        nobody = {name: "x" * len(value) for name, value in named.items()}
        assert told(application, named, as_user={"user": "eve"}) == told(application, nobody, as_user={"user": "eve"})


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup that forgets whose documents it may find."""
    genuine: Callable[..., list[documents.Document]] = documents.matching
    monkeypatch.setattr(documents, "matching", lambda *given, scope, **named: genuine(*given, scope=None, **named))


def test_a_lookup_that_forgets_the_reader_would_be_noticed(
    office: Team, hidden: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    assert len(differing(readers(office), hidden)) == 3 * len(hidden)


def test_nothing_is_searched_for_a_document_that_is_not_there_for_its_asker(
    office: Team, hidden: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that an answer takes tells no more than its bytes: both end before the question is run."""
    runs: list[object] = []
    genuine = Retriever.run
    monkeypatch.setattr(Retriever, "run", lambda *given: runs.append(given) or genuine(*given))
    reader = office.client("query")
    for named in hidden:
        told(reader, named)
    assert runs == []
    public = office.put("Everybody's salary.", external_id="public")
    office.drain()
    assert told(reader, {"document_id": public["id"]})[0] == 200
    assert len(runs) == 1, "else this test shows nothing"


def test_a_verdict_names_nobody_who_is_not_asking(office: Team) -> None:
    boss = office.client("manage", "impersonate")
    for name in ("closed", "denied"):
        status, body, _ = told(boss, {"external_id": name}, as_user={"user": "eve", "groups": ["guests"]})
        assert status == 200
        assert b"not_readable" in body
        assert not any(word in body for word in (b"bob", b"user:", b"group:", b"staff"))


def test_an_explanation_names_only_tokens_that_its_asker_holds(office: Team) -> None:
    office.put("A salary for many.", external_id="many", acl={"users": ["ada", "bob"], "groups": ["staff", "hr"]})
    office.drain()
    admitted = {}
    for who in ({"user": "ada", "groups": []}, {"user": "eve", "groups": ["hr", "guests"]}):
        client = office.client("query", **who)  # type: ignore[arg-type] # a user and groups, as the key takes them
        (hit,) = [h for h in office.retrieve("salary", client, explain=True, top_k=100) if h["external_id"] == "many"]
        admitted[who["user"]] = hit["explain"]["admitted_by"]
    assert admitted == {"ada": ["user:ada"], "eve": ["group:hr"]}
