"""rag document."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rag_service.cli.failure import FAILED, MISUSED, CommandFailed
from rag_service.cli.jobs import looks
from rag_service.cli.options import DenyGroups, DenyUsers, Groups, Limit, NoWait, Public, Users, acl, pairs
from rag_service.cli.output import Output, moment, printable
from rag_service.cli.session import Session, connected
from rag_service.cli.sources import source_id

commands = typer.Typer(help="Documents: what can be searched.", no_args_is_help=True)

_FINAL = ("ready", "failed", "deleted")
DocumentId = Annotated[str, typer.Argument(metavar="ID", help="Id of the document.")]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="A field to filter by; repeat for more.")
]


@commands.command("add")
@connected
def add_documents(
    session: Session,
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files to add; - reads text from stdin.")],
    *,
    title: Annotated[str | None, typer.Option("--title", metavar="TITLE", help="Title, for a single document.")] = None,
    external_id: Annotated[
        str | None,
        typer.Option("--external-id", metavar="ID", help="Your id for a single document; the path when not given."),
    ] = None,
    public: Public = False,
    users: Users = None,
    groups: Groups = None,
    deny_users: DenyUsers = None,
    deny_groups: DenyGroups = None,
    metadata: Metadata = None,
    collection: Annotated[
        str | None, typer.Option("--collection", metavar="NAME", help="Collection to put it into.")
    ] = None,
    no_wait: NoWait = False,
) -> None:
    """Add documents, or new versions of documents added before, and wait until they are searchable."""
    if len(files) > 1 and (title or external_id):
        raise CommandFailed(
            "--title and --external-id are for one document.", "Add one file at a time.", exit_code=MISUSED
        )
    readers = acl(public, users, groups, deny_users, deny_groups)
    fields = {
        "title": title,
        "external_id": external_id,
        "acl": readers,
        "metadata": pairs(metadata, "--metadata") or None,
        "collection": collection,
    }
    receipts = [_upload(session, file, {name: value for name, value in fields.items() if value}) for file in files]
    if readers is None and not session.output.as_json and any(receipt["version"] == 1 for receipt in receipts):
        session.output.note("Only keys that manage the team find a new document without --public, --user or --group.")
    if no_wait:
        session.output.data(receipts[0] if len(receipts) == 1 else {"data": receipts})
        session.output.show(*(f"{receipt['id']}  {receipt['status']}" for receipt in receipts))
        return
    _report(session, _wait(session, receipts))


@commands.command("list")
@connected
def list_documents(
    session: Session,
    *,
    status: Annotated[
        str | None,
        typer.Option(
            "--status", metavar="STATUS", help="accepted, parsing, chunking, embedding, indexing, ready or failed."
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="NAME", help="Only of this source, by name or id.")
    ] = None,
    collection: Annotated[
        str | None, typer.Option("--collection", metavar="NAME", help="Only of this collection.")
    ] = None,
    metadata: Metadata = None,
    limit: Limit = 50,
) -> None:
    """List documents."""
    narrowing: dict[str, Any] = {"status": status, "collection": collection, "source": source_id(session, source)}
    for key, value in pairs(metadata, "--metadata").items():
        narrowing[f"metadata.{key}"] = value
    page = session.service.list_all("/v1/documents", limit, **narrowing)
    session.output.data(page)
    rows = [
        (document["id"], document["status"], document["title"] or document["external_id"], _what_of(document))
        for document in page["data"]
    ]
    session.output.table(("ID", "Status", "Title", "Chunks"), rows, "There is no such document.")
    if page.get("has_more") and not session.output.as_json:
        session.output.note(f"There are more; see more of them with --limit {limit * 10}.")


@commands.command("show")
@connected
def show_document(session: Session, document_id: DocumentId) -> None:
    """Show a document: status, readers, what happened to it and, if it failed, why and what to do."""
    document = session.service.get(f"/v1/documents/{document_id}")
    events = session.service.get(f"/v1/documents/{document_id}/events")
    session.output.data({**document, "events": events["data"]})
    _describe(session.output, document)
    session.output.show("")
    rows = [(moment(event["at"]), event["version"], event["kind"], event.get("detail")) for event in events["data"]]
    session.output.table(("When (UTC)", "Version", "Event", "Detail"), rows, "Nothing has happened to it yet.")


@commands.command("delete")
@connected
def delete_document(session: Session, document_id: DocumentId) -> None:
    """Delete a document. It is gone from every answer at once."""
    session.output.data(session.service.send("DELETE", f"/v1/documents/{document_id}"))
    session.output.show(f"Document {document_id} is deleted.")


def _upload(session: Session, file: str, fields: dict[str, Any]) -> dict[str, Any]:
    if file == "-":
        return dict(session.service.post("/v1/documents", {**fields, "text": _stdin()}))
    path = Path(file).expanduser()
    if path.is_dir():
        raise CommandFailed(
            f"{file} is a folder.",
            f"Register it as a source: rag source add files {path.resolve().name} --root {file}",
            exit_code=MISUSED,
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CommandFailed(
            f"{file} cannot be read ({error.strerror}).", "Check the name and who may read it.", exit_code=MISUSED
        ) from None
    form = _form({"external_id": path.as_posix(), **fields})
    # What kind of file it is, the service tells from its name and content.
    request = {"data": form, "files": {"file": (path.name, content, "application/octet-stream")}}
    return dict(session.service.send("POST", "/v1/documents", **request))


def _form(fields: dict[str, Any]) -> dict[str, str]:
    """Form fields are text; what has parts is sent as JSON."""
    import json

    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}


def _stdin() -> str:
    text = sys.stdin.read()
    if not text.strip():
        raise CommandFailed(
            "There is no text on stdin.", "Pipe some: echo 'a text' | rag document add -", exit_code=MISUSED
        )
    return text


def _wait(session: Session, receipts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The documents once every one of them is through, in the version just sent or a later one."""
    documents = []
    with session.output.progress("Indexing") as progress:
        for done, receipt in enumerate(receipts):
            progress.update(done, len(receipts))
            for document in looks(session.service, f"/v1/documents/{receipt['id']}"):
                if document["status"] in _FINAL and document["version"] >= receipt["version"]:
                    documents.append(document)
                    break
        progress.update(len(receipts), len(receipts))
    return documents


