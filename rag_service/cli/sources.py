"""rag source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from rag_service.cli.failure import FAILED, MISUSED, CommandFailed
from rag_service.cli.jobs import progress_of, require_success, wait_for_job
from rag_service.cli.options import Groups, Limit, NoWait, Public, Users, acl, given, pairs
from rag_service.cli.output import moment
from rag_service.cli.session import Session, connected

commands = typer.Typer(help="Sources: configured places to read documents from.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the source.")]
Collection = Annotated[
    str | None, typer.Option("--collection", metavar="NAME", help="Collection to put its documents into.")
]

_LISTS = """A list is written as JSON, in quotes: --config 'include=["*.md"]'."""
_ID = re.compile("src_[0-9a-f]{32}")


@commands.command("add")
@connected
def add_source(
    session: Session,
    source_type: Annotated[str, typer.Argument(metavar="TYPE", help="Type of source, such as `files`.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of your choice.")],
    *,
    root: Annotated[
        Path | None, typer.Option("--root", metavar="FOLDER", help="The folder, for a `files` source.")
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="KEY=VALUE", help="A field of its configuration; a list as JSON."),
    ] = None,
    public: Public = False,
    users: Users = None,
    groups: Groups = None,
    collection: Collection = None,
    every: Annotated[
        int | None, typer.Option("--every", metavar="SECONDS", min=60, help="Sync it again and again; else on request.")
    ] = None,
) -> None:
    """Register a source. --public, --user and --group say who may read what does not say so itself."""
    values = pairs(config, "--config")
    if root is not None:
        values["root"] = str(root.expanduser().resolve())
    readers = acl(public, users, groups)
    wanted = given(name=name, type=source_type, config=values, acl=readers, collection=collection, schedule_s=every)
    try:
        source = session.service.post("/v1/sources", wanted)
    except CommandFailed as failed:
        if config and (failed.problem or {}).get("code") == "invalid_config":
            failed.fix = _LISTS
        raise
    session.output.data(source)
    session.output.show(f"Source {source['name']} is there. Read it now: rag source sync {source['name']}")
    if readers is None and not session.output.as_json:
        session.output.note("Nobody but keys that manage the team will find its documents: no reader was given.")


@commands.command("list")
@connected
def list_sources(session: Session, limit: Limit = 100) -> None:
    """List the team's sources."""
    page = session.service.list_all("/v1/sources", limit)
    session.output.data(page)
    rows = [
        (
            source["id"],
            source["name"],
            source["type"],
            _state(source),
            source["documents"],
            moment(source["last_success_at"]),
        )
        for source in page["data"]
    ]
    columns = ("ID", "Name", "Type", "State", "Documents", "Last complete listing")
    session.output.table(columns, rows, "There is no source yet. Add one: rag source add files NAME --root /folder")


@commands.command("show")
@connected
def show_source(session: Session, name: Name) -> None:
    """Show a source and its configuration."""
    source = find_source(session, name)
    session.output.data(source)
    session.output.fields(
        {
            "id": source["id"],
            "name": source["name"],
            "type": source["type"],
            "collection": source.get("collection"),
            "config": source.get("config"),
            "default ACL": source.get("acl"),
            "sync": f"every {source['schedule_s']} s" if source["schedule_s"] else "on request",
            "deletions held above": f"{source['deletion_protection']['max_percent']:g} %",
            "documents": source["documents"],
        }
    )


@commands.command("sync")
@connected
def sync_source(
    session: Session,
    name: Name,
    *,
    no_wait: NoWait = False,
    confirm_deletions: Annotated[
        bool, typer.Option("--confirm-deletions", help="Yes, what is gone from the source may be removed here.")
    ] = False,
) -> None:
    """Read a source now and wait until its documents are searchable. Exits 1 if any failed."""
    source = find_source(session, name)
    queued = start_sync(session, source, confirm_deletions=confirm_deletions)
    if no_wait:
        session.output.data(queued)
        session.output.show(f"The sync is on its way. Follow it: rag job watch {queued['job_id']}")
        return
    job = wait_for_job(session, queued["job_id"], f"Syncing {source['name']}")
    session.output.data(job)
    counters = {counter: count for counter, count in (job.get("counters") or {}).items() if count}
    told = ", ".join(f"{count} {counter.replace('_', ' ')}" for counter, count in counters.items())
    session.output.show(f"{source['name']}: {told or 'nothing there'}.")
    _tell_held(session, find_source(session, source["id"]))
    require_success(job)


