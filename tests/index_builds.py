"""Index versions asked for over HTTP, as an operator does, and what a collection answers with."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import select

from rag_service.db import chunks, collections, documents, indexed
from rag_service.db.tables import documents as table
from tests.conftest import Service, Team

PATH = "/v1/admin/index-versions"
WIDER = {"embedding": {"embedder": "hashing", "dimensions": 96}}
WIDEST = {"embedding": {"embedder": "hashing", "dimensions": 160}}
Version = dict[str, Any]


def begin(team: Team, pipeline: dict[str, Any] | None = None, **more: Any) -> Version:
    """Ask for a build that takes all the time there is."""
    body = {"pipeline": WIDER if pipeline is None else pipeline, "priority": "high", **more}
    answer = team.admin.post(PATH, json=body)
    assert answer.status_code == 201, answer.text
    made: Version = answer.json()
    return made


def built(service: Service, team: Team, pipeline: dict[str, Any] | None = None, **more: Any) -> Version:
    """An index version that is ready, in a service whose worker was not started."""
    made = begin(team, pipeline, **more)
    service.work()
    found = look(team, made["id"])
    assert found["state"] == "ready", found
    return found


def look(team: Team, index: str) -> Version:
    answer = team.admin.get(f"{PATH}/{index}")
    assert answer.status_code == 200, answer.text
    found: Version = answer.json()
    return found


def ask(team: Team, index: str, action: str, expect: int = 200, **body: Any) -> Version:
    """Pause, resume, cancel, evaluate, promote or roll back."""
    client: TestClient = team.admin
    answer = client.post(f"{PATH}/{index}:{action}", json=body if action in ("evaluate", "promote") else None)
    assert answer.status_code == expect, answer.text
    found: Version = answer.json()
    return found


def active(team: Team, collection: str = "default") -> Version:
    (found,) = team.admin.get(PATH, params={"collection": collection, "state": "active"}).json()["data"]
    version: Version = found
    return version


def answering(team: Team, query: str, **more: Any) -> set[str]:
    """The index versions that a question is answered from."""
    return {hit["provenance"]["index_version"] for hit in team.retrieve(query, **more)}


def faults(service: Service, team: Team, index: str, collection: str = "default") -> list[str]:
    """Where an index version that is up to date says something else than the catalogue: content, access or too much."""
    runtime, wrong = service.runtime, []
    with runtime.database.read() as connection:
        ours = collections.get(connection, team.id, collection)
        rows = connection.execute(select(table).where(table.c.collection_id == ours.id))
        found = [documents.document_of(row) for row in rows]
        points: dict[str, set[str]] = {}
        for point in runtime.vectors.stored(index):
            points.setdefault(point.document_id, set()).add(point.chunk_id)
            access = next((documents.tokens(connection, row) for row in found if row.id == point.document_id), None)
            if access != point.access:
                wrong.append(f"{point.document_id}: access {point.access} in the index, {access} in the catalogue")
        for row in found:
            answers = row.indexed_version if row.indexed_version and not row.is_deleted else None
            held = indexed.version_in(connection, index, row.id)
            made = chunks.of_document(connection, index, row.id, answers or 0)
            if held != answers or bool(made) != bool(answers):
                wrong.append(f"{row.external_id} answers with version {answers}, the index version has {held}")
            if points.pop(row.id, set()) != {chunk.id for chunk in made}:
                wrong.append(f"{row.external_id}: other points than chunks")
    return wrong + [f"{document}: points of nothing" for document in points]
