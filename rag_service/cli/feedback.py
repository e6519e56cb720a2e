"""rag feedback: what was said of answers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rag_service.cli.options import Limit
from rag_service.cli.output import moment
from rag_service.cli.session import Session, connected
from rag_service.cli.sources import source_id

commands = typer.Typer(help="Feedback: what was said of answers.", no_args_is_help=True)

_PATH = "/v1/feedback"
Rating = Annotated[str | None, typer.Option("--rating", metavar="RATING", help="Only like or dislike.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="REASON", help="Only for this reason.")]
Signal = Annotated[
    str | None,
    typer.Option("--signal", metavar="SIGNAL", help="Only of answers copied, clicked, retried or edited_answer."),
]
Collection = Annotated[str | None, typer.Option("--collection", metavar="NAME", help="Only of this collection.")]
Source = Annotated[str | None, typer.Option("--source", metavar="NAME", help="Only of this source, by name or id.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Said from then on, such as 2026-01-31T12:00:00Z.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Said before then.")]


@commands.command("list")
@connected
def list_feedback(
    session: Session,
    *,
    rating: Rating = None,
    reason: Reason = None,
    signal: Signal = None,
    collection: Collection = None,
    source: Source = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
) -> None:
    """List it, newest first."""
    narrowing = {"rating": rating, "reason": reason, "signal": signal, "collection": collection}
    narrowing |= {"source": source_id(session, source), "since": since, "until": until}
    page = session.service.list_all(_PATH, limit, **narrowing)
    session.output.data(page)
    rows = [
        (one["id"], moment(one["at"]), one["rating"], _marks(one), one["query"], one["document_id"], one["comment"])
        for one in page["data"]
    ]
    columns = ("ID", "Said", "Rating", "Reasons and signals", "Question", "Document", "Comment")
    session.output.table(columns, rows, "Nothing was said.")


@commands.command("summary")
@connected
def summarise_feedback(
    session: Session,
    *,
    collection: Collection = None,
    source: Source = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Count it by collection and source."""
    narrowing = {"collection": collection, "source": source_id(session, source), "since": since, "until": until}
    summary = session.service.get(f"{_PATH}/summary", **narrowing)
    session.output.data(summary)
    rows = [
        (
            row["collection"] or row["collection_id"],
            row["source_id"] or "(uploads)",
            row["given"],
            row["likes"],
            row["dislikes"],
            _counts(row["reasons"]),
            _counts(row["signals"]),
        )
        for row in summary["data"]
    ]
    columns = ("Collection", "Source", "Said", "Likes", "Dislikes", "Reasons", "Signals")
    session.output.table(columns, rows, "Nothing was said.")


@commands.command("export")
@connected
def export_feedback(
    session: Session,
    *,
    form: Annotated[str, typer.Option("--format", metavar="FORMAT", help="jsonl or csv.")] = "jsonl",
    rating: Rating = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write all of it to stdout, oldest first."""
    params = {"format": form, "rating": rating, "since": since, "until": until}
    for part in session.service.stream(f"{_PATH}/export", **params):
        typer.echo(part, nl=False)


def _marks(one: dict[str, Any]) -> list[str]:
    return [*one["reasons"], *one["signals"]]


def _counts(counted: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counted.items() if count}
