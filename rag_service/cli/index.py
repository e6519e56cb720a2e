"""rag index: build a collection anew beside the one that answers, compare the two, switch, and go back."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rag_service.cli.failure import MISUSED, CommandFailed
from rag_service.cli.index_pipeline import (
    ChunkTokens,
    Context,
    Dimensions,
    Embedder,
    EmbeddingUrl,
    Language,
    Model,
    ParseAnew,
    Window,
    pipeline,
)
from rag_service.cli.index_progress import follow
from rag_service.cli.index_shown import show_quality, show_switch, show_version, version_row
from rag_service.cli.options import Limit, given
from rag_service.cli.session import Session, connected

commands = typer.Typer(
    help="Index versions: build a collection with another model, compare, switch, go back.", no_args_is_help=True
)

PATH = "/v1/admin/index-versions"
_COLUMNS = ("ID", "No.", "Collection", "State", "Model", "Documents", "Chunks", "MB", "Progress", "Note")

IndexId = Annotated[str, typer.Argument(metavar="ID", help="Id of the index version.")]
CollectionName = Annotated[str, typer.Option("--collection", metavar="NAME", help="Collection to build anew.")]
Priority = Annotated[
    str | None, typer.Option("--priority", metavar="P", help="low, normal or high: a quarter, half or all of the time.")
]
Threads = Annotated[
    int | None, typer.Option("--max-concurrency", metavar="N", min=1, max=8, help="Documents built at a time.")
]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="What it is for.")]
QuerySet = Annotated[
    str | None, typer.Option("--query-set", metavar="NAME", help="Questions to compare by; else sampled live ones.")
]
Sample = Annotated[
    int | None, typer.Option("--sample", metavar="N", min=1, max=2_000, help="Questions to ask at most.")
]


@commands.command("plan")
@connected
def plan(
    session: Session,
    *,
    collection: CollectionName = "default",
    embedder: Embedder = None,
    model: Model = None,
    endpoint: EmbeddingUrl = None,
    dimensions: Dimensions = None,
    window: Window = None,
    tokens: ChunkTokens = None,
    context: Context = None,
    language: Language = None,
    parse_anew: ParseAnew = False,
    priority: Priority = None,
    threads: Threads = None,
) -> None:
    """Say what a build would take, measured on a sample, and build nothing."""
    wanted = pipeline(
        embedder=embedder,
        model=model,
        url=endpoint,
        dimensions=dimensions,
        window=window,
        tokens=tokens,
        context=context,
        language=language,
        parse_anew=parse_anew,
    )
    body = given(collection=collection, pipeline=wanted, priority=priority, max_concurrency=threads, dry_run=True)
    made = session.service.post(PATH, body)
    session.output.data(made)
    estimate = made["estimate"]
    session.output.fields(
        {
            "collection": collection,
            "model": made["embedding_model"],
            "chunker": made["chunker"],
            "documents": estimate["documents"],
            "chunks": estimate["chunks"],
            "seconds": estimate["seconds"],
            "MB on disk": round(estimate["disk_bytes"] / 1e6, 1),
            "tokens to send": estimate["tokens"],
        }
    )


@commands.command("build")
@connected
def build(
    session: Session,
    *,
    collection: CollectionName = "default",
    embedder: Embedder = None,
    model: Model = None,
    endpoint: EmbeddingUrl = None,
    dimensions: Dimensions = None,
    window: Window = None,
    tokens: ChunkTokens = None,
    context: Context = None,
    language: Language = None,
    parse_anew: ParseAnew = False,
    priority: Priority = None,
    threads: Threads = None,
    note: Note = "",
    watch_it: Annotated[bool, typer.Option("--watch", help="Follow it until it is ready.")] = False,
) -> None:
    """Begin to build a collection beside the index that answers, which goes on answering."""
    wanted = pipeline(
        embedder=embedder,
        model=model,
        url=endpoint,
        dimensions=dimensions,
        window=window,
        tokens=tokens,
        context=context,
        language=language,
        parse_anew=parse_anew,
    )
    body = given(collection=collection, pipeline=wanted, priority=priority, max_concurrency=threads, note=note)
    made = session.service.post(PATH, body)
    if watch_it:
        made = follow(session, f"{PATH}/{made['id']}")
    session.output.data(made)
    session.output.show(f"{made['id']} is {made['state']}.")
    if not watch_it:
        session.output.note(f"Follow it: rag index watch {made['id']}")


@commands.command("watch")
@connected
def watch(session: Session, index: IndexId) -> None:
    """Follow a build until it is ready, with the time that is left. Exits 1 if it does not come to that."""
    made = follow(session, f"{PATH}/{index}")
    session.output.data(made)
    show_version(session.output, made)


@commands.command("list")
@connected
def list_indexes(
    session: Session,
    *,
    collection: Annotated[str | None, typer.Option("--collection", metavar="NAME", help="Only of this one.")] = None,
    state: Annotated[str | None, typer.Option("--state", metavar="STATE", help="Only in this state.")] = None,
    limit: Limit = 50,
) -> None:
    """List index versions, newest first, with their sizes and models."""
    page = session.service.list_all(PATH, limit, collection=collection, state=state)
    session.output.data(page)
    session.output.table(_COLUMNS, [version_row(one) for one in page["data"]], "There is no such index version.")


@commands.command("show")
@connected
def show(session: Session, index: IndexId) -> None:
    """Show one index version: state, pipeline, progress, quality."""
    found = session.service.get(f"{PATH}/{index}")
    session.output.data(found)
    show_version(session.output, found)


@commands.command("set")
@connected
def change(session: Session, index: IndexId, *, priority: Priority = None, threads: Threads = None) -> None:
    """Give a build more or less of the machine."""
    wanted = given(priority=priority, max_concurrency=threads)
    made = session.service.send("PATCH", f"{PATH}/{index}", json=wanted)
    session.output.data(made)
    session.output.show(f"{index}: priority {made['priority']}, {made['max_concurrency']} at a time.")


@commands.command("pause")
@connected
def pause(session: Session, index: IndexId) -> None:
    """Stop building for now; deletions and changes of access still reach it."""
    _ask(session, index, "pause")


@commands.command("resume")
@connected
def resume(session: Session, index: IndexId) -> None:
    """Go on building where it was paused, and try once more what could not be built."""
    _ask(session, index, "resume")


@commands.command("cancel")
@connected
def cancel(session: Session, index: IndexId) -> None:
    """Give up a build and drop what there is of it."""
    _ask(session, index, "cancel")


@commands.command("evaluate")
@connected
def evaluate(session: Session, index: IndexId, *, query_set: QuerySet = None, sample: Sample = None) -> None:
    """Compare it with the index that answers, question by question."""
    made = session.service.post(f"{PATH}/{index}:evaluate", given(query_set=query_set, sample=sample))
    session.output.data(made)
    show_quality(session.output, made["quality"])


@commands.command("promote")
@connected
def promote(
    session: Session,
    index: IndexId,
    *,
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="NAME", help="Refuse unless this is as good: ndcg@10, mrr, ...")
    ] = None,
    min_delta: Annotated[
        float, typer.Option("--min-delta", metavar="X", help="By how much it must be better at least; may be negative.")
    ] = 0.0,
    max_worse: Annotated[
        int | None,
        typer.Option("--max-worse-queries", metavar="N", min=0, help="Questions that may be answered worse."),
    ] = None,
    query_set: QuerySet = None,
    sample: Sample = None,
    force: Annotated[bool, typer.Option("--force", help="Switch whatever the comparison says.")] = False,
) -> None:
    """Let it answer from now on. The former one is kept up to date for a while, for `rag index rollback`."""
    body: dict[str, Any] = {**given(query_set=query_set, sample=sample), "force": force}
    if metric is not None or max_worse is not None:
        body["gate"] = given(metric=metric, min_delta=min_delta, max_worse_queries=max_worse)
    made = session.service.post(f"{PATH}/{index}:promote", body)
    session.output.data(made)
    show_switch(session.output, made)


@commands.command("rollback")
@connected
def rollback(
    session: Session,
    index: Annotated[str | None, typer.Argument(metavar="[ID]", help="The active one, to be left.")] = None,
    *,
    collection: Annotated[
        str, typer.Option("--collection", metavar="NAME", help="Leave the active one of this, if no ID is given.")
    ] = "default",
) -> None:
    """Let the former index version answer again. Nothing that was written since is lost."""
    if index is None:
        active = session.service.get(PATH, collection=collection, state="active", limit=1)["data"]
        if not active:
            raise CommandFailed(f"Collection {collection!r} has no active index version.", exit_code=MISUSED)
        index = str(active[0]["id"])
    made = session.service.post(f"{PATH}/{index}:rollback")
    session.output.data(made)
    show_switch(session.output, made)


def _ask(session: Session, index: str, action: str) -> None:
    made = session.service.post(f"{PATH}/{index}:{action}")
    session.output.data(made)
    paused = ", paused" if made["paused"] else ""
    session.output.show(f"{index} is {made['state']}{paused}.")
