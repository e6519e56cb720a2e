"""Every route answers every kind of key as the committed table says, and tells nothing by its timing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from rag_service.db import documents
from rag_service.db.documents import Document
from tests.conftest import Service
from tests.security.route_matrix import COMMAND, FILE, table
from tests.security.test_routes import OPENS_TO, Owned, own_everything, unknown

PAIRS = 250
ROUNDS = 8
# Of the median answer.
MOST = 0.05


@pytest.fixture(scope="module")
def observed(service: Service, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return table(service, tmp_path_factory.mktemp("matrix")).splitlines()


def test_every_route_answers_every_kind_of_key_as_the_committed_table_says(observed: list[str]) -> None:
    committed = FILE.read_text().splitlines()
    missing = [f"+ {line}" for line in observed if line not in committed]
    surplus = [f"- {line}" for line in committed if line not in observed]
    assert not missing + surplus, "\n".join(
        [
            f"{FILE.name} does not say what the routes answer (- says, + is):",
            *surplus,
            *missing,
            f"If that is meant, run `{COMMAND}` and read the difference before you commit it.",
        ]
    )


def test_no_route_lets_anybody_in_without_a_valid_key(observed: list[str]) -> None:
    rows = [line.split() for line in observed if line.startswith(("GET", "POST", "PUT", "PATCH", "DELETE"))]
    assert len(rows) >= len(OPENS_TO)
    for _, path, *statuses in rows:
        assert statuses[:4] == (["200"] * 4 if path in ("/livez", "/readyz") else ["401"] * 4), path


def test_a_route_that_lets_everybody_in_would_be_noticed(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_service.api.auth._is_valid", lambda key: True)
    assert table(service, tmp_path) != FILE.read_text()


@pytest.fixture(scope="module")
def victim(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Owned:
    return own_everything(service, tmp_path_factory.mktemp("timed"), "timed")


class TestTiming:
    """Whether something exists cannot be told by how long the refusal takes."""

    def gap(self, ask: Callable[[str], int], foreign: str) -> float:
        """The share of the median by which the answers for an existing id differ from those for ids of nobody.

        Both are asked in turn, the order changing, so that what else the machine does meets both alike.
        """
        nobody, took = unknown(foreign), {True: list[float](), False: list[float]()}
        for pair in range(PAIRS):
            for exists in (True, False) if pair % 2 else (False, True):
                began = time.perf_counter()
                assert ask(foreign if exists else nobody) == 404
                took[exists].append(time.perf_counter() - began)
        return abs(median(took[True]) - median(took[False])) / median(took[False])

    def smallest_gap(self, ask: Callable[[str], int], foreign: str, rounds: int = ROUNDS) -> float:
        """Of several rounds: a difference that is real is there in every one of them, noise is not."""
        gaps = []
        for _ in range(rounds):
            gaps.append(self.gap(ask, foreign))
            if gaps[-1] < MOST:
                break
        return min(gaps)

    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            ("/v1/documents/{}", "document_id"),
            ("/v1/collections/{}", "collection"),
            ("/v1/sources/{}", "source_id"),
            ("/v1/jobs/{}", "job_id"),
            ("/v1/queries/{}", "query_id"),
        ],
    )
    def test_is_the_same_for_what_another_team_has_and_what_nobody_has(
        self, service: Service, victim: Owned, path: str, kind: str
    ) -> None:
        intruder = service.new_team().manager
        gap = self.smallest_gap(lambda value: intruder.get(path.format(value)).status_code, victim.ids[kind])
        assert gap < MOST

    def test_that_differs_by_two_milliseconds_would_be_noticed(
        self, service: Service, victim: Owned, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        get = documents.get

        def looks_again(connection: object, team_id: str, document_id: str) -> Document:
            if documents.load(connection, document_id) is not None:  # type: ignore[arg-type] # passed through
                time.sleep(0.002)
            return get(connection, team_id, document_id)  # type: ignore[arg-type] # passed through

        monkeypatch.setattr(documents, "get", looks_again)
        intruder = service.new_team().manager
        gap = self.smallest_gap(
            lambda value: intruder.get(f"/v1/documents/{value}").status_code, victim.ids["document_id"], rounds=2
        )
        assert gap > MOST
