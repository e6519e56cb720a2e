"""A start with other settings is on record, and what is on record holds no secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from rag_service.db import Database, audit
from rag_service.db.audit import AuditFilter, Recorded
from rag_service.runtime.declared import declared, put_on_record
from rag_service.settings import Settings

SECRET = "s3cret-word-of-the-service"


def entries(database: Database) -> list[Recorded]:
    with database.read() as connection:
        return list(audit.in_order(connection, AuditFilter(action="settings.changed")))


def test_only_a_start_with_other_settings_leaves_an_entry(database: Database, tmp_path: Path) -> None:
    first = Settings(data_dir=tmp_path, source_root=tmp_path, trace_sample=0.25)
    for settings in (first, first, Settings(data_dir=tmp_path, source_root=None, trace_sample=0.25)):
        put_on_record(database, settings)
    begun, changed = entries(database)
    assert begun.before is None
    assert changed.before is not None
    assert changed.after is not None
    assert (changed.before["source_root"], changed.after["source_root"]) == (str(tmp_path), None)
    assert {name for name in changed.after if changed.before[name] != changed.after[name]} == {"source_root"}


def test_every_setting_that_may_hold_a_secret_is_told_as_set_or_without_it(database: Database) -> None:
    secret = {name: SECRET for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    urls = {
        name: f"https://user:{SECRET}@host:1234/path?key={SECRET}"
        for name in Settings.model_fields
        if name.endswith("_url")
    }
    assert len(secret) >= 5
    assert len(urls) >= 5
    settings = Settings.model_validate({**secret, **urls})
    put_on_record(database, settings)
    told = declared(settings)
    assert all(told[name] == "set" for name in secret)
    assert all(told[name] == "https://host:1234/path" for name in urls)
    assert SECRET not in json.dumps(entries(database)[0].content())
    assert declared(Settings())["admin_key"] is None


@pytest.mark.parametrize("url", [f"http://[{SECRET}", f"https://user:{SECRET}@host:port"])
def test_an_address_that_is_none_is_not_told(url: str) -> None:
    assert declared(Settings(qdrant_url=url))["qdrant_url"] == "unreadable"


def test_settings_print_no_secret() -> None:
    settings = Settings(admin_key=SecretStr(SECRET), database_url=f"postgresql+psycopg://u:{SECRET}@h/d")
    assert SECRET not in f"{settings!r} {settings}"
