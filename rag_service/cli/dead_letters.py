"""rag admin dead-letters: jobs that gave up."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rag_service.cli.failure import MISUSED, CommandFailed
from rag_service.cli.options import Limit, given
from rag_service.cli.output import moment
from rag_service.cli.session import Session, connected
from rag_service.cli.sources import source_id

commands = typer.Typer(help="Jobs that gave up: why, and another try. --team narrows them.", no_args_is_help=True)

_PATH = "/v1/admin/dead-letters"
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of the jobs.")]
Kind = Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Only sync, index, remove or refresh.")]
ErrorClass = Annotated[
    str | None,
    typer.Option("--class", metavar="CLASS", help="Only transient, quota, auth, poison, permanent or defect."),
]
Code = Annotated[str | None, typer.Option("--code", metavar="CODE", help="Only with this code of error.")]
Source = Annotated[str | None, typer.Option("--source", metavar="NAME", help="Only of this source, by name or id.")]
Document = Annotated[str | None, typer.Option("--document", metavar="ID", help="Only of this document.")]
Every = Annotated[bool, typer.Option("--all", help="Every letter there is.")]


@commands.command("list")
@connected
def list_letters(
    session: Session,
    *,
    kind: Kind = None,
    error_class: ErrorClass = None,
    code: Code = None,
    source: Source = None,
    document: Document = None,
    limit: Limit = 50,
) -> None:
    """List the jobs that gave up, newest first, with their diagnosis."""
    narrowing = _filter(session, kind, error_class, code, source, document)
    page = session.service.list_all(_PATH, limit, **narrowing)
    session.output.data(page)
    rows = [_row(letter) for letter in page["data"]]
    columns = ("ID", "Team", "Kind", "Class", "Code", "Tries", "Failed", "Why")
    session.output.table(columns, rows, "No job has given up.")


@commands.command("retry")
@connected
def retry_letters(
    session: Session,
    ids: Ids = None,
    *,
    kind: Kind = None,
    error_class: ErrorClass = None,
    code: Code = None,
    source: Source = None,
    document: Document = None,
    every: Every = False,
) -> None:
    """Try these jobs again, their counts of failures at zero."""
    which = _which(_filter(session, kind, error_class, code, source, document), ids, every)
    done = session.service.post(f"{_PATH}:retry", which)
    session.output.data(done)
    beside = f" {done['superseded']} had been superseded by newer work." if done["superseded"] else ""
    session.output.show(f"{done['retried']} jobs are tried again.{beside}")


@commands.command("discard")
@connected
def discard_letters(
    session: Session,
    ids: Ids = None,
    *,
    kind: Kind = None,
    error_class: ErrorClass = None,
    code: Code = None,
    source: Source = None,
    document: Document = None,
    every: Every = False,
) -> None:
    """Put these letters away. Their documents stay failed, with the reason."""
    which = _which(_filter(session, kind, error_class, code, source, document), ids, every)
    done = session.service.post(f"{_PATH}:discard", which)
    session.output.data(done)
    session.output.show(f"{done['discarded']} letters are put away.")


def _filter(
    session: Session, kind: str | None, error_class: str | None, code: str | None, *ids: str | None
) -> dict[str, Any]:
    source, document = ids
    team = session.service.named_team
    narrowing = given(team=team, kind=kind, error_class=error_class, code=code, document=document)
    return narrowing | given(source=source_id(session, source))


def _which(narrowing: dict[str, Any], ids: list[str] | None, every: bool) -> dict[str, Any]:
    """The body of the request. Raises CommandFailed where it is not said which letters are meant.

    A team alone, which may come from the environment, is not enough.
    """
    if sum((bool(ids), bool(narrowing.keys() - {"team"}), every)) != 1:
        raise CommandFailed(
            "It is not clear which letters are meant.",
            "Give ids of jobs, or options such as --class transient, or --all.",
            exit_code=MISUSED,
        )
    return {"ids": ids} if ids else {"filter": narrowing}


def _row(letter: dict[str, Any]) -> tuple[object, ...]:
    error = letter.get("error") or {}
    tries = int(letter["attempts"]) + int(letter["worker_deaths"])
    told = (error.get("error_class"), error.get("code"), tries, moment(letter.get("failed_at")), error.get("message"))
    return (letter["job_id"], letter["team"], letter["kind"], *told)
