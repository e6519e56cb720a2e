"""What a process that serves needs before it serves: its settings, its log, and an ear for signals."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from rag_service.cli.failure import MISUSED, CommandFailed

if TYPE_CHECKING:
    from rag_service.settings import Settings

_ENDINGS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def until_told() -> Iterator[None]:
    """Run the block until SIGINT or SIGTERM, wherever it is then. A second one ends the process as usual."""
    before = {number: signal.getsignal(number) for number in _ENDINGS}

    def stop(_number: int, _frame: object) -> None:
        for each in _ENDINGS:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt

    for number in _ENDINGS:
        signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Stopped.")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read_settings() -> Settings:
    """The settings from the environment. Raises CommandFailed that names the wrong ones, never their values."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from rag_service.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"RAG_{str(problem['loc'][0]).upper()}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise CommandFailed(
            f"Wrong settings. {wrong}.", "Correct them in the environment.", exit_code=MISUSED
        ) from None
    except SettingsError as error:
        name = next(name for name in Settings.model_fields if f'"{name}"' in str(error))
        meant = f"It is: {Settings.model_fields[name].description}"
        raise CommandFailed(f"RAG_{name.upper()} is no JSON.", meant, exit_code=MISUSED) from None
