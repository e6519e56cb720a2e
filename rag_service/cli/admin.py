"""rag admin: what whoever runs the service does, beside the running service or while it is stopped."""

from __future__ import annotations

import typer

from rag_service.cli import audit, dead_letters, reindex, rotate_secrets

commands = typer.Typer(
    help="Running the service: its keys, audit log, backups and the work that gave up.", no_args_is_help=True
)
commands.command("reindex")(reindex.reindex)
commands.command("rotate-secrets")(rotate_secrets.rotate_secrets)
commands.add_typer(audit.commands, name="audit")
commands.add_typer(dead_letters.commands, name="dead-letters")
