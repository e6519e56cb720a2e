"""The flows of the embedded service over a real Postgres instead of SQLite: the same tests, another address."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distributed.servers import PostgresServer, postgres_server

ROOT = Path(__file__).parent.parent.parent
FLOWS = (
    "test_documents",
    "test_teams_and_keys",
    "test_collections",
    "test_interleavings",
    "test_query_sets",
    "test_webhooks",
)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FLOWS)
def test_a_flow(server: PostgresServer, name: str) -> None:
    command = [sys.executable, "-m", "pytest", f"tests/flows/{name}.py", "--durations=0", "-p", "no:cacheprovider"]
    environment = {**os.environ, "RAG_TEST_DATABASE_URL": server.url()}
    ended = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stdout[-6000:]
    assert " passed" in ended.stdout
