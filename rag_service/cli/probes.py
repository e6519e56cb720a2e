"""rag probe: golden questions that are asked by the clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rag_service.cli.failure import FAILED, CommandFailed
from rag_service.cli.jobs import require_success, wait_for_job
from rag_service.cli.options import AsGroups, AsUser, Limit, Mode, Narrowing, TopK, asker, given, json_object
from rag_service.cli.output import Output, moment, printable
from rag_service.cli.session import Session, connected
from rag_service.cli.sources import source_id

commands = typer.Typer(
    help="Probes: questions asked by the clock, and what their answers must be.", no_args_is_help=True
)

_PATH = "/v1/probes"
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the probe.")]


@commands.command("add")
@connected
def add_probe(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of your choice.")],
    query: Annotated[
        str | None, typer.Argument(metavar="[QUERY]", help="The question; none where only --max-age is given.")
    ] = None,
    *,
    documents: Annotated[
        list[str] | None,
        typer.Option("--expect", metavar="ID", help="Id or external id that must be found; repeat for more."),
    ] = None,
    min_recall: Annotated[
        float | None,
        typer.Option("--min-recall", metavar="SHARE", help="The share of them that must be; 1 if not said."),
    ] = None,
    nothing: Annotated[bool, typer.Option("--nothing", help="Nothing at all must be found.")] = False,
    must_not: Annotated[
        list[str] | None,
        typer.Option("--must-not", metavar="ID", help="Id or external id that must not be found; repeat for more."),
    ] = None,
    max_age: Annotated[
        int | None, typer.Option("--max-age", metavar="SECONDS", help="The newest document must have come in since.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="NAME", help="... the newest document of this source, by name or id."),
    ] = None,
    every: Annotated[
        int | None, typer.Option("--every", metavar="SECONDS", min=60, help="Between two runs; an hour if not said.")
    ] = None,
    collection: Annotated[
        str | None, typer.Option("--collection", metavar="NAME", help="The collection to ask; default if not said.")
    ] = None,
    top_k: TopK = 10,
    mode: Mode = None,
    min_score: Annotated[
        float | None, typer.Option("--min-score", metavar="SCORE", help="Leave out what scores lower.")
    ] = None,
    as_user: AsUser = None,
    as_groups: AsGroups = None,
    narrowing: Narrowing = None,
) -> None:
    """Add a probe; its first run is due at once."""
    expect = given(documents=documents, min_recall=min_recall, nothing=nothing or None, must_not=must_not)
    expect |= given(max_age_s=max_age, source=source_id(session, source))
    wanted = given(name=name, query=query, collection=collection, top_k=top_k, mode=mode, min_score=min_score)
    wanted |= given(as_user=asker(as_user, as_groups), expect=expect, every_s=every)
    wanted |= given(filter=json_object(narrowing, "--filter", '{"year": {"$gte": 2024}}'))
    probe = session.service.post(_PATH, wanted)
    session.output.data(probe)
    session.output.show(f"Probe {probe['name']} is there. See what it finds: rag probe results {probe['name']}")


@commands.command("list")
@connected
def list_probes(
    session: Session,
    *,
    collection: Annotated[str | None, typer.Option("--collection", metavar="NAME", help="Only of this one.")] = None,
    state: Annotated[str | None, typer.Option("--state", metavar="STATE", help="Only unknown, ok or failing.")] = None,
    limit: Limit = 100,
) -> None:
    """List the team's probes and how they are."""
    page = session.service.list_all(_PATH, limit, collection=collection, state=state)
    session.output.data(page)
    rows = [
        (
            probe["id"],
            probe["name"],
            probe["collection"],
            "paused" if probe["paused"] else probe["state"],
            moment(probe["since"]),
            _recall(probe["last"]),
            _checks(probe["last"]),
        )
        for probe in page["data"]
    ]
    columns = ("ID", "Name", "Collection", "State", "Since", "Recall", "Failed")
    session.output.table(columns, rows, 'There is no probe. Add one: rag probe add NAME "a question" --expect ID')


@commands.command("run")
@connected
def run_probe(session: Session, name: Name) -> None:
    """Run a probe now and wait for its result. Exits 1 if it fails."""
    probe = _find(session, name)
    queued = session.service.post(f"{_PATH}/{probe['id']}/run")
    require_success(wait_for_job(session, queued["job_id"], f"Running {probe['name']}"))
    result = session.service.get(f"{_PATH}/{probe['id']}")["last"]
    session.output.data(result)
    _show(session.output, result)
    if not result["passed"]:
        raise CommandFailed(f"The probe {probe['name']} fails.", exit_code=FAILED)


@commands.command("results")
@connected
def probe_results(session: Session, name: Name, limit: Limit = 20) -> None:
    """Show what the runs of a probe found, newest first."""
    probe = _find(session, name)
    page = session.service.list_all(f"{_PATH}/{probe['id']}/runs", limit)
    session.output.data(page)
    rows = [
        (
            moment(result["at"]),
            "ok" if result["passed"] else "failing",
            _recall(result),
            len(result["hits"]),
            f"{result['took_ms']:.0f}",
            "; ".join(failure["message"] for failure in result["failures"]) or None,
        )
        for result in page["data"]
    ]
    session.output.table(("At", "State", "Recall", "Hits", "ms", "Why"), rows, "It has not been run yet.")


@commands.command("pause")
@connected
def pause_probe(session: Session, name: Name) -> None:
    """Run a probe no more by the clock."""
    _switch(session, name, "pause", "is paused")


@commands.command("resume")
@connected
def resume_probe(session: Session, name: Name) -> None:
    """Run a paused probe by the clock again."""
    _switch(session, name, "resume", "is run again")


@commands.command("remove")
@connected
def remove_probe(session: Session, name: Name) -> None:
    """Delete a probe and its results."""
    probe = _find(session, name)
    session.output.data(session.service.send("DELETE", f"{_PATH}/{probe['id']}"))
    session.output.show(f"Probe {probe['name']} is deleted.")


def _switch(session: Session, name: str, verb: str, told: str) -> None:
    probe = session.service.post(f"{_PATH}/{_find(session, name)['id']}/{verb}")
    session.output.data(probe)
    session.output.show(f"Probe {probe['name']} {told}.")


def _find(session: Session, name: str) -> dict[str, Any]:
    """A probe by name or id. Raises CommandFailed that lists what there is."""
    known = session.service.list_all(_PATH, 10_000)["data"]
    for probe in known:
        if name in (probe["id"], probe["name"]):
            return dict(probe)
    names = ", ".join(probe["name"] for probe in known[:10])
    fix = f"There is: {names}." if names else 'Add one: rag probe add NAME "a question" --expect ID'
    raise CommandFailed(f"There is no probe {name!r} in this team.", fix, exit_code=FAILED)


def _recall(result: Mapping[str, Any] | None) -> str | None:
    return None if result is None or result["recall"] is None else f"{result['recall']:.2f}"


def _checks(result: Mapping[str, Any] | None) -> str | None:
    return ", ".join(failure["check"] for failure in result["failures"]) or None if result is not None else None


def _show(output: Output, result: Mapping[str, Any]) -> None:
    recall = _recall(result)
    found = f"{len(result['hits'])} hits" + ("" if recall is None else f", recall {recall}")
    output.show(f"{'ok' if result['passed'] else 'failing'}: {found}, in {result['took_ms']:.0f} ms")
    for failure in result["failures"]:
        output.show(f"{failure['severity']}: {printable(failure['message'])}")
