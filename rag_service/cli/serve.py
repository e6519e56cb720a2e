"""rag serve."""

from __future__ import annotations

from typing import Annotated

import typer

from rag_service.cli.output import Output
from rag_service.cli.session import ending

Host = Annotated[
    str, typer.Option("--host", metavar="HOST", help="Address to listen on; 0.0.0.0 for every one of this machine.")
]
Port = Annotated[
    int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
]


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Answer requests only; other processes do the indexing.")
    ] = False,
) -> None:
    """Start the service and keep it running until Ctrl-C. Settings come from RAG_* variables."""
    from rag_service.cli.process import read_settings, until_told
    from rag_service.cli.serving import serving, tell_key
    from rag_service.runtime.observing import start_log

    with ending(Output()), until_told():
        settings = read_settings()
        start_log(settings)
        with serving(settings, host, port, worker=not no_worker) as running:
            typer.echo(f"Serving on {running.url} (API reference: {running.url}/docs)")
            tell_key(running)
            if no_worker and not settings.redis_url:
                typer.echo("Nothing is indexed with --no-worker and without RAG_REDIS_URL.", err=True)
            running.wait()
