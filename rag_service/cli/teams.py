"""rag team, rag key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from rag_service.cli.failure import MISUSED, CommandFailed
from rag_service.cli.options import Limit, given
from rag_service.cli.output import moment
from rag_service.cli.session import Session, connected

teams = typer.Typer(help="Teams: the owners of documents, sources and keys.", no_args_is_help=True)
keys = typer.Typer(help="API keys of a team.", no_args_is_help=True)


@teams.command("create")
@connected
def create_team(
    session: Session,
    team_id: Annotated[str, typer.Argument(metavar="ID", help="Short id of the team, such as `hr`.")],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name for people; the id when not given.")
    ] = None,
) -> None:
    """Make a team. Needs an admin key."""
    team = session.service.post("/v1/teams", {"id": team_id, "name": name or team_id})
    session.output.data(team)
    session.output.show(f"Team {team['id']} is there. Make a key for it: rag key create app --team {team['id']}")


@teams.command("list")
@connected
def list_teams(session: Session, limit: Limit = 100) -> None:
    """List the teams. Needs an admin key."""
    page = session.service.list_all("/v1/teams", limit)
    session.output.data(page)
    rows = [(team["id"], team["name"], moment(team.get("created_at"))) for team in page["data"]]
    session.output.table(("ID", "Name", "Created"), rows, "There is no team yet. Make one: rag team create demo")


@keys.command("create")
@connected
def create_key(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    *,
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="query, ingest, impersonate, manage or admin; repeat for more. Default: query.",
        ),
    ] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="Fix the user this key asks as.")] = None,
    groups: Annotated[
        list[str] | None, typer.Option("--group", metavar="GROUP", help="Fix a group this key asks as.")
    ] = None,
    expires_in_days: Annotated[
        float | None, typer.Option("--expires-in-days", metavar="DAYS", min=0, help="Days until the key stops working.")
    ] = None,
) -> None:
    """Make an API key for a team. It is shown once and stored hashed."""
    expires_at = _in_days(expires_in_days)
    wanted = given(name=name, scopes=scopes or ["query"], user=user, groups=groups, expires_at=expires_at)
    key = session.service.post(_keys_of(session), wanted)
    session.output.data(key)
    session.output.show(str(key["key"]))
    if not session.output.as_json:
        session.output.note("Keep it now: it is not shown again. Use it with --key or RAG_API_KEY.")


@keys.command("list")
@connected
def list_keys(session: Session, limit: Limit = 100) -> None:
    """List a team's keys, without their secrets."""
    page = session.service.list_all(_keys_of(session), limit)
    session.output.data(page)
    rows = [
        (
            key["id"],
            key["name"],
            f"{key['prefix']}...",
            key["scopes"],
            key.get("user"),
            key.get("groups"),
            moment(key.get("expires_at")),
            "revoked" if key.get("revoked_at") else "active",
        )
        for key in page["data"]
    ]
    columns = ("ID", "Name", "Key", "Scopes", "User", "Groups", "Expires", "State")
    session.output.table(columns, rows, "There is no key yet. Make one: rag key create app")


@keys.command("revoke")
@connected
def revoke_key(session: Session, key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key.")]) -> None:
    """Revoke a key. It stops working at once and for good."""
    session.output.data(session.service.send("DELETE", f"{_keys_of(session)}/{key_id}"))
    session.output.show(f"Key {key_id} is revoked.")


def _keys_of(session: Session) -> str:
    if session.service.team is None:
        raise CommandFailed("This key does not say which team is meant.", "Name it: --team ID.", exit_code=MISUSED)
    return f"/v1/teams/{session.service.team}/keys"


def _in_days(days: float | None) -> str | None:
    return None if days is None else (datetime.now(UTC) + timedelta(days=days)).isoformat()
