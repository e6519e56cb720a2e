"""What the commands that talk to a running service have in common: four options, and how they end."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from rag_service.cli.client import DEFAULT_URL, Service, is_loopback
from rag_service.cli.failure import CommandFailed
from rag_service.cli.output import Output

_PANEL = "Service"
_COMMON = {
    "url": Annotated[
        str,
        typer.Option("--url", metavar="URL", envvar="RAG_URL", help="Address of the service.", rich_help_panel=_PANEL),
    ],
    "key": Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="KEY",
            envvar="RAG_API_KEY",
            show_envvar=True,
            help="API key; else RAG_ADMIN_KEY, else admin.key of RAG_DATA_DIR when the service is on this machine.",
            rich_help_panel=_PANEL,
        ),
    ],
    "team": Annotated[
        str | None,
        typer.Option(
            "--team",
            metavar="ID",
            envvar="RAG_TEAM",
            help="Team an admin key acts for; may be left out if it is the only one.",
            rich_help_panel=_PANEL,
        ),
    ],
    "as_json": Annotated[
        bool, typer.Option("--json", help="Print the service's JSON and nothing else.", rich_help_panel=_PANEL)
    ],
}
_DEFAULTS = {"url": DEFAULT_URL, "key": None, "team": None, "as_json": False}


@dataclass(frozen=True)
class Session:
    service: Service
    output: Output


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command its session, its first parameter, in place of --url, --key, --team and --json.

    Its errors become lines on stderr and an exit code.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @wraps(command)
    def run(**given: Any) -> None:
        url, key, team, as_json = (given.pop(name) for name in _COMMON)
        output = Output(as_json)
        service = Service(url, key or local_key(url), team)
        with ending(output):
            try:
                command(Session(service, output), **given)
            finally:
                service.close()

    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[name], annotation=annotation)
        for name, annotation in _COMMON.items()
    ]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + common
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what inspect looks for
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@contextmanager
def ending(output: Output) -> Iterator[None]:
    """Turns a CommandFailed into its lines on stderr and its exit code."""
    try:
        yield
    except CommandFailed as failed:
        output.failure(failed)
        raise typer.Exit(failed.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def local_key(url: str) -> str | None:
    """The admin key of a service on this machine. It is not sent to any other."""
    if given := os.environ.get("RAG_ADMIN_KEY"):
        return given
    path = Path(os.environ.get("RAG_DATA_DIR") or ".rag") / "admin.key"
    if not is_loopback(url):
        return None
    try:
        return path.read_text().strip()
    except OSError:
        return None
