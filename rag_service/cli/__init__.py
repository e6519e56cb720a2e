"""The command line. Commands import what is heavy only when they run, so that help comes at once."""

from __future__ import annotations

from typing import Annotated

import typer

from rag_service import __version__
from rag_service.cli import (
    admin,
    doctor,
    documents,
    evaluation,
    feedback,
    fingerprints,
    index,
    jobs,
    probes,
    queries,
    quickstart,
    scheduler,
    search,
    serve,
    sources,
    teams,
    upkeep,
    webhooks,
)

app = typer.Typer(
    name="rag",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """RAG as a service: documents in, permission-filtered answers out."""


app.command("quickstart")(quickstart.quickstart)
app.command("serve")(serve.serve)
app.command("scheduler")(scheduler.scheduler)
app.command("search")(search.search)
app.command("why-not")(queries.why_not)
app.command("doctor")(doctor.doctor)
app.add_typer(sources.commands, name="source")
app.add_typer(documents.commands, name="document")
app.add_typer(jobs.commands, name="job")
app.add_typer(queries.commands, name="query")
app.add_typer(probes.commands, name="probe")
app.add_typer(evaluation.commands, name="eval")
app.add_typer(feedback.commands, name="feedback")
app.add_typer(webhooks.commands, name="webhook")
app.add_typer(teams.teams, name="team")
app.add_typer(teams.keys, name="key")
app.add_typer(index.commands, name="index")
app.add_typer(admin.commands, name="admin")
admin.commands.command("backup")(upkeep.backup)
admin.commands.command("restore")(upkeep.restore)
admin.commands.command("reconcile")(upkeep.reconcile)
admin.commands.command("fingerprints")(fingerprints.fingerprints)
admin.commands.command("accept-fingerprint")(fingerprints.accept_fingerprint)
