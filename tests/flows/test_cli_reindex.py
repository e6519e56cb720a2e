"""rag admin reindex against a running service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rag_service.cli import app
from rag_service.cli import reindex as command
from rag_service.cli.serving import serving
from rag_service.settings import Settings

ADMIN_KEY = "reindex-admin-key-0123456789"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("data")
    settings = Settings(data_dir=folder / "service", admin_key=ADMIN_KEY, embedder="hashing", sweep_s=0.5)
    with serving(settings, "127.0.0.1", 0) as running:
        for team in ("red", "blue"):
            rag(running.url, "team", "create", team)
            for place in range(3 if team == "red" else 1):
                page = folder / f"{team}{place}.md"
                page.write_text(f"# {team} {place}\n\nA page of team {team}.")
                rag(running.url, "document", "add", str(page), "--team", team)
        yield running.url


def rag(url: str, *arguments: str, exits: int = 0, typed: str = "") -> Result:
    env: dict[str, str | None] = dict.fromkeys(("RAG_API_KEY", "RAG_TEAM", "RAG_DATA_DIR"))
    result = CliRunner().invoke(app, arguments, input=typed, env=env | {"RAG_URL": url, "RAG_ADMIN_KEY": ADMIN_KEY})
    assert result.exit_code == exits, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def reindex(url: str, *options: str, exits: int = 0, typed: str = "") -> Result:
    return rag(url, "admin", "reindex", *options, exits=exits, typed=typed)


def jobs(url: str, team: str) -> list[dict[str, Any]]:
    found = json.loads(rag(url, "job", "list", "--kind", "reindex", "--team", team, "--json").stdout)["data"]
    return list(found)


def test_a_dry_run_shows_what_it_takes_and_does_nothing(url: str) -> None:
    shown = reindex(url, "--from", "parse", "--team", "red", "--dry-run").stdout
    assert "documents  3" in shown
    assert "disk" in shown
    plan = json.loads(reindex(url, "--from", "embed", "--dry-run", "--json").stdout)
    assert (plan["documents"], plan["chunks"]) == (4, 4)
    assert "3 documents were uploaded" in reindex(url, "--from", "fetch", "--team", "red", "--dry-run").stdout
    assert jobs(url, "blue") == []


def test_it_asks_shows_and_follows_it_to_its_end(url: str) -> None:
    before = len(jobs(url, "red"))
    done = reindex(url, "--from", "chunk", "--team", "red", typed="yes\n")
    assert "Type 'yes' to go on" in done.stderr
    assert "succeeded: 3 scanned" in done.stdout
    assert [job["state"] for job in jobs(url, "red")[: len(jobs(url, "red")) - before]] == ["succeeded"]


def test_only_documents_of_a_source_are_worked_on_by_its_name(url: str, tmp_path: Path) -> None:
    rag(url, "source", "add", "files", "manuals", "--root", str(tmp_path), "--team", "red")
    of_source = ("--from", "chunk", "--source", "manuals", "--dry-run")
    assert "documents  0" in reindex(url, *of_source, "--team", "red").stdout
    assert "Name one: --team" in reindex(url, *of_source, exits=2).stderr


def test_without_a_team_every_team_is_worked_on(url: str) -> None:
    done = json.loads(reindex(url, "--from", "metadata", "--yes", "--json").stdout)
    assert sorted(job["counters"]["scanned"] for job in done["jobs"]) == [1, 3]
    assert done["plan"]["documents"] == 4


@pytest.mark.parametrize("typed", ["\n", "no\n", "red\n"])
def test_anything_but_the_word_does_nothing(url: str, typed: str) -> None:
    before = len(jobs(url, "red"))
    assert "Nothing was done." in reindex(url, "--from", "embed", "--team", "red", typed=typed, exits=2).stderr
    assert len(jobs(url, "red")) == before


def test_for_many_documents_the_team_is_to_be_typed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_MANY", 2)
    assert "Nothing was done." in reindex(url, "--from", "metadata", "--team", "red", typed="yes\n", exits=2).stderr
    assert "succeeded" in reindex(url, "--from", "metadata", "--team", "red", typed="red\n").stdout
    assert "Type 'all teams'" in reindex(url, "--from", "metadata", typed="yes\n", exits=2).stderr
    assert "succeeded" in reindex(url, "--from", "metadata", "--team", "blue", typed="yes\n").stdout


def test_scripts_say_yes_themselves(url: str) -> None:
    assert "--yes" in reindex(url, "--from", "embed", "--json", exits=2).stderr


def test_it_returns_at_once_where_nobody_waits(url: str) -> None:
    assert "is under way" in reindex(url, "--from", "metadata", "--team", "blue", "--yes", "--no-wait").stdout


def test_what_is_wrong_is_told(url: str) -> None:
    assert "from_stage" in reindex(url, "--from", "read", "--dry-run", exits=2).stderr
    assert (
        "no such collection"
        in reindex(url, "--from", "embed", "--team", "red", "--collection", "x", "--yes", exits=1).stderr
    )
    assert "Name the team too" in reindex(url, "--from", "embed", "--collection", "x", "--dry-run", exits=2).stderr
    assert "--filter" in reindex(url, "--from", "embed", "--filter", "year", "--dry-run", exits=2).stderr


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 seconds"), (89, "89 seconds"), (600, "10 minutes"), (7200, "2.0 hours")],
)
def test_times_are_told_as_people_say_them(seconds: float, said: str) -> None:
    assert command.spoken(seconds) == f"about {said}"


def test_a_document_that_fails_is_a_failure_of_the_command(url: str, tmp_path: Path) -> None:
    page = tmp_path / "bad.pdf"
    page.write_bytes(b"%PDF-1.7 and nothing more")
    rag(url, "document", "add", str(page), "--team", "blue", exits=1)
    failed = reindex(url, "--from", "parse", "--failed-only", "--team", "blue", "--yes", exits=1)
    assert "1 of its documents failed" in failed.stderr
