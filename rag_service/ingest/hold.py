"""While a backup is taken nothing is purged: what its snapshot names stays until it has been copied.

Whoever purges first commits that it is no longer needed and then asks here. So either the backup had begun, and the
purge is put off, or the commit came before the backup's snapshot, which then does not name what goes.
"""

from __future__ import annotations

from rag_service.db import Database, operations
from rag_service.db.operations import OperationKind
from rag_service.errors import RetryableError

_LOOK_AGAIN_S = 5


class PutOffError(RetryableError):
    """A backup is being taken. This goes on when it is done."""

    default_code = "backup_running"

    def __init__(self) -> None:
        super().__init__(retry_after=_LOOK_AGAIN_S)


class SwitchingIndexError(PutOffError):
    """The collection is changing to another index version. This goes on in a moment."""

    default_code = "index_switching"


def may_purge(database: Database) -> None:
    """Raises PutOffError while a backup is being taken."""
    with database.read() as connection:
        if operations.is_running(connection, OperationKind.BACKUP):
            raise PutOffError
