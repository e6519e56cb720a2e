"""rag admin audit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag_service.cli.failure import FAILED, MISUSED, CommandFailed
from rag_service.cli.operating import operating
from rag_service.cli.output import Output
from rag_service.cli.session import ending

if TYPE_CHECKING:
    from rag_service.db.audit import Recorded
    from rag_service.db.audit_chain import Chain

commands = typer.Typer(
    help="The audit log: take it away, and check that nothing in it was changed.", no_args_is_help=True
)

_MOST_TOLD = 20
_HEAD = re.compile(r"(\d+):([0-9a-f]{64})", re.ASCII)


@commands.command("export")
def export_audit(
    team: Annotated[str | None, typer.Option("--team", metavar="ID", help="Only what belongs to this team.")] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="NAME", help="Only this action; key.* for all of keys.")
    ] = None,
) -> None:
    """Write the audit log to stdout as JSON Lines, oldest first."""
    with ending(Output()), operating() as runtime:
        from rag_service.db import audit, teams

        with runtime.database.read() as connection:
            if team is not None:
                teams.get(connection, team)
            for entry in audit.in_order(connection, audit.AuditFilter(team_id=team, action=action)):
                typer.echo(entry.exported())


@commands.command("verify")
def verify_audit(
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="An export of the whole log, instead of the database.")
    ] = None,
    noted: Annotated[
        list[str] | None,
        typer.Option("--head", metavar="N:HASH", help="A head that was noted before; repeat for more."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Check every entry and print the head of the log. Exits 1 if one was changed, removed or put in.

    Note the head elsewhere: who may rewrite the whole database can rewrite the log with it, but not what you noted.
    """
    output = Output(as_json)
    with ending(output):
        heads = dict(_head(given) for given in noted or ())
        chain = _verified(heads) if file is None else _read(file, heads)
        output.data({"entries": chain.seq, "head": f"{chain.seq}:{chain.hash}", "faults": chain.faults})
        if chain.faults:
            told = "; ".join(chain.faults[:_MOST_TOLD])
            raise CommandFailed(
                f"The audit log was tampered with: {told}.",
                "Compare it with an export from before, and find out who could write to the database.",
                exit_code=FAILED,
            )
        output.show(f"{chain.seq} entries, none changed, removed or put in.", f"Head: {chain.seq}:{chain.hash}")


def _verified(heads: dict[int, str]) -> Chain:
    with operating() as runtime:
        from rag_service.db.audit_chain import verify

        with runtime.database.read() as connection:
            return verify(connection, heads)


def _read(file: Path, heads: dict[int, str]) -> Chain:
    from rag_service.db.audit_chain import Chain

    try:
        chain = Chain(heads).follow(_entries(file))
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{file} is no export of the audit log ({error}).", exit_code=MISUSED) from None
    if len(chain.faults) == chain.gaps > 0 and _looks_narrowed(file):
        raise CommandFailed(
            f"{file} cannot be verified by itself: entries are missing, and what is there is of one team or one kind "
            "of action, as in an export with --team or --action.",
            "Verify the log itself, or an export of all of it: leave these options out.",
            exit_code=MISUSED,
        )
    return chain.ends_at(chain.seq, chain.hash)


def _looks_narrowed(file: Path) -> bool:
    """Whether all of it is what --team or --action lets through: a whole log is of several teams and actions."""
    teams, kinds = set(), set()
    for entry in _entries(file):
        teams.add(entry.team_id)
        kinds.add(entry.action.partition(".")[0])
    return (len(teams) == 1 and None not in teams) or len(kinds) == 1


def _entries(file: Path) -> Iterator[Recorded]:
    from rag_service.db.audit import Recorded

    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield Recorded.parsed(line)


def _head(given: str) -> tuple[int, str]:
    found = _HEAD.fullmatch(given)
    if found is None:
        raise CommandFailed(
            f"--head {given} is no head.",
            "Write it as `rag admin audit verify` prints it: NUMBER:HASH.",
            exit_code=MISUSED,
        )
    return int(found[1]), found[2]
