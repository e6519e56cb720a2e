"""`rag serve` and `rag quickstart` as processes: how they start, what they say, and how they end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

START_S = 60.0


@dataclass
class Running:
    """A process, and what it has said until now."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    def until(self, part: str) -> str:
        """Read on until a line holds `part`; that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if part in line:
                return line
        raise AssertionError(f"it ended without {part!r}: {self.text}")

    @property
    def text(self) -> str:
        return "".join(self.said)

    @property
    def url(self) -> str:
        (url,) = set(re.findall(r"Serving on (\S+)", self.text))
        return str(url)

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        assert self.process.stdout is not None
        self.said += self.process.stdout.readlines()
        return self.process.wait(timeout=START_S)


def environment(data: Path, **more: str) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAG_")}
    return {**bare, "RAG_DATA_DIR": str(data), "RAG_EMBEDDER": "hashing", "PYTHONUNBUFFERED": "1", **more}


@contextmanager
def rag(data: Path, *arguments: str, **more: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [sys.executable, "-m", "rag_service", *arguments],
        env=environment(data, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate()


def ended(data: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rag_service", *arguments],
        env=environment(data, **more),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "leave.md").write_text("# Parental leave\n\nParents get twenty weeks of leave after a birth.\n")
    (folder / "canteen.md").write_text("# The canteen\n\nIt opens at noon and closes at two.\n")
    return folder


# --- serve ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: str(number.name))
def test_serve_says_where_it_is_makes_a_key_and_ends_cleanly_when_told(tmp_path: Path, number: signal.Signals) -> None:
    with rag(tmp_path, "serve", "--port", "0") as running:
        running.until("Admin key: ")
        running.until("kept in")
        kept = tmp_path / "admin.key"
        assert kept.read_text().strip() in running.text
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert httpx.get(f"{running.url}/readyz").is_success

        assert running.end(number) == 0
        assert "Traceback" not in running.text
        assert "Stopped." in running.text


def test_a_key_that_was_there_before_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("rag_admin_of_an_earlier_start\n")
    with rag(tmp_path, "serve", "--port", "0") as running:
        assert str(tmp_path / "admin.key") in running.until("Admin key: ")
        assert running.end() == 0
        assert "rag_admin_of_an_earlier_start" not in running.text


def test_a_key_that_was_given_is_used_and_not_shown(tmp_path: Path) -> None:
    with rag(tmp_path, "serve", "--port", "0", RAG_ADMIN_KEY="given-admin-key-0123456789") as running:
        running.until("RAG_ADMIN_KEY")
        headers = {"Authorization": "Bearer given-admin-key-0123456789"}
        assert httpx.get(f"{running.url}/v1/teams", headers=headers).is_success
        assert running.end() == 0
        assert "given-admin-key" not in running.text
        assert not (tmp_path / "admin.key").exists()


def test_a_service_without_a_worker_takes_documents_and_says_that_it_does_not_index_them(tmp_path: Path) -> None:
    with rag(tmp_path, "serve", "--port", "0", "--no-worker", RAG_ADMIN_KEY="given-admin-key-0123456789") as running:
        running.until("Nothing is indexed")
        headers = {"Authorization": "Bearer given-admin-key-0123456789"}
        httpx.post(f"{running.url}/v1/teams", headers=headers, json={"id": "one", "name": "One"}).raise_for_status()
        headers["X-Rag-Team"] = "one"
        content = {"text": "Wait for a worker."}
        made = httpx.post(f"{running.url}/v1/documents", headers=headers, json=content).json()
        time.sleep(1)
        record = httpx.get(f"{running.url}/v1/documents/{made['id']}", headers=headers).json()
        assert record["status"] == "accepted"
        assert running.end() == 0


def test_a_data_folder_in_use_and_a_port_in_use_are_told_in_one_sentence_each(tmp_path: Path) -> None:
    with rag(tmp_path, "serve", "--port", "0") as running:
        running.until("kept in")
        port = running.url.rpartition(":")[2]

        same_data = ended(tmp_path, "serve", "--port", "0")
        same_port = ended(tmp_path / "other", "serve", "--port", port)

        assert (same_data.returncode, same_port.returncode) == (2, 2)
        assert re.fullmatch(r"Error: Another process uses the data folder .*\n", same_data.stderr)
        assert f"Port {port}" in same_port.stderr
        assert f"PORT={int(port) + 1}" in same_port.stderr
        assert running.end() == 0


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("RAG_WORKER_THREADS", "many-secret", "RAG_WORKER_THREADS"),
        ("RAG_REDIS_URL", "redis://localhost", "RAG_QDRANT_URL"),
        ("RAG_EMBEDDER", "http", "RAG_EMBEDDING_URL"),
        (
            "RAG_RATE_TEAMS",
            "{secret",
            'RAG_RATE_TEAMS is no JSON.\nIt is: Teams with other rates, as JSON: `{"search": 5}`',
        ),
        ("RAG_RATE_TEAMS", '{"search": "secret"}', "RAG_RATE_TEAMS: Input should be a valid number"),
        ("RAG_QDRANT_URL", "secret", "RAG_QDRANT_URL is no address of a Qdrant server"),
    ],
)
def test_a_setting_that_cannot_work_is_named_without_its_value(
    tmp_path: Path, setting: str, value: str, told: str
) -> None:
    done = ended(tmp_path, "serve", "--port", "0", **{setting: value})

    assert done.returncode == 2
    assert told in done.stderr
    assert "secret" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert done.stdout == ""


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = ended(tmp_path / "file" / "data", "serve", "--port", "0")

    assert done.returncode == 2
    assert "RAG_DATA_DIR" in done.stderr


def test_an_address_that_is_not_of_this_machine_is_told(tmp_path: Path) -> None:
    done = ended(tmp_path, "serve", "--port", "0", "--host", "no.such.host.invalid")
    assert done.returncode == 2
    assert "--host 127.0.0.1" in done.stderr


# --- doctor -----------------------------------------------------------------------------------


def test_doctor_finds_a_running_service_well(tmp_path: Path) -> None:
    with rag(tmp_path, "serve", "--port", "0") as running:
        running.until("kept in")
        done = ended(tmp_path, "doctor", "--url", running.url)
        assert done.returncode == 0, done.stdout
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok"] * 6
        assert running.end() == 0


def test_doctor_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        done = ended(tmp_path / "new", "doctor", "--url", url, "--json", RAG_EMBEDDER="http", RAG_EMBEDDING_URL=url)

    assert done.returncode == 1
    checks = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["data folder"]["ok"]
    assert checks["database"]["ok"]
    assert not checks["service"]["ok"]
    assert "rag serve" in checks["service"]["fix"]
    assert not checks["model"]["ok"]
    assert "RAG_EMBEDDING_URL" in checks["model"]["fix"]
    assert not (tmp_path / "new").exists()


# --- quickstart -------------------------------------------------------------------------------


def test_quickstart_imports_answers_and_serves_and_a_second_start_does_not_import_again(
    tmp_path: Path, docs: Path
) -> None:
    data = tmp_path / "data"
    arguments = ("quickstart", "--port", "0", "--docs", str(docs))
    with rag(data, *arguments) as running:
        running.until("Ctrl-C stops it")
        key = (data / "admin.key").read_text().strip()
        assert f"Admin key: {key}" in running.text
        assert "Question: What does " in running.text
        assert "1. " in running.text
        for command in ("curl -s", " search ", " source add files ", "--as-user"):
            assert command in running.text
        headers = {"Authorization": f"Bearer {key}", "X-Rag-Team": "demo"}
        found = httpx.post(f"{running.url}/v1/retrieve", headers=headers, json={"query": "parents leave weeks"}).json()
        assert found["results"][0]["external_id"] == "leave.md"
        assert running.end() == 0
        assert "Traceback" not in running.text

    began = time.monotonic()
    with rag(data, *arguments) as running:
        running.until("Ctrl-C stops it")
        took = time.monotonic() - began
        assert "from an earlier start" in running.text
        assert "Importing" not in running.text
        assert "Question:" not in running.text
        assert key not in running.text
        assert str(data / "admin.key") in running.text
        documents = httpx.get(f"{running.url}/v1/documents", headers=headers).json()["data"]
        assert {document["version"] for document in documents} == {1}
        sources = httpx.get(f"{running.url}/v1/sources", headers=headers).json()["data"]
        assert [source["name"] for source in sources] == ["handbook"]
        assert running.end() == 0
    assert took < 20


def test_the_commands_that_quickstart_prints_work(tmp_path: Path, docs: Path) -> None:
    data = tmp_path / "data with a space"
    with rag(data, "quickstart", "--port", "0", "--docs", str(docs)) as running:
        running.until("Ctrl-C stops it")
        commands = [line.strip() for line in running.said if line.startswith("  ") and "--team demo" in line]
        (search,) = [command for command in commands if " search " in command]
        done = subprocess.run(
            ["sh", "-c", search], env=environment(tmp_path), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "1. " in done.stdout
        assert running.end() == 0


def test_another_folder_becomes_another_source(tmp_path: Path, docs: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "elsewhere" / "handbook"
    other.mkdir(parents=True)
    (other / "travel.md").write_text("# Travel\n\nTrains before planes.\n")
    for folder in (docs, other):
        with rag(data, "quickstart", "--port", "0", "--docs", str(folder)) as running:
            running.until("Ctrl-C stops it")
            headers = {"Authorization": f"Bearer {(data / 'admin.key').read_text().strip()}", "X-Rag-Team": "demo"}
            sources = httpx.get(f"{running.url}/v1/sources", headers=headers).json()["data"]
            assert running.end() == 0
    assert {source["name"] for source in sources} == {"handbook", "handbook-2"}


def test_an_import_that_is_broken_off_is_finished_at_the_next_start(tmp_path: Path, docs: Path) -> None:
    for number in range(400):
        (docs / f"{number}.md").write_text(f"# Page {number}\n\nWhat is said on page {number}.\n")
    data = tmp_path / "data"
    arguments = ("quickstart", "--port", "0", "--docs", str(docs))
    with rag(data, *arguments) as running:
        deadline = time.monotonic() + START_S
        while not any((data / "blobs").rglob("*")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert running.end() == 0
        assert "Question:" not in running.text
        assert "Traceback" not in running.text

    with rag(data, *arguments) as running:
        running.until("Ctrl-C stops it")
        assert "Question:" in running.text
        headers = {"Authorization": f"Bearer {(data / 'admin.key').read_text().strip()}", "X-Rag-Team": "demo"}
        url = f"{running.url}/v1/documents?status=ready&limit=1000"
        assert len(httpx.get(url, headers=headers).json()["data"]) == 402
        assert running.end() == 0


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = ended(tmp_path / "data", "quickstart", "--docs", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "DOCS=" in done.stderr
    assert not (tmp_path / "data").exists()
