"""The commands of the README are run as they stand there; only address, folder and key are this test's own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rag_service.cli.serving import serving
from tests.conftest import settings_for

ROOT = Path(__file__).parent.parent.parent
BLOCKS: list[str] = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@dataclass(frozen=True)
class Reader:
    """Somebody who types what the README says, beside a running service."""

    url: str
    folder: Path
    documents: Path

    def types(self, commands: str) -> str:
        commands = (
            commands.replace("http://127.0.0.1:8000", self.url)
            .replace("/srv/handbook", str(self.documents))
            .replace(".venv/bin/rag", f"{sys.executable} -m rag_service")
        )
        environment = {**os.environ, "RAG_URL": self.url, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("readme")
    documents = folder / "handbook"
    documents.mkdir()
    (documents / "leave.md").write_text("# Leave\n\nEverybody has thirty days of leave a year.\n")
    settings = settings_for(folder / ".rag", admin_key=None)
    with serving(settings, "127.0.0.1", 0) as running:
        running.runtime.catalogue.create_team("demo", "Demo")
        yield Reader(running.url, folder, documents)


def block(word: str) -> str:
    (found,) = [text for text in BLOCKS if word in text]
    return found


@pytest.mark.parametrize("target", ["run", "test", "install"])
def test_the_commands_of_make_exist(target: str) -> None:
    assert subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_commands_answer_the_question(reader: Reader) -> None:
    register, sync, ask = re.split(r"\n\n(?=curl)", block("curl -s"))
    source = json.loads(reader.types(register))
    key = register.splitlines()[0]
    job = json.loads(reader.types(f"{key}\n{sync}".replace("SOURCE_ID", source["id"])))
    reader.types(f"{sys.executable} -m rag_service job watch {job['job_id']} --team demo")
    results = json.loads(reader.types(f"{key}\n{ask}"))["results"]
    assert [result["title"] for result in results] == ["Leave"]


def test_the_rag_commands_answer_the_question(reader: Reader) -> None:
    commands = (
        block("rag source add")
        .replace("handbook --root", "handbook-2 --root")
        .replace("sync handbook", "sync handbook-2")
    )
    assert "thirty days of leave" in reader.types(commands)


def test_the_key_for_an_application_can_ask_and_nothing_else(reader: Reader) -> None:
    secret = reader.types(block("rag key create")).strip()
    ask = f"{sys.executable} -m rag_service search leave --team demo --key {secret}"
    assert "Nothing found that this asker may read" in reader.types(ask)
    with pytest.raises(AssertionError, match="manage"):
        reader.types(f"{sys.executable} -m rag_service key list --team demo --key {secret}")
