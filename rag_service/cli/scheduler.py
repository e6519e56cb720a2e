"""rag scheduler."""

from __future__ import annotations

import time

import typer

from rag_service.cli.output import Output
from rag_service.cli.session import ending

_LOOK_S = 0.2


def scheduler() -> None:
    """Queue due syncs and ring again for jobs whose message was lost, until Ctrl-C. Several may run."""
    from rag_service.cli.failure import MISUSED, CommandFailed
    from rag_service.cli.process import read_settings, start_logging, until_told

    with ending(Output()), until_told():
        settings = read_settings()
        start_logging(settings.log_level)
        from rag_service.errors import RagError
        from rag_service.runtime import build
        from workers.schedule import Scheduler

        try:
            runtime = build(settings, role="scheduler")
            runtime.open()
        except RagError as error:
            raise CommandFailed(error.message, exit_code=MISUSED) from None
        # In a thread of its own, so that a signal never ends a sweep half-way.
        scheduler = Scheduler(runtime, settings.sweep_s)
        scheduler.start()
        try:
            typer.echo("Scheduling.")
            while True:
                time.sleep(_LOOK_S)
        finally:
            scheduler.stop()
            runtime.close()