def _report(session: Session, documents: list[dict[str, Any]]) -> None:
    session.output.data(documents[0] if len(documents) == 1 else {"data": documents})
    for document in documents:
        session.output.show(
            f"{document['id']}  {document['status']}  {printable(document['title'])}  {_what_of(document)}"
        )
    failed = [document for document in documents if document["status"] != "ready"]
    if failed:
        raise CommandFailed(
            f"{len(failed)} of {len(documents)} documents are not searchable. {_reason(failed[0])}",
            f"See all of it: rag document show {failed[0]['id']}",
            exit_code=FAILED,
        )


def _reason(document: dict[str, Any]) -> str:
    return str((document.get("error") or {}).get("message") or f"It is {document['status']}.")


def _what_of(document: dict[str, Any]) -> str:
    return _reason(document) if document["status"] == "failed" else f"{document.get('chunk_count') or 0} chunks"


def _describe(output: Output, document: dict[str, Any]) -> None:
    error = document.get("error") or {}
    output.fields(
        {
            "id": document["id"],
            "external id": document["external_id"],
            "title": document["title"],
            "status": document["status"],
            "version": document["version"],
            "chunks": document.get("chunk_count"),
            "collection": document.get("collection"),
            "source": document.get("source_id"),
            "address": document.get("uri"),
            "media type": document.get("media_type"),
            "metadata": document.get("metadata"),
            "readers": document.get("acl"),
            "searchable since": moment(document["searchable_at"]) if document.get("searchable_at") else None,
            "failed in stage": error.get("stage"),
            "error": f"{error['message']} ({error['code']})" if error else None,
            "next step": _next_step(document, error),
        }
    )


def _next_step(document: dict[str, Any], error: dict[str, Any]) -> str | None:
    if not error:
        return None
    again = f"rag document add {document['external_id']}"
    if source := document.get("source_id"):
        there = f"/{source}/sync" in document["how_to_retry"]
        again = f"rag source sync {source}" if there else f"rag document delete {document['id']}; {again}"
    return f"Try again: {again}" if error.get("retryable") else f"Correct the file as the error says, then: {again}"
