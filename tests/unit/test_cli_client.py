"""Which key goes where, and what is said when the service does not answer as it should."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from rag_service.cli import app
from rag_service.cli.client import Service, is_loopback
from rag_service.cli.failure import FAILED, MISUSED, CommandFailed
from rag_service.cli.session import local_key


class Answering(BaseHTTPRequestHandler):
    """Answers every request alike, and keeps what it was sent."""

    status: ClassVar[int] = 200
    body: ClassVar[bytes] = b"{}"
    kind: ClassVar[str] = "application/json"
    seen: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization")))
        self.send_response(self.status)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has in the base class
        """Silence on stderr."""


@pytest.fixture
def answering() -> Iterator[tuple[type[Answering], str]]:
    class Handler(Answering):
        seen: ClassVar[list[tuple[str, str | None]]] = []

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Handler, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def failure(url: str) -> CommandFailed:
    service = Service(url, "key", "team")
    try:
        with pytest.raises(CommandFailed) as raised:
            service.get("/v1/jobs")
    finally:
        service.close()
    return raised.value


def test_a_service_that_is_not_there_names_how_to_start_it() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        result = CliRunner().invoke(app, ["team", "list", "--url", url, "--key", "k"])

    assert result.exit_code == FAILED
    assert result.stdout == ""
    assert url in result.stderr
    assert "`make run` or `rag serve`" in result.stderr


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://host", "http://[", "http://host:port"])
def test_what_is_no_address_is_misuse(url: str) -> None:
    failed = failure(url)
    assert failed.exit_code == MISUSED
    assert "http://127.0.0.1:8000" in failed.fix


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [(400, MISUSED), (401, MISUSED), (403, FAILED), (404, FAILED), (422, MISUSED), (503, FAILED)],
)
def test_a_problem_is_told_in_its_own_words(
    answering: tuple[type[Answering], str], status: int, exit_code: int
) -> None:
    handler, url = answering
    handler.status, handler.kind = status, "application/problem+json"
    handler.body = b'{"status": 1, "detail": "Do this instead.", "code": "c"}'

    failed = failure(url)

    assert failed.message == "Do this instead."
    assert failed.exit_code == exit_code
    assert failed.problem is not None
    assert failed.problem["code"] == "c"
    assert (status == 401) == ("RAG_API_KEY" in failed.fix)


@pytest.mark.parametrize(("status", "kind"), [(502, "text/html"), (200, "text/html"), (500, "application/json")])
def test_an_answer_that_is_not_the_services_is_told_as_such(
    answering: tuple[type[Answering], str], status: int, kind: str
) -> None:
    handler, url = answering
    handler.status, handler.kind, handler.body = status, kind, b"<html>"

    assert "Is this really" in failure(url).fix


def test_the_kept_admin_key_goes_to_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "admin.key").write_text("kept\n")
    monkeypatch.delenv("RAG_ADMIN_KEY", raising=False)
    monkeypatch.setenv("RAG_DATA_DIR", str(tmp_path))

    assert local_key("http://127.0.0.1:8000") == "kept"
    assert local_key("http://localhost:1") == "kept"
    assert local_key("https://rag.example.com") is None
    assert local_key("http://localhost.example.com") is None
    assert local_key("http://127.0.0.1.example.com") is None
    assert local_key("http://127.0.0.1@example.com") is None


def test_an_admin_key_that_was_set_is_used_before_the_kept_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "admin.key").write_text("kept\n")
    monkeypatch.setenv("RAG_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RAG_ADMIN_KEY", "set")

    assert local_key("http://127.0.0.1:8000") == "set"


def test_without_any_key_the_command_says_where_one_comes_from(
    answering: tuple[type[Answering], str], tmp_path: Path
) -> None:
    handler, url = answering
    handler.status, handler.kind = 401, "application/problem+json"
    handler.body = b'{"detail": "No valid key was sent."}'

    env = {"RAG_DATA_DIR": str(tmp_path), "RAG_ADMIN_KEY": None, "RAG_API_KEY": None}
    result = CliRunner().invoke(app, ["team", "list", "--url", url], env=env)

    assert result.exit_code == MISUSED
    assert "--key" in result.stderr
    assert handler.seen == [("/v1/teams?limit=100", None)]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://127.9.9.9", "http://[::1]:80", "http://localhost"])
def test_loopback_addresses_are_known(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize("url", ["http://10.0.0.1", "http://0.0.0.0", "http://example.com", "", "127.0.0.1"])
def test_other_addresses_are_not_taken_for_loopback(url: str) -> None:
    assert not is_loopback(url)
