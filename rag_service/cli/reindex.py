"""rag admin reindex: documents are worked on anew from what is kept of them."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import typer

from rag_service.cli.failure import MISUSED, CommandFailed
from rag_service.cli.jobs import looks, require_success
from rag_service.cli.options import Narrowing, NoWait, given, json_object
from rag_service.cli.output import Output
from rag_service.cli.session import Session, connected
from rag_service.cli.sources import source_id

_PATH = "/v1/admin/reindex"
# Beyond so many documents a yes is not enough.
_MANY = 1_000
_LACKING = {
    "index": "have not been indexed",
    "chunks": "have no chunks of their newest version",
    "parsed_text": "have no parsed text of their newest version",
    "bytes": "have no bytes",
    "source": "were uploaded and have no source to be read from",
}


@connected
def reindex(
    session: Session,
    *,
    from_stage: Annotated[
        str,
        typer.Option(
            "--from", metavar="STAGE", help="permissions, metadata, embed, chunk, parse or fetch: work begins there."
        ),
    ],
    collection: Annotated[str | None, typer.Option("--collection", metavar="NAME", help="Only of this one.")] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="NAME", help="Only of this source, by name or id.")
    ] = None,
    narrowing: Narrowing = None,
    failed_only: Annotated[bool, typer.Option("--failed-only", help="Only documents that failed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would take, and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    no_wait: NoWait = False,
) -> None:
    """Work on documents anew from what is kept of them: show what it takes, ask, do it. --team narrows it to one."""
    # A source is of one team: of the only one, where none is named.
    team = session.service.team if source else session.service.named_team
    scope = given(
        team=team,
        collection=collection,
        source=source_id(session, source),
        filter=json_object(narrowing, "--filter", '{"department": "hr"}'),
        failed_only=failed_only,
    )
    wanted = {"scope": scope, "from_stage": from_stage}
    plan = session.service.post(_PATH, {**wanted, "dry_run": True})["plan"]
    show_plan(session.output, plan)
    if dry_run:
        session.output.data(plan)
        return
    if not yes:
        confirm(session.output, plan["documents"], team)
    # Sent again by whatever stands between, it is done once.
    key = {"Idempotency-Key": str(uuid.uuid4())}
    begun = session.service.send("POST", _PATH, json=wanted, headers=key)["jobs"]
    ended = [one if no_wait else _wait(session, one) for one in begun]
    session.output.data({"plan": plan, "jobs": ended})
    for one in ended:
        if no_wait:
            session.output.show(f"Job {one['job_id']} of team {one['team']} is under way.")
        else:
            counts = {name: count for name, count in one["counters"].items() if count}
            session.output.show(f"Job {one['id']} {one['state'].replace('_', ' ')}: {_told(counts)}.")
            require_success(one)


def show_plan(output: Output, plan: dict[str, Any]) -> None:
    """What it would take, for a person."""
    seconds = plan["seconds"]
    output.fields(
        {
            "documents": f"{plan['documents']:,}",
            "chunks": f"{plan['chunks']:,}",
            "time": "not known: nothing like it was done here yet" if seconds is None else spoken(seconds),
            "disk": f"{plan['disk_bytes'] / 1e6:,.1f} MB",
            "tokens": f"{plan['tokens']:,}" if plan["tokens"] else None,
        }
    )
    for lacks, count in plan["skipped"].items():
        output.show(f"{count:,} documents {_LACKING.get(lacks, lacks)} and are skipped.")


def spoken(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} seconds"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} minutes"
    return f"about {seconds / 3600:.1f} hours"


def confirm(output: Output, documents: int, team: str | None) -> None:
    """Ask before it is done; for many documents the team, or `all teams`, is to be typed. Raises CommandFailed."""
    if output.as_json:
        raise CommandFailed("--json asks nobody.", "Say --yes, or look first with --dry-run.", exit_code=MISUSED)
    word = (team or "all teams") if documents > _MANY else "yes"
    given = typer.prompt(f"Type {word!r} to go on", default="", show_default=False, err=True)
    if given.strip() != word:
        raise CommandFailed("Nothing was done.", exit_code=MISUSED)


def _wait(session: Session, begun: dict[str, Any]) -> dict[str, Any]:
    with session.output.progress(f"Team {begun['team']}") as progress:
        for job in looks(session.service, f"/v1/jobs/{begun['job_id']}", team=begun["team"]):
            progress.update(int(job["progress"]["done"]), job["progress"]["total"])
            if job["state"] not in ("queued", "running"):
                return job
    raise AssertionError("looks never end by themselves")


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()) or "there was nothing to do"
