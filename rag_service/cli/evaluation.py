"""rag eval: query sets, and whether retrieval is as good as it has to be."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag_service.cli.evaluation_checks import Check, checks, read_baseline, thresholds
from rag_service.cli.evaluation_files import junit, markdown, score
from rag_service.cli.evaluation_run import PATH, ask_all, queries_in, queries_of
from rag_service.cli.failure import MISUSED, CommandFailed
from rag_service.cli.options import Limit, given
from rag_service.cli.output import Output, moment
from rag_service.cli.session import Session, connected

if TYPE_CHECKING:
    from rag_service.evaluation.report import Report

commands = typer.Typer(help="Query sets, and whether retrieval is good enough.", no_args_is_help=True)

_WORST = 5
SetName = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the query set.")]
Collection = Annotated[str | None, typer.Option("--collection", metavar="NAME", help="The collection it is about.")]


@commands.command("run")
@connected
def run_queries(
    session: Session,
    queries: Annotated[
        str, typer.Argument(metavar="QUERIES", help="A query set of the service, or a CSV file or BEIR folder here.")
    ],
    *,
    collection: Annotated[
        str | None, typer.Option("--collection", metavar="NAME", help="Ask this one; else the set's, or default.")
    ] = None,
    least: Annotated[
        list[str] | None,
        typer.Option("--min", metavar="MEASURE=VALUE", help="Fail below this, as ndcg@10=0.7; repeat for more."),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="FILE", help="What an earlier run printed with --json.")
    ] = None,
    most_worse: Annotated[
        int | None,
        typer.Option("--max-worse", metavar="N", min=0, help="Fail if more queries lost to the baseline (0)."),
    ] = None,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write the checks as JUnit XML.")
    ] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write a report in Markdown.")
    ] = None,
) -> None:
    """Ask all queries, measure the answers, and exit with 1 when they are not good enough."""
    if most_worse is not None and baseline is None:
        raise CommandFailed("Worse than what?", "Name an earlier run with --baseline FILE.", exit_code=MISUSED)
    demanded = thresholds(least)
    before = None if baseline is None else read_baseline(baseline)
    asked, own = queries_of(session, queries)
    found = ask_all(session, asked, collection or own, demanded)
    made = checks(found, demanded, before, most_worse)
    _report(session.output, queries, collection or own, found, made)
    if junit_file is not None:
        _write(junit_file, junit(queries, found, made))
    if markdown_file is not None:
        _write(markdown_file, markdown(queries, found, made))
    if failed := [f"{check.name}: {check.detail}" for check in made if not check.passed]:
        raise CommandFailed(f"Not good enough. {'; '.join(failed)}.")


@commands.command("sets")
@connected
def list_sets(session: Session, *, collection: Collection = None, limit: Limit = 50) -> None:
    """List the team's query sets."""
    page = session.service.list_all(PATH, limit, collection=collection)
    session.output.data(page)
    rows = [
        (one["id"], one["name"], one["collection"], one["query_count"], moment(one["updated_at"]))
        for one in page["data"]
    ]
    columns = ("ID", "Name", "Collection", "Queries", "Changed")
    session.output.table(columns, rows, "There is no query set yet. Make one: rag eval import FILE --name NAME")


@commands.command("import")
@connected
def import_set(
    session: Session,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="CSV file, BEIR folder, or one packed.")],
    *,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the query set.")],
    collection: Collection = None,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in place of the set of that name.")] = False,
) -> None:
    """Make a query set of a file or folder."""
    from rag_service.evaluation.files import write_file

    packed = write_file(queries_in(source), "zip")
    wanted = given(name=name, collection=collection, on_conflict="replace" if replace else None)
    made = session.service.send("POST", f"{PATH}:import", data=wanted, files={"file": ("queries.zip", packed)})
    session.output.data(made)
    session.output.show(f"{made['name']}: {made['query_count']} queries about {made['collection']}.")


@commands.command("from-feedback")
@connected
def set_from_feedback(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new query set.")],
    *,
    collection: Collection = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Feedback since then, as 2026-01-31T12:00:00Z.")
    ] = None,
    min_likes: Annotated[
        int, typer.Option("--min-likes", metavar="N", min=1, help="How many more likes than dislikes.")
    ] = 1,
    signals: Annotated[bool, typer.Option("--signals", help="Take what was copied or clicked, too.")] = False,
) -> None:
    """Make a query set of what people said of answers."""
    wanted = given(name=name, collection=collection, since=since, min_likes=min_likes, signals=signals)
    made = session.service.post(f"{PATH}:from-feedback", wanted)
    session.output.data(made)
    session.output.show(f"{made['name']}: {made['query_count']} queries about {made['collection']}.")


@commands.command("export")
@connected
def export_set(
    session: Session,
    name: SetName,
    target: Annotated[
        Path, typer.Argument(metavar="FILE", help="What to write: .csv, .zip, .tar.gz, or a folder in BEIR form.")
    ],
) -> None:
    """Write a query set to a file or folder, which `rag eval import` and `rag eval run` read."""
    from rag_service.evaluation.beir import write_beir
    from rag_service.evaluation.files import MEDIA_TYPES, write_file

    queries, _ = queries_of(session, name)
    form = next((form for form in MEDIA_TYPES if target.name.endswith(f".{form}")), None)
    if form is not None:
        _write(target, write_file(queries, form))
    else:
        for path, text in write_beir(queries).items():
            _write(target / path, text)
    session.output.data({"name": name, "queries": len(queries), "file": str(target)})
    session.output.show(f"{len(queries)} queries written to {target}.")


def _report(output: Output, name: str, collection: str, found: Report, made: tuple[Check, ...]) -> None:
    about = {"query_set": name, "collection": collection, "passed": all(check.passed for check in made)}
    output.data({**about, "checks": [asdict(check) for check in made], **asdict(found)})
    rows = [(measure, f"{value:.4f}", found.measured[measure]) for measure, value in found.metrics.items()]
    output.table(("Measure", "Mean", "Queries"), rows, "No query says what it expects.")
    worst = [(score(one), one.query, one.found[:3]) for one in found.results[:_WORST] if one.scores]
    output.show("")
    output.table(("Worst", "Query", "Found"), worst, "")
    times = found.latency
    output.show(
        "", f"{found.queries} queries, {times.p50:.0f} ms at the median, {times.p95:.0f} ms at the 95th percentile."
    )
    output.show(*(f"{'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.detail}" for check in made))


def _write(file: Path, content: str | bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    except OSError as error:
        raise CommandFailed(f"{file} cannot be written ({error.strerror}).", exit_code=MISUSED) from None
