"""`rag admin audit`: the log is taken away and verified without the service, which may run beside it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rag_service.cli import app
from tests.conftest import Started, settings_for

Rag = Callable[..., Result]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a running service with a few entries of two teams."""
    folder = tmp_path_factory.mktemp("data")
    with Started(settings_for(folder), worker=False) as service:
        team = service.new_team()
        team.put("A text.")
        service.new_team()
        yield folder


@pytest.fixture
def rag(filled: Path) -> Rag:
    return lambda *arguments, exits=0, data_dir=filled: run(data_dir, exits, *arguments)


def run(data_dir: Path, exits: int, *arguments: str) -> Result:
    settings = {"RAG_DATA_DIR": str(data_dir), "RAG_EMBEDDER": "hashing", "RAG_DATABASE_URL": None}
    result = CliRunner().invoke(app, ["admin", "audit", *arguments], env=settings)
    assert result.exit_code == exits, f"{result.output}\n{result.exception!r}"
    return result


def test_the_log_is_exported_whole_or_narrowed(rag: Rag) -> None:
    entries = [json.loads(line) for line in rag("export").stdout.splitlines()]
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    assert {"settings.changed", "team.created", "key.created", "document.created"} <= {
        entry["action"] for entry in entries
    }
    team = next(entry["team_id"] for entry in entries if entry["action"] == "team.created")
    narrowed = rag("export", "--team", team, "--action", "document.*").stdout.splitlines()
    assert [json.loads(line)["action"] for line in narrowed] == ["document.created"]


def test_a_whole_log_verifies_and_tells_its_head(rag: Rag) -> None:
    told = json.loads(rag("verify", "--json").stdout)
    assert told["faults"] == []
    assert told["head"].startswith(f"{told['entries']}:")
    assert "none changed" in rag("verify", "--head", told["head"]).stdout
    wrong = told["head"][:-4] + ("0000" if told["head"][-4:] != "0000" else "1111")
    assert "another hash than was noted" in rag("verify", "--head", wrong, exits=1).output
    assert "is no head" in rag("verify", "--head", "12", exits=2).output


def test_an_export_verifies_by_itself_and_a_spoiled_one_does_not(rag: Rag, tmp_path: Path) -> None:
    exported = rag("export").stdout
    file = tmp_path / "audit.jsonl"
    file.write_text(exported)
    assert "none changed" in rag("verify", "--file", str(file)).stdout
    file.write_text(exported.replace("team.created", "team.removed", 1))
    assert "was changed or put in" in rag("verify", "--file", str(file), exits=1).output
    for content in ("not JSON\n", "{}\n", "[]\n"):
        file.write_text(content)
        assert "no export of the audit log" in rag("verify", "--file", str(file), exits=2).output
    assert "no export" in rag("verify", "--file", str(tmp_path / "none"), exits=2).output


def test_a_narrowed_export_is_neither_verified_nor_said_to_be_tampered_with(rag: Rag, tmp_path: Path) -> None:
    whole = rag("export").stdout.splitlines()
    team = next(entry["team_id"] for entry in map(json.loads, whole) if entry["action"] == "team.created")
    file = tmp_path / "audit.jsonl"
    for narrowing in (("--team", team), ("--action", "document.*")):
        narrowed = rag("export", *narrowing).stdout
        file.write_text(narrowed)
        told = rag("verify", "--file", str(file), exits=2).output
        assert ("tampered" in told, "cannot be verified by itself" in told) == (False, True)
        noted = f"{json.loads(narrowed.splitlines()[0])['seq']}:{'0' * 64}"
        assert "another hash than was noted" in rag("verify", "--file", str(file), "--head", noted, exits=1).output
    for gone in range(len(whole) - 1):
        file.write_text("\n".join(whole[:gone] + whole[gone + 1 :]))
        assert "tampered" in rag("verify", "--file", str(file), exits=1).output


def test_the_log_of_a_team_that_is_none_is_not_an_empty_one(rag: Rag) -> None:
    assert "There is no such team" in rag("export", "--team", "nope", exits=1).output


def test_a_database_that_was_tampered_with_is_told_by_its_entries(rag: Rag, filled: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    with closing(sqlite3.connect(filled / "rag.db")) as source, closing(sqlite3.connect(copy / "rag.db")) as spoiled:
        source.backup(spoiled)
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            spoiled.execute("UPDATE audit_log SET target = 'x' WHERE seq = 2")
        spoiled.execute("DROP TRIGGER audit_log_no_update")
        spoiled.execute("UPDATE audit_log SET target = 'x' WHERE seq = 2")
        spoiled.commit()
    told = rag("verify", exits=1, data_dir=copy).output
    assert "entry 2 was changed or put in" in told


def test_where_there_is_no_service_nothing_is_made(rag: Rag, tmp_path: Path) -> None:
    assert "There is no service in" in rag("verify", exits=2, data_dir=tmp_path / "none").output
    assert not (tmp_path / "none").exists()
