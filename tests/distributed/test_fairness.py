"""While one team's bulk sync keeps every worker busy, another team's upload is searchable within five seconds."""

from __future__ import annotations

import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.cluster import ADMIN_KEY, ApiProcess, Cluster
from tests.distributed.servers import free_port
from tests.distributed.test_flows import PUBLIC, write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BULK = 3000
UPLOADS = 8
PROMISED_S = 5.0

log = logging.getLogger(__name__)

Ask = Callable[..., dict[str, Any]]


class Alone(ApiProcess):
    """`rag serve` with the worker inside: the embedded mode."""

    def __init__(self, folder: Path) -> None:
        environment = {
            "RAG_DATA_DIR": str(folder / "data"),
            "RAG_ADMIN_KEY": ADMIN_KEY,
            "RAG_EMBEDDER": "hashing",
            "RAG_PARSER_PROCESSES": "1",
        }
        super().__init__(folder / "alone.log", environment)
        port = free_port()
        self.command = [sys.executable, "-m", "rag_service", "serve", "--port", str(port)]
        self.url = f"http://127.0.0.1:{port}"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    process = Alone(tmp_path)
    try:
        process.start()
        yield process
    finally:
        process.kill()


def begin_bulk(ask: Ask, folder: Path) -> str:
    """A sync of the team `bulk`; returns its source."""
    write(folder, BULK, size=60)
    ask("POST", "/v1/teams", json={"id": "bulk", "name": "Bulk"})
    wanted = {"name": "tree", "type": "files", "config": {"root": str(folder)}, "acl": PUBLIC}
    source = str(ask("POST", "/v1/sources", team="bulk", json=wanted)["id"])
    ask("POST", f"/v1/sources/{source}/sync", team="bulk", json={})
    return source


def ready(ask: Ask, source: str) -> int:
    counts = ask("GET", f"/v1/sources/{source}", team="bulk")["documents"]
    return int(counts.get("ready", 0))


def seconds_to_searchable(ask: Ask, number: int) -> float:
    word = f"zebra{number}"
    began = time.monotonic()
    ask("POST", "/v1/documents", team="small", json={"text": f"The {word} runs.", "acl": PUBLIC})
    while not ask("POST", "/v1/retrieve", team="small", json={"query": word})["results"]:
        assert time.monotonic() - began < 60, "never searchable"
        time.sleep(0.05)
    return time.monotonic() - began


def measure(ask: Ask, folder: Path) -> list[float]:
    """Seconds from upload to searchable, of uploads while the bulk is under way from the first to the last."""
    source = begin_bulk(ask, folder)
    ask("POST", "/v1/teams", json={"id": "small", "name": "Small"})
    deadline = time.monotonic() + 120
    while ready(ask, source) < 20:
        assert time.monotonic() < deadline, "the bulk sync does not begin"
        time.sleep(0.1)
    took = [seconds_to_searchable(ask, number) for number in range(UPLOADS)]
    assert ready(ask, source) < BULK, "the bulk was through too soon to prove anything"
    return took


def test_embedded(alone: Alone, tmp_path: Path) -> None:
    took = measure(alone.request, tmp_path / "docs")
    log.info("seconds to searchable: median %.2f, worst %.2f", statistics.median(took), max(took))
    assert max(took) <= PROMISED_S, took


def test_distributed(service: Cluster, tmp_path: Path) -> None:
    took = measure(service.request, tmp_path / "docs")
    log.info("seconds to searchable: median %.2f, worst %.2f", statistics.median(took), max(took))
    assert max(took) <= PROMISED_S, took
