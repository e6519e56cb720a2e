"""rag admin: what concerns the service as a whole."""

from __future__ import annotations

import typer

commands = typer.Typer(help="The service as a whole: backups and reconciling.", no_args_is_help=True)
