"""The settings that a process starts with, for the audit log: secrets only as set or unset."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from rag_service.db import Database, audit
from rag_service.settings import Settings

_ACTION = "settings.changed"


def put_on_record(database: Database, settings: Settings) -> None:
    """An entry when the settings differ from those of the start before."""
    now = declared(settings)
    with database.read() as connection:
        former = audit.newest(connection, _ACTION)
    before = None if former is None else former.after
    if before != now:
        with database.transaction() as transaction:
            transaction.audit(_ACTION, "settings", team=None, before=before, after=now)


def declared(settings: Settings) -> dict[str, Any]:
    """Every setting by name, as JSON has it; addresses without users, passwords and parameters."""
    return {name: _shown(getattr(settings, name)) for name in type(settings).model_fields}


def _shown(value: object) -> object:
    if isinstance(value, SecretStr):
        return "set"
    if isinstance(value, str) and "://" in value:
        return _bare(value)
    return str(value) if isinstance(value, Path) else value


def _bare(url: str) -> str:
    try:
        parts = urlsplit(url)
        place = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        return "unreadable"
    return f"{parts.scheme}://{place}{parts.path}"
