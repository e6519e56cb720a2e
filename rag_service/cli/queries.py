"""rag why-not and rag query: why an answer is as it is, and what the same question gets now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rag_service.cli.failure import MISUSED, CommandFailed
from rag_service.cli.options import AsGroups, AsUser, Collections, Mode, Narrowing, TopK, given
from rag_service.cli.output import Output, moment, printable
from rag_service.cli.search import question
from rag_service.cli.session import Session, connected

commands = typer.Typer(help="Queries that were asked: their traces, and asking them again.", no_args_is_help=True)

QueryId = Annotated[str, typer.Argument(metavar="ID", help="The query_id of an answer.")]


@connected
def why_not(
    session: Session,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The question, as it was asked.")],
    *,
    document: Annotated[str | None, typer.Option("--document", metavar="ID", help="Id of the document.")] = None,
    external_id: Annotated[
        str | None, typer.Option("--external-id", metavar="TEXT", help="Its external id, instead of --document.")
    ] = None,
    top_k: TopK = 10,
    mode: Mode = None,
    as_user: AsUser = None,
    as_groups: AsGroups = None,
    narrowing: Narrowing = None,
    collections: Collections = None,
) -> None:
    """Say why a document is, or is not, among the answers to a question."""
    if (document is None) == (external_id is None):
        raise CommandFailed("Which document?", "Name it by --document or by --external-id.", exit_code=MISUSED)
    asked = question(query, top_k, mode=mode, user=as_user, groups=as_groups, narrowing=narrowing, among=collections)
    named = {"document_id": document} if document is not None else {"external_id": external_id}
    verdict = session.service.post("/v1/retrieve:why_not", {**asked, **named})
    session.output.data(verdict)
    _show_verdict(session.output, verdict)


@commands.command("show")
@connected
def show_query(session: Session, query_id: QueryId) -> None:
    """Show a trace: who asked, how it was answered, every hit with its scores."""
    trace = session.service.get(f"/v1/queries/{query_id}")
    session.output.data(trace)
    session.output.fields(
        {
            "id": trace["id"],
            "asked": moment(trace["at"]),
            "key": trace["key_name"],
            "as user": trace["as_user"],
            "question": trace["query"] or "(not kept)",
            "legs": trace["plan"].get("legs"),
            "index versions": trace["index_versions"],
            "milliseconds": trace["usage"],
            "degraded": trace["degraded"],
        }
    )
    rows = [
        (hit["rank"], *(_number(hit[name]) for name in ("score", "dense", "lexical")), hit["document_id"])
        for hit in trace["hits"]
    ]
    session.output.table(("Rank", "Score", "Dense", "Lexical", "ID"), rows, "It had no hits that you may see.")


@commands.command("replay")
@connected
def replay_query(
    session: Session,
    query_id: QueryId,
    query: Annotated[
        str | None, typer.Option("--query", metavar="TEXT", help="The question, where its trace did not keep it.")
    ] = None,
    index_version: Annotated[
        str | None, typer.Option("--index-version", metavar="ID", help="Ask this index version.")
    ] = None,
) -> None:
    """Ask the same again, and show what appeared, vanished and moved."""
    replay = session.service.post(f"/v1/queries/{query_id}/replay", given(query=query, index_version=index_version))
    session.output.data(replay)
    _show_difference(session.output, replay)


def _show_verdict(output: Output, verdict: Mapping[str, Any]) -> None:
    output.show(f"{verdict['verdict']}: {printable(verdict['reason'])}")
    document = verdict["document"]
    places = {
        leg: f"{_number(place['score'])} at rank {place['rank'] or '-'} (candidates: {place['drawn']})"
        for leg, place in (verdict.get("legs") or {}).items()
    }
    output.fields(
        {
            "document": document["id"],
            "external id": document["external_id"],
            "status": document["status"],
            **{name: verdict.get(name) for name in ("clause", "values", "denied_by", "job", "cut")},
            **places,
            "fused": verdict.get("fused"),
            "last returned": verdict.get("last_returned"),
        }
    )


def _show_difference(output: Output, replay: Mapping[str, Any]) -> None:
    changes = replay["documents"]
    rows = [
        (what, _rank(change["before"]), _rank(change["after"]), _number(change["score_delta"]), change["document_id"])
        for what in ("appeared", "vanished", "moved")
        for change in changes[what]
    ]
    output.table(("Document", "Before", "Now", "Score", "ID"), rows, "Every document stands where it stood.")
    output.show(f"{changes['unchanged']} unchanged. Asked again as {replay['replay_id']}.")
    if replay["hidden"]:
        output.note(f"Of what was answered then, {replay['hidden']} passages may not be read now and are not shown.")
    if not replay["same_identity"]:
        output.note("It was first asked with other rights: differences may come from these.")


def _rank(standing: Mapping[str, Any] | None) -> object:
    return None if standing is None else standing["rank"]


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"
