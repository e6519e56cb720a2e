"""rag quickstart: the service, and on its first start something to ask it about."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag_service.cli.client import DEFAULT_URL, Service
from rag_service.cli.failure import MISUSED, CommandFailed
from rag_service.cli.jobs import wait_for_job
from rag_service.cli.output import Output
from rag_service.cli.serve import Host, Port
from rag_service.cli.session import Session, ending
from rag_service.cli.sources import latest_sync, start_sync

if TYPE_CHECKING:
    from rag_service.cli.serving import Serving
    from rag_service.settings import Settings

TEAM = "demo"
_QUESTION = "Which library validates data using Python type hints?"
_PUBLIC = {"public": True, "users": [], "groups": []}


def quickstart(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    docs: Annotated[
        Path | None,
        typer.Option("--docs", metavar="FOLDER", help="Folder of documents to import; else texts of this machine."),
    ] = None,
) -> None:
    """Start the service, import documents on the first start, answer one question and keep serving."""
    from rag_service.cli.process import read_settings, until_told
    from rag_service.cli.serving import serving
    from rag_service.runtime.observing import start_log

    output = Output()
    with ending(output), until_told():
        folder = _existing(docs)
        settings = read_settings()
        start_log(settings, None if "log_level" in settings.model_fields_set else "warning")
        with serving(settings, host, port) as running:
            service = Service(running.url, running.runtime.admin_key(), TEAM)
            try:
                question = _import(Session(service, output), settings, folder)
            finally:
                service.close()
            _tell_next(running, question)
            running.wait()


def _existing(docs: Path | None) -> Path | None:
    if docs is None:
        return None
    folder = docs.expanduser().resolve()
    if not folder.is_dir():
        raise CommandFailed(f"There is no folder {docs}.", "Name one: make run DOCS=/some/folder", exit_code=MISUSED)
    return folder


def _import(session: Session, settings: Settings, docs: Path | None) -> str:
    """Make team and source unless they are there, sync, and answer a question. Returns a question to try."""
    _ensure_team(session)
    folder = docs or (settings.data_dir / "demo-docs").resolve()
    source = _source_of(session, folder)
    if source is not None and _is_imported(session, source):
        session.output.show(f"The documents of {folder} are there from an earlier start.")
        if docs is not None and not source["paused"]:
            start_sync(session, source)
        return _question(session, source, docs)
    if docs is None:
        _gather(session, folder)
    source = source or _register(session, folder, TEAM if docs is None else docs.name)
    _sync(session, source)
    question = _question(session, source, docs)
    _ask(session, question)
    return question


def _ensure_team(session: Session) -> None:
    teams = session.service.list_all("/v1/teams", 10_000)["data"]
    if all(team["id"] != TEAM for team in teams):
        session.service.post("/v1/teams", {"id": TEAM, "name": "Demo"})


def _source_of(session: Session, folder: Path) -> dict[str, Any] | None:
    for source in session.service.list_all("/v1/sources", 10_000)["data"]:
        if source["type"] == "files" and source["config"].get("root") == str(folder):
            return dict(source)
    return None


def _is_imported(session: Session, source: dict[str, Any]) -> bool:
    """False when an earlier start was broken off before all was indexed."""
    latest = latest_sync(session, source["id"])
    return bool(source["last_success_at"]) and latest is not None and latest["state"] not in ("queued", "running")


def _gather(session: Session, folder: Path) -> None:
    from rag_service.cli.demo_docs import gather

    count = gather(folder)
    session.output.show(f"Gathered {count} texts that are on this machine into {folder}.")


def _register(session: Session, folder: Path, name: str) -> dict[str, Any]:
    """A public source over `folder`, under a name that is free."""
    taken = {source["name"] for source in session.service.list_all("/v1/sources", 10_000)["data"]}
    free = next(each for each in (name, *(f"{name}-{number}" for number in range(2, 10_000))) if each not in taken)
    wanted = {"name": free, "type": "files", "config": {"root": str(folder)}, "acl": _PUBLIC}
    return dict(session.service.post("/v1/sources", wanted))


def _sync(session: Session, source: dict[str, Any]) -> None:
    job = wait_for_job(session, start_sync(session, source)["job_id"], f"Importing {source['name']}")
    failed = int((job.get("counters") or {}).get("failed") or 0)
    if job["state"] == "failed":
        error = job.get("error") or {}
        raise CommandFailed(error.get("message") or "The import failed.", "Correct that and start again.")
    if failed:
        session.output.note(f"{failed} documents could not be imported: rag document list --status failed")


def _question(session: Session, source: dict[str, Any], docs: Path | None) -> str:
    if docs is None:
        return _QUESTION
    ready = session.service.get("/v1/documents", source=source["id"], status="ready", limit=1)["data"]
    return f"What does {ready[0]['title']} say?" if ready else "What is this about?"


def _ask(session: Session, question: str) -> None:
    from rich.text import Text

    from rag_service.cli.search import show_results

    session.output.show("", Text(f"Question: {question}", style="bold"), "")
    show_results(
        session.output, session.service.post("/v1/retrieve", {"query": question, "top_k": 3, "highlight": True})
    )


def _tell_next(running: Serving, question: str) -> None:
    from rag_service.cli.serving import tell_key

    typer.echo(f"\nServing on {running.url} (API reference: {running.url}/docs)")
    tell_key(running)
    rag, where = _rag_command(running)
    typer.echo("\nTry next, in another terminal:")
    for command in (
        _curl(running, question),
        f"{rag} search {shlex.quote(question)}{where} --as-user alice --as-group staff",
        f"{rag} source add files handbook --root ~/handbook --group staff{where}",
    ):
        typer.echo(f"  {command}")
    typer.echo("\nCtrl-C stops it; what was imported stays.")


def _rag_command(running: Serving) -> tuple[str, str]:
    """How to call this command line from another terminal, and the options that name this service."""
    here = Path(sys.argv[0])
    found = shutil.which("rag")
    rag = "rag" if found and Path(found).resolve() == here.resolve() else shlex.quote(sys.argv[0])
    if here.name == "__main__.py":
        rag = f"{shlex.quote(sys.executable)} -m rag_service"
    settings = running.runtime.settings
    if running.key_file is not None and settings.data_dir != Path(".rag"):
        rag = f"RAG_DATA_DIR={shlex.quote(str(settings.data_dir.resolve()))} {rag}"
    url = "" if running.url == DEFAULT_URL else f" --url {running.url}"
    return rag, f"{url} --team {TEAM}"


def _curl(running: Serving, question: str) -> str:
    import json

    key = f"$(cat {shlex.quote(str(running.key_file))})" if running.key_file else "$RAG_ADMIN_KEY"
    body = shlex.quote(json.dumps({"query": question, "top_k": 3}))
    return (
        f'curl -s {running.url}/v1/retrieve -H "Authorization: Bearer {key}" -H "X-Rag-Team: {TEAM}" '
        f'-H "Content-Type: application/json" -d {body}'
    )
