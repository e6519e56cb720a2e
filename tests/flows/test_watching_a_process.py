"""What `rag serve` and a worker show of themselves, as processes."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import httpx

from tests.distributed.servers import free_port
from tests.flows.test_cli_serving import ended, rag
from tests.otlp_collector import collecting


def test_serve_writes_json_gives_metrics_on_a_port_and_exports_its_traces_at_the_end(tmp_path: Path) -> None:
    port = free_port()
    with collecting() as collector:
        wanted = {"RAG_METRICS_PORT": str(port), "RAG_OTLP_ENDPOINT": collector.url, "RAG_LOG_FORMAT": "json"}
        with rag(tmp_path, "serve", "--port", "0", **wanted) as running:
            running.until("Serving on")
            running.until("kept in")
            key = (tmp_path / "admin.key").read_text().strip()
            headers = {"Authorization": f"Bearer {key}", "X-Request-Id": "seen-1"}
            assert httpx.get(f"{running.url}/v1/teams", headers=headers).is_success
            line = running.until("seen-1")
            metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
            assert running.end() == 0
        assert json.loads(line).items() >= {"message": "request", "route": "/v1/teams", "key": "admin"}.items()
        assert re.search(r'rag_http_requests_total\{method="GET",route="/v1/teams",status="200"\} 1.0', metrics)
        assert "rag_state_readable 1.0" in metrics
        assert collector.named("GET /v1/teams")


def test_a_metrics_port_that_is_taken_is_said_and_nothing_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = ended(tmp_path, "serve", "--port", "0", RAG_METRICS_PORT=str(taken.getsockname()[1]))
    assert refused.returncode == 2
    assert "RAG_METRICS_PORT" in refused.stderr
    assert "Serving on" not in refused.stdout
