"""rag admin dead-letters against a running service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rag_service.cli import app
from rag_service.cli.serving import serving
from rag_service.settings import Settings

ADMIN_KEY = "dead-letters-admin-key-0123456789"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), admin_key=ADMIN_KEY, embedder="hashing", sweep_s=0.5)
    with serving(settings, "127.0.0.1", 0) as running:
        for team in ("red", "blue"):
            rag(running.url, "team", "create", team)
        yield running.url


def rag(url: str, *arguments: str, exits: int = 0) -> Result:
    env: dict[str, str | None] = dict.fromkeys(("RAG_API_KEY", "RAG_TEAM", "RAG_DATA_DIR"))
    result = CliRunner().invoke(app, arguments, env=env | {"RAG_URL": url, "RAG_ADMIN_KEY": ADMIN_KEY})
    assert result.exit_code == exits, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def letters(*arguments: str, exits: int = 0) -> Result:
    url, *rest = arguments
    return rag(url, "admin", "dead-letters", *rest, exits=exits)


def listed(url: str, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(letters(url, "list", *options, "--json").stdout)["data"]
    return found


@pytest.fixture
def broken(url: str, tmp_path: Path) -> str:
    """A document of team red that is no PDF; returns the id of the job that gave up."""
    (tmp_path / f"{tmp_path.name}.pdf").write_bytes(b"%PDF-1.7 and nothing more " + tmp_path.name.encode())
    rag(url, "document", "add", str(tmp_path / f"{tmp_path.name}.pdf"), "--team", "red", exits=1)
    return str(listed(url)[0]["job_id"])


def test_letters_are_listed_with_their_diagnosis_and_narrowed(url: str, broken: str) -> None:
    shown = letters(url, "list", "--team", "red").stdout
    assert broken in shown
    assert "permanent" in shown
    assert broken in [letter["job_id"] for letter in listed(url, "--class", "permanent", "--kind", "index")]
    assert listed(url, "--team", "blue") == listed(url, "--class", "poison") == []
    assert "No job has given up." in letters(url, "list", "--team", "blue").stdout


def test_letters_of_a_source_are_named_by_it(url: str, tmp_path: Path) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 and nothing more of it")
    of_red = ("--team", "red")
    rag(url, "source", "add", "files", "handbook", "--root", str(tmp_path), *of_red)
    rag(url, "source", "sync", "handbook", *of_red, exits=1)
    (letter,) = listed(url, "--source", "handbook", *of_red)
    assert listed(url, "--source", letter["source_id"]) == [letter]
    assert "There is: handbook." in letters(url, "list", "--source", "nope", *of_red, exits=1).stderr
    assert "There is no such team." in letters(url, "list", "--team", "nope", exits=1).stderr
    assert "1 letters are put away" in letters(url, "discard", "--source", "handbook", *of_red).stdout


def test_letters_are_retried_by_id_and_by_what_they_have_in_common(url: str, broken: str) -> None:
    assert "1 jobs are tried again" in letters(url, "retry", broken).stdout
    rag(url, "job", "watch", broken, "--team", "red", exits=1)
    assert [letter["retried"][0]["was"]["code"] for letter in listed(url) if letter["job_id"] == broken] == ["corrupt"]
    code = listed(url)[0]["error"]["code"]
    assert json.loads(letters(url, "retry", "--team", "red", "--code", code, "--json").stdout)["retried"] >= 1
    rag(url, "job", "watch", broken, "--team", "red", exits=1)


def test_letters_are_discarded(url: str, broken: str) -> None:
    assert "1 letters are put away" in letters(url, "discard", broken).stdout
    assert broken not in [letter["job_id"] for letter in listed(url)]
    letters(url, "discard", "--team", "red", "--all")
    assert listed(url) == []


@pytest.mark.parametrize("options", [(), ("--team", "red"), ("job_1", "--all"), ("--all", "--code", "x")])
def test_nothing_is_retried_or_discarded_by_accident(url: str, broken: str, options: tuple[str, ...]) -> None:
    for action in ("retry", "discard"):
        assert "not clear" in letters(url, action, *options, exits=2).stderr
    assert broken in [letter["job_id"] for letter in listed(url)]
