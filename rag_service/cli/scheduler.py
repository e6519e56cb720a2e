"""rag scheduler."""

from __future__ import annotations

import time
from contextlib import ExitStack

import typer

from rag_service.cli.output import Output
from rag_service.cli.session import ending

_LOOK_S = 0.2


def scheduler() -> None:
    """Queue due syncs and ring again for jobs whose message was lost, until Ctrl-C. Several may run."""
    from rag_service.cli.failure import MISUSED, CommandFailed
    from rag_service.cli.process import read_settings, until_told
    from rag_service.errors import RagError
    from rag_service.runtime import build
    from rag_service.runtime.observing import metrics_port, start_log, tracing
    from workers.schedule import Scheduler

    with ending(Output()), until_told(), ExitStack() as stack:
        settings = read_settings()
        start_log(settings)
        try:
            stack.enter_context(tracing(settings))
            runtime = build(settings, role="scheduler")
            runtime.open()
            stack.callback(runtime.close)
            stack.enter_context(metrics_port(settings, runtime.state))
        except RagError as error:
            raise CommandFailed(error.message, exit_code=MISUSED) from None
        # In a thread of its own, so that a signal never ends a sweep half-way.
        scheduler = Scheduler(runtime, settings.sweep_s)
        scheduler.start()
        stack.callback(scheduler.stop)
        typer.echo("Scheduling.")
        while True:
            time.sleep(_LOOK_S)
