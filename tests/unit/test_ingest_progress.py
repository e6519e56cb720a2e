"""How far documents are is shown soon, for all at once, and never over how they ended."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from rag_service.db import documents
from rag_service.ingest.progress import ProgressBoard
from rag_service.types import DocumentFailure, DocumentStatus, new_id
from tests.conftest import Service, Started, Team, settings_for


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Started(settings_for(tmp_path_factory.mktemp("progress")), worker=False) as started:
        yield started


@pytest.fixture
def board(service: Service) -> Iterator[ProgressBoard]:
    made = ProgressBoard(service.runtime.database, every_s=0.02)
    yield made
    made.close()


def waiting(team: Team) -> str:
    return str(team.put(f"Words that nobody indexes, {new_id('x')}.")["id"])


def becomes(team: Team, document_id: str, status: str) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if team.document(document_id)["status"] == status:
            return True
        time.sleep(0.02)
    return False


def test_the_newest_status_of_every_document_is_shown(board: ProgressBoard, team: Team) -> None:
    first, second = waiting(team), waiting(team)
    board.show(first, 1, DocumentStatus.PARSING)
    board.show(second, 1, DocumentStatus.PARSING)
    board.show(second, 1, DocumentStatus.EMBEDDING)
    assert becomes(team, first, "parsing")
    assert becomes(team, second, "embedding")


def test_a_document_that_has_ended_keeps_its_end(board: ProgressBoard, team: Team, service: Service) -> None:
    ended, other = waiting(team), waiting(team)
    with service.runtime.database.transaction() as transaction:
        failure = DocumentFailure("parse", "empty", "No text.", False)
        documents.fail(transaction.connection, ended, 1, failure)
    board.show(ended, 1, DocumentStatus.EMBEDDING)
    board.show(other, 1, DocumentStatus.EMBEDDING)
    assert becomes(team, other, "embedding")
    assert team.document(ended)["status"] == "failed"


def test_another_version_is_left_alone(board: ProgressBoard, team: Team) -> None:
    document, other = waiting(team), waiting(team)
    board.show(document, 2, DocumentStatus.EMBEDDING)
    board.show(other, 1, DocumentStatus.EMBEDDING)
    assert becomes(team, other, "embedding")
    assert team.document(document)["status"] == "accepted"


def test_what_is_forgotten_is_not_shown(service: Service, team: Team) -> None:
    board = ProgressBoard(service.runtime.database, every_s=0.5)
    document, other = waiting(team), waiting(team)
    board.show(document, 1, DocumentStatus.EMBEDDING)
    board.show(other, 1, DocumentStatus.EMBEDDING)
    board.forget(document, 1)
    assert becomes(team, other, "embedding")
    board.close()
    assert team.document(document)["status"] == "accepted"


def test_closing_one_that_showed_nothing_ends_at_once(service: Service) -> None:
    ProgressBoard(service.runtime.database).close()
