"""rag webhook."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rag_service.cli.failure import FAILED, CommandFailed
from rag_service.cli.options import Limit
from rag_service.cli.output import moment
from rag_service.cli.session import Session, connected

commands = typer.Typer(help="Webhooks: addresses that are told when something happens.", no_args_is_help=True)

_PATH = "/v1/webhooks"
Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the webhook.")]
AllTeams = Annotated[bool, typer.Option("--all-teams", help="Of all teams; takes an admin key of the service.")]


@commands.command("add")
@connected
def add_webhook(
    session: Session,
    address: Annotated[str, typer.Argument(metavar="URL", help="Where messages are posted.")],
    events: Annotated[
        list[str], typer.Option("--event", metavar="TYPE", help="Such as document.failed; repeat for more.")
    ],
    *,
    description: Annotated[str, typer.Option("--description", metavar="TEXT", help="What it is for.")] = "",
    all_teams: AllTeams = False,
) -> None:
    """Make a webhook and print its secret, which is shown this once."""
    wanted = {"url": address, "events": events, "description": description, "all_teams": all_teams}
    send = session.service.send_for_all if all_teams else session.service.send
    made = send("POST", _PATH, json=wanted)
    session.output.data(made)
    session.output.show(f"Webhook {made['id']} is there. Try it: rag webhook test {made['id']}")
    session.output.show(f"Its secret, shown this once: {made['secret']}")


@commands.command("list")
@connected
def list_webhooks(session: Session, *, limit: Limit = 100, all_teams: AllTeams = False) -> None:
    """List the webhooks of the team."""
    send = session.service.send_for_all if all_teams else session.service.send
    page = send("GET", _PATH, params={"limit": min(limit, 1000), "all_teams": all_teams})
    session.output.data(page)
    rows = [(one["id"], one["url"], _state(one), one["events"], one["description"]) for one in page["data"]]
    columns = ("ID", "Address", "State", "Events", "Description")
    session.output.table(columns, rows, "There is no webhook. Add one: rag webhook add URL --event document.failed")


@commands.command("test")
@connected
def try_webhook(session: Session, webhook_id: Id) -> None:
    """Send one message now, and say how it was answered. Exits 1 if it was not accepted."""
    tried = session.service.post(f"{_PATH}/{webhook_id}:test")
    session.output.data(tried)
    status = f" with status {tried['status']}" if tried["status"] else ""
    if not tried["delivered"]:
        raise CommandFailed(f"It was not accepted: {tried['reason']}{status}.", exit_code=FAILED)
    session.output.show(f"It was accepted{status} in {tried['ms']:g} ms.")


@commands.command("deliveries")
@connected
def list_deliveries(
    session: Session,
    webhook_id: Id,
    *,
    state: Annotated[
        str | None, typer.Option("--state", metavar="STATE", help="Only waiting, delivered or failed.")
    ] = None,
    limit: Limit = 50,
) -> None:
    """What it was told, is to be told and could not be told, newest first."""
    page = session.service.list_all(f"{_PATH}/{webhook_id}/deliveries", limit, state=state)
    session.output.data(page)
    rows = [_row(delivery) for delivery in page["data"]]
    columns = ("ID", "Event", "State", "Tries", "Last answer", "Happened", "Next try")
    session.output.table(columns, rows, "It has been told nothing yet.")


@commands.command("recover")
@connected
def recover_webhook(
    session: Session,
    webhook_id: Id,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Such as 2026-01-31T12:00:00Z.")],
    *,
    delivered: Annotated[bool, typer.Option("--delivered", help="Those too that it has accepted already.")] = False,
) -> None:
    """Tell it again what it did not accept since then, with the same ids."""
    done = session.service.post(f"{_PATH}/{webhook_id}:recover", {"since": since, "delivered": delivered})
    session.output.data(done)
    session.output.show(f"{done['queued']} messages are sent again.")


@commands.command("enable")
@connected
def enable_webhook(session: Session, webhook_id: Id) -> None:
    """Enable it; what it was yet to be told is told now."""
    _set_enabled(session, webhook_id, enabled=True)


@commands.command("disable")
@connected
def disable_webhook(session: Session, webhook_id: Id) -> None:
    """Disable it. What happens meanwhile can be recovered for as long as events are kept."""
    _set_enabled(session, webhook_id, enabled=False)


@commands.command("rotate")
@connected
def rotate_webhook(
    session: Session,
    webhook_id: Id,
    overlap: Annotated[
        int, typer.Option("--overlap", metavar="SECONDS", min=0, help="How long the former secret signs as well.")
    ] = 86_400,
) -> None:
    """Give it a new secret, which is shown this once."""
    made = session.service.post(f"{_PATH}/{webhook_id}:rotate", {"overlap_s": overlap})
    session.output.data(made)
    session.output.show(f"Its new secret, shown this once: {made['secret']}")


@commands.command("remove")
@connected
def remove_webhook(session: Session, webhook_id: Id) -> None:
    """Delete it, with all that it was yet to be told."""
    session.service.send("DELETE", f"{_PATH}/{webhook_id}")
    session.output.data({"id": webhook_id})
    session.output.show(f"{webhook_id} is deleted.")


def _set_enabled(session: Session, webhook_id: str, *, enabled: bool) -> None:
    changed = session.service.send("PATCH", f"{_PATH}/{webhook_id}", json={"enabled": enabled})
    session.output.data(changed)
    session.output.show(f"{webhook_id} is {_state(changed)}.")


def _state(webhook: dict[str, Any]) -> str:
    if not webhook["enabled"]:
        return f"disabled ({webhook['disabled_reason']})"
    return f"failing since {moment(webhook['failing_since'])}" if webhook["failing_since"] else "enabled"


def _row(delivery: dict[str, Any]) -> tuple[object, ...]:
    last = delivery["history"][-1] if delivery["history"] else None
    answer = None if last is None else " ".join(str(one) for one in (last["reason"], last["status"]) if one)
    times = (moment(delivery["at"]), moment(delivery["next_at"]))
    return (delivery["id"], delivery["type"], delivery["state"], delivery["attempts"], answer, *times)
