"""rag admin: what an administrator of the whole service does. The commands stand in files of their own."""

from __future__ import annotations

import typer

from rag_service.cli import dead_letters

commands = typer.Typer(help="Administration of the whole service.", no_args_is_help=True)
commands.add_typer(dead_letters.commands, name="dead-letters")