@commands.command("status")
@connected
def source_status(session: Session, name: Name) -> None:
    """Show how a source is: state, last sync, documents by status, deletions held back."""
    source = find_source(session, name)
    latest = latest_sync(session, source["id"])
    session.output.data({**source, "latest_sync": latest})
    session.output.fields(
        {
            "source": source["name"],
            "state": _state(source),
            "documents": source["documents"],
            "latest sync": f"{latest['state']}, {progress_of(latest)} ({latest['id']})" if latest else "none yet",
            "last complete listing": moment(source["last_success_at"]),
            "next sync": moment(source["next_run_at"]) if source["next_run_at"] else "when asked for",
            "error": (source["last_error"] or {}).get("message"),
        }
    )
    _tell_held(session, source)
    if source["documents"].get("failed") and not session.output.as_json:
        session.output.note(f"See why some failed: rag document list --status failed --source {source['name']}")


@commands.command("pause")
@connected
def pause_source(session: Session, name: Name) -> None:
    """Stop reading a source; what was read stays searchable."""
    _switch(session, name, "pause", "paused. Go on: rag source resume")


@commands.command("resume")
@connected
def resume_source(session: Session, name: Name) -> None:
    """Let a paused source be read again."""
    _switch(session, name, "resume", "active again. Read it now: rag source sync")


@commands.command("delete")
@connected
def delete_source(
    session: Session,
    name: Name,
    *,
    keep_documents: Annotated[
        bool, typer.Option("--keep-documents", help="Its documents stay, and so do their readers.")
    ] = False,
) -> None:
    """Delete a source and every document it brought."""
    source = find_source(session, name)
    kept = "keep" if keep_documents else "delete"
    session.output.data(session.service.send("DELETE", f"/v1/sources/{source['id']}", params={"documents": kept}))
    its_documents = "its documents stay" if keep_documents else "and its documents with it"
    session.output.show(f"Source {source['name']} is deleted, {its_documents}.")


def source_id(session: Session, name: str | None) -> str | None:
    """The id of a source by name or id; an id as it is: a source that is gone has left more than its name.

    Raises CommandFailed as `find_source` does.
    """
    return name if name is None or _ID.fullmatch(name) else str(find_source(session, name)["id"])


def find_source(session: Session, name: str) -> dict[str, Any]:
    """A source by name or id. Raises CommandFailed that lists what there is."""
    known = session.service.list_all("/v1/sources", 10_000)["data"]
    for source in known:
        if name in (source["id"], source["name"]):
            return dict(source)
    names = ", ".join(source["name"] for source in known[:10])
    fix = f"There is: {names}." if names else "Add one: rag source add files NAME --root /folder"
    raise CommandFailed(f"There is no source {name!r} in this team.", fix, exit_code=FAILED)


def start_sync(session: Session, source: dict[str, Any], *, confirm_deletions: bool = False) -> dict[str, Any]:
    """Queue a sync and get its `job_id`, or that of the running one. Raises CommandFailed for a paused source."""
    if source.get("paused"):
        raise CommandFailed(
            f"The source {source['name']} is paused.",
            f"Resume it: rag source resume {source['name']}",
            exit_code=MISUSED,
        )
    content = {"confirm_deletions": True} if confirm_deletions else {}
    return dict(session.service.post(f"/v1/sources/{source['id']}/sync", content))


def _switch(session: Session, name: str, verb: str, told: str) -> None:
    source = find_source(session, name)
    changed = session.service.post(f"/v1/sources/{source['id']}/{verb}")
    session.output.data(changed)
    session.output.show(f"Source {source['name']} is {told} {source['name']}")


def latest_sync(session: Session, source_id: str) -> dict[str, Any] | None:
    """The newest sync of a source, running or over."""
    found = session.service.get("/v1/jobs", source=source_id, kind="sync", limit=1)["data"]
    return dict(found[0]) if found else None


def _state(source: dict[str, Any]) -> str:
    if source.get("paused"):
        return "paused"
    return "error" if source.get("last_error") else "active"


def _tell_held(session: Session, source: dict[str, Any]) -> None:
    held = source.get("held_deletions")
    if held and not session.output.as_json:
        session.output.note(
            f"{held} documents are gone from the source, too many to believe it: they are kept. "
            f"If it is so: rag source sync {source['name']} --confirm-deletions"
        )
