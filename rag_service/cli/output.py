"""What commands write: for people on a terminal, or the service's JSON and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import typer

from rag_service.cli.failure import CommandFailed

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from rag_service.cli.progress import Progress

# Wide enough that an id, a title and an address keep to one line in a pipe.
_PIPE_WIDTH = 240
# Everything that moves a cursor or changes a terminal's state. Texts come from documents, and documents from anyone.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(value: object) -> str:
    """A value as text that does nothing to a terminal but show itself."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(printable(one) for one in value) or "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(key)}={printable(one)}" for key, one in value.items()) or "-"
    return _CONTROLS.sub("", str(value))


def moment(value: object) -> str:
    """An RFC 3339 time to the second."""
    return printable(value)[:19].replace("T", " ")


@dataclass(frozen=True)
class Output:
    """Results go to stdout, all else to stderr. With `as_json`, stdout carries one JSON value."""

    as_json: bool = False

    @cached_property
    def console(self) -> Console:
        return _console(stderr=False)

    @cached_property
    def notes(self) -> Console:
        return _console(stderr=True)

    def data(self, value: object) -> None:
        """The service's own answer, when it was asked for."""
        if self.as_json:
            typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))

    def show(self, *what: RenderableType) -> None:
        """Text or a drawing for a person; styles come as `rich.text.Text`, never as markup."""
        if not self.as_json:
            for one in what:
                self.console.print(one, markup=False, highlight=False, soft_wrap=isinstance(one, str))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
        """Rows under headings; `empty` says what to do when there are none."""
        if self.as_json:
            return
        if not rows:
            self.show(empty)
            return
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold", no_wrap=column == "ID")
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        self.console.print(table, markup=False, highlight=False)

    def fields(self, values: Mapping[str, object]) -> None:
        """One thing, a line for each of its fields that has a value."""
        width = max(map(len, values), default=0)
        for name, value in values.items():
            if value not in (None, "", [], {}):
                self.show(f"{name:<{width}}  {printable(value)}")

    def note(self, text: str) -> None:
        """A remark beside the result."""
        typer.echo(printable(text), err=True)

    def failure(self, failed: CommandFailed) -> None:
        if failed.problem is not None:
            self.data(failed.problem)
        typer.secho(f"Error: {printable(failed.message)}", err=True, fg=typer.colors.RED)
        if failed.fix:
            typer.echo(printable(failed.fix), err=True)

    @contextmanager
    def progress(self, what: str, unit: str = "documents") -> Iterator[Progress]:
        """A bar on a terminal, a line now and then elsewhere, nothing with `--json`; on stderr."""
        from rag_service.cli.progress import Progress

        with Progress(what, None if self.as_json else self.notes, unit) as progress:
            yield progress


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_PIPE_WIDTH, color_system=None)


def _cell(value: object) -> RenderableType:
    from rich.text import Text

    return Text(printable(value))
