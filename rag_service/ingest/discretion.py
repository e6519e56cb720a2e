"""A connector that cannot tell its own credentials: not in an error, not in a failure, not in the log."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

from connectors.base import Change, Check, Connector, Cursor, Failure, Upsert
from connectors.errors import SourceError

R = TypeVar("R")

# Shorter ones would blacken ordinary words.
_SHORTEST = 4
HIDDEN = "***"


class CredentialInMessageError(Exception):
    """An error of a connector held a credential in its message, which is left out here."""


@dataclass(frozen=True, slots=True)
class Discreet:
    """Wraps a connector: what it raises or reports has its secrets blackened."""

    connector: Connector
    secrets: frozenset[str]

    def check(self) -> Check:
        return self._quietly(self.connector.check)

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:
        with blackened(self.secrets):
            for change in self.connector.changes(cursor):
                yield self._shown(change)

    def _shown(self, change: Change) -> Change:
        if isinstance(change, Failure):
            return replace(change, message=self._blacken(change.message))
        if isinstance(change, Upsert):
            read = change.item.read
            return Upsert(replace(change.item, read=lambda: self._quietly(read)))
        return change

    def _quietly(self, call: Callable[[], R]) -> R:
        with blackened(self.secrets):
            return call()

    def _blacken(self, text: str) -> str:
        return blacken(text, self.secrets)


@contextmanager
def blackened(secrets: frozenset[str]) -> Iterator[None]:
    """Errors leave the block without these secrets in their message, or in those of their causes."""
    try:
        yield
    except SourceError as error:
        if _tells(error, secrets):
            error.args = (blacken(str(error), secrets),)
            raise error from None
        raise
    except Exception as error:
        # A defect ends in the log with its message and those of its causes.
        if _tells(error, secrets):
            raise CredentialInMessageError(f"{type(error).__name__}: {blacken(str(error), secrets)}") from None
        raise


def blacken(text: str, secrets: frozenset[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _tells(error: BaseException, secrets: frozenset[str]) -> bool:
    waiting, seen = list[BaseException | None]([error]), set[int]()
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            told = f"{one!r} {one} {getattr(one, '__notes__', '')}"
            if blacken(told, secrets) != told:
                return True
            waiting += [one.__cause__, one.__context__]
    return False


def secrets_in(value: object) -> frozenset[str]:
    """Every text within the secret fields of a configuration, as it is and as addresses and JSON write it."""
    if isinstance(value, str):
        written = {value, quote(value), quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1]}
        return frozenset(written if len(value) >= _SHORTEST else ())
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return frozenset[str]().union(*(secrets_in(part) for part in parts))


def discreet(make: Callable[[], Connector], hidden: Mapping[str, Any]) -> Connector | Discreet:
    """The connector itself when it is given no secret. An error while it is made tells none either."""
    secrets = secrets_in(hidden)
    if not secrets:
        return make()
    with blackened(secrets):
        return Discreet(make(), secrets)
