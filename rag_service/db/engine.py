"""One database, SQLite or Postgres behind one URL; transactions that ring after they commit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from rag_service.db import audit
from rag_service.db.write_ahead import WriteAheadLog
from rag_service.errors import ConfigError, InvalidRequest, RetryableError

_MIGRATIONS = Path(__file__).parent / "migrations"
# The advisory lock under which one process at a time migrates; any number does that nobody else takes.
_MIGRATING = 7_246_117_301
# A statement takes milliseconds: what takes longer than this waits for a lock that somebody forgot.
_SERVER_OPTIONS = {
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "120s",
    "timezone": "UTC",
}
# As long as SQLite itself is told to wait for another process.
_TURN_S = 30
# Classes of SQLSTATE that say: nothing is wrong with the statement, try it again. 08 is the connection, 40 a deadlock,
# 53 resources, 57 shut down or cancelled, 58 the server's system, 55P03 a lock, 25006 a server that only reads.
_PASSING = ("08", "40", "53", "57", "58", "55P03", "25006")


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open write transaction. What is to be sent is sent after the commit, or never.

    What is to be audited is written at its very end, in the same commit: the log's head is locked for a moment only.
    """

    connection: Connection
    hooks: list[Callable[[], object]] = field(default_factory=list)
    entries: list[audit.Entry] = field(default_factory=list)
    # Webhooks that have something to be told once this is committed.
    told: set[str] = field(default_factory=set)

    def on_commit(self, hook: Callable[[], object]) -> None:
        self.hooks.append(hook)

    def audit(
        self,
        action: str,
        target: str,
        *,
        team: str | None,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        outcome: audit.Outcome = "done",
        **detail: Any,
    ) -> None:
        """Put an action on record: who acts is known from the context, see `authored_by`. No secrets, no texts."""
        self.entries.append(audit.Entry(action, target, team, before, after, detail, outcome))


class Database:
    """`pool` is how many connections to a server are kept open; under load there are up to twice as many."""

    def __init__(self, url: str, pool: int = 10) -> None:
        self._url = checked_url(url)
        self._pool = pool
        self._turn = threading.Lock()
        self._log = WriteAheadLog(self._url)
        # Called after a commit that left webhooks something to be told, with their ids. Must not raise.
        self.on_told: Callable[[Collection[str]], object] = len

    @property
    def is_shared(self) -> bool:
        """Whether other processes may use the same database: a server rather than a file."""
        return self._url.get_backend_name() != "sqlite"

    @cached_property
    def _engine(self) -> Engine:
        return _server_engine(self._url, self._pool) if self.is_shared else _sqlite_engine(self._url)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading: each statement sees what is committed when it runs."""
        with _available(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Commit at the end of the block, or roll back if it raises; once that is on the disk, run the hooks.

        Raises RetryableError when the database does not answer, is locked for too long or cannot reach its disk.
        """
        with _available(), self._alone(), self._engine.connect() as connection:
            if not self.is_shared:
                # The write lock is taken at once: a read that turns into a write later would fail, not wait.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            transaction = Transaction(connection)
            yield transaction
            if transaction.entries:
                audit.append(connection, transaction.entries)
            connection.commit()
            self._log.note(connection)
        self._log.flush()  # others may write meanwhile
        for hook in transaction.hooks:
            hook()
        if transaction.told:
            self.on_told(transaction.told)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """SQLite has one writer, and who waits for it sleeps and asks again: beside many others, for seconds.

        So the threads of this process wait here, where they are woken.
        """
        if self.is_shared:
            yield
            return
        if not self._turn.acquire(timeout=_TURN_S):
            raise RetryableError("The metadata database is busy. Try again shortly.", code="database_unavailable")
        try:
            yield
        finally:
            self._turn.release()

    def migrate(self) -> None:
        """Bring the schema to the newest revision. Of processes that start at once, one does it and the others wait.

        Raises ConfigError when the schema is newer than this code.
        """
        with _available(), self._engine.begin() as connection:
            if self.is_shared:
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
            config = _alembic()
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise ConfigError(
                    "The database was migrated by a newer version of the service. Start that one.", code="schema_newer"
                ) from error

    def pending_migrations(self) -> bool:
        """Whether the schema is older (or newer) than this code."""
        with self.read() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        return current != ScriptDirectory.from_config(_alembic()).get_current_head()

    def close(self) -> None:
        if "_engine" in self.__dict__:  # never used, nothing to close, and nothing to be made on the disk
            self._engine.dispose()


def checked_url(url: str) -> URL:
    """The URL with the driver we use. Raises ConfigError for a database that is neither SQLite nor Postgres."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(
            "RAG_DATABASE_URL is no database URL. It looks like postgresql://user:password@host/name."
        ) from None
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite":
        return parsed
    raise ConfigError(
        f"RAG_DATABASE_URL names {parsed.drivername!r}. Use postgresql:// (or sqlite:/// for one process)."
    )


@contextmanager
def _available() -> Iterator[None]:
    """Tell the database's errors as ours: what may pass as RetryableError, a text it cannot hold as InvalidRequest."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolExhausted) as error:
        raise _unavailable(error) from error
    except DBAPIError as error:
        state = str(getattr(error.orig, "sqlstate", None) or "")
        if error.connection_invalidated or state.startswith(_PASSING):
            raise _unavailable(error) from error
        if isinstance(error, DataError):  # a NUL character, a string that is too long
            raise InvalidRequest("A text holds characters, or is of a length, that cannot be stored.") from error
        raise


def _unavailable(error: DBAPIError | PoolExhausted) -> RetryableError:
    why = type(error.orig).__name__ if isinstance(error, DBAPIError) else "all connections are in use"
    return RetryableError(
        f"The metadata database does not answer ({why}). Try again shortly.", code="database_unavailable"
    )


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def _server_engine(url: URL, pool: int) -> Engine:
    """READ COMMITTED, as Postgres does by itself: every write is a compare-and-set, so no more is needed."""
    options = " ".join(f"-c {name}={value}" for name, value in _SERVER_OPTIONS.items())
    # A server that vanished without a word is noticed after some seconds, not after TCP's two hours.
    alive = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
    return create_engine(
        url,
        hide_parameters=True,  # errors are logged, and the texts of documents must not be
        pool_pre_ping=True,
        pool_size=pool,
        max_overflow=pool,
        pool_timeout=10,
        connect_args={"connect_timeout": 5, "options": options, "application_name": "rag-service", **alive},
    )


def _sqlite_engine(url: URL) -> Engine:
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, pool_size=40, max_overflow=40, connect_args={"timeout": 30, "check_same_thread": False})
    event.listen(engine, "connect", _configure_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    # pysqlite's own BEGIN comes too late for BEGIN IMMEDIATE: we say when a transaction begins.
    connection.isolation_level = None
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    for pragma in (
        # An acknowledged write outlives a power cut: with a log, `WriteAheadLog` sees to it.
        f"synchronous = {'NORMAL' if mode == 'wal' else 'FULL'}",
        "foreign_keys = ON",
        "busy_timeout = 30000",
        "cache_size = -65536",
        "temp_store = MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")
