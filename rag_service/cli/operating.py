"""The parts of the service without the service: for commands that work on the database itself."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rag_service.cli.failure import FAILED, MISUSED, CommandFailed

if TYPE_CHECKING:
    from rag_service.runtime import Runtime


@contextmanager
def operating() -> Iterator[Runtime]:
    """A runtime of the RAG_* settings, not opened; what is done is audited as done by the user of this machine.

    Raises CommandFailed when there is no database of this version, and for every error of the service in the block.
    """
    from rag_service.cli.process import read_settings
    from rag_service.db.authors import Author, authored_by
    from rag_service.errors import ConfigError, RagError
    from rag_service.runtime import build

    settings = read_settings()
    if settings.database_url is None and not (settings.data_dir / "rag.db").exists():
        raise CommandFailed(
            f"There is no service in {settings.data_dir}.", "Name its data folder: RAG_DATA_DIR.", exit_code=MISUSED
        )
    try:
        runtime = build(settings)
        try:
            if runtime.database.pending_migrations():
                raise ConfigError("There are migrations to run: start `rag serve` once with this version.")
            with authored_by(Author("command", user=_login())):
                yield runtime
        finally:
            runtime.close()
    except RagError as error:
        raise CommandFailed(error.message, exit_code=MISUSED if isinstance(error, ConfigError) else FAILED) from None


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in containers
        return "unknown"
