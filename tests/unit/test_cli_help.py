"""Help comes at once, for every command, and says what it does."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from rag_service import __version__
from rag_service.cli import app

# A shared machine may be slow; on an idle one help takes a fifth of a second.
SLOWEST_HELP = 6.0  # times the processor time that the library of the command line needs to be loaded
HEAVY = ("torch", "sentence_transformers", "fastapi", "uvicorn", "sqlalchemy", "httpx", "numpy", "pydantic", "dramatiq")


def commands(group: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for command in group.registered_commands:
        yield (*path, str(command.name))
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, (*path, str(inner.name)))


ALL = list(commands(app))
STARTERS = {("serve",), ("scheduler",), ("quickstart",)}
# These work on the data itself, whether a service runs or not.
OFFLINE = {
    ("admin", "restore"),
    ("admin", "rotate-secrets"),
    ("admin", "audit", "export"),
    ("admin", "audit", "verify"),
}


def test_the_commands_that_users_are_told_of_are_there() -> None:
    expected = {"serve", "quickstart", "search", "doctor", "source add", "source sync", "document add", "job watch"}
    assert expected <= {" ".join(path) for path in ALL}


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_explains_itself_and_each_of_its_options(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"})

    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    options = [line for line in result.stdout.splitlines() if line.strip().startswith("-")]
    assert options
    assert not [line for line in options if len(line.split("  ", 3)) < 2]


@pytest.mark.parametrize("path", [path for path in ALL if path not in STARTERS | OFFLINE], ids=" ".join)
def test_every_command_that_asks_the_service_takes_its_address_key_team_and_json(path: tuple[str, ...]) -> None:
    text = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"}).stdout

    assert all(option in text for option in ("--url", "--key", "--team", "--json"))


def processor_s(*arguments: str, runs: int = 3, prints: bytes = b"") -> float:
    """The least of so many runs of the interpreter, each of which `prints` this."""
    took = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        assert prints in done.stdout
    return min(took)


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["serve", "--help"]], ids=" ".join)
def test_help_is_quick(arguments: list[str]) -> None:
    took = processor_s("-m", "rag_service", *arguments, prints=b"Usage: rag")
    assert took < SLOWEST_HELP * processor_s("-c", "import typer.main")


def test_help_that_loads_what_computes_would_be_noticed() -> None:
    took = processor_s("-c", "import rag_service.cli, rag_service.runtime", runs=1)
    assert took > SLOWEST_HELP * processor_s("-c", "import typer.main")


def test_the_command_line_loads_nothing_heavy_before_it_is_needed() -> None:
    code = f"import sys, rag_service.cli; sys.stdout.write(' '.join({HEAVY!r} & sys.modules.keys()))".replace(
        repr(HEAVY), repr(set(HEAVY))
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert done.stdout == ""


def test_the_version_is_that_of_the_package() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == __version__


@pytest.mark.parametrize(
    "arguments", [["serch"], ["search"], ["search", "--top-k", "0", "x"], ["source", "add", "files"]]
)
def test_a_command_that_is_misspelt_or_incomplete_exits_2_and_says_so_on_stderr(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr
