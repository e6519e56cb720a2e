"""Credentials of sources: taken out of a configuration, kept encrypted, put back for the connector alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import connectors
from connectors.secret_fields import destination_fields, secret_fields
from rag_service.db import Connection, Database, sources
from rag_service.db.sources import Source
from rag_service.errors import ConfigError, InvalidRequest
from rag_service.vault import Envelope, Vault

State: TypeAlias = Literal["set", "unset"]
_AT_ONCE = 100


@dataclass(frozen=True)
class Credentials:
    database: Database
    vault: Vault

    def keep(self, connection: Connection, source: Source, config: Mapping[str, Any]) -> Source:
        """Store a configuration whose secrets are encrypted, each bound to its source and field.

        A secret that is not given stays as it is, null takes it away. Raises Conflict when there is no key.
        """
        hidden = secret_fields(connectors.load(source.type).Config)
        envelopes = {name: envelope for name, envelope in source.secrets.items() if name not in config}
        for name in hidden & config.keys():
            if config[name] is not None:
                envelopes[name] = self.vault.seal(json.dumps(config[name]), _place(source.id, name))
        shown = {name: value for name, value in config.items() if name not in hidden}
        sources.change(connection, source.id, config=shown, secrets=envelopes)
        return sources.get(connection, source.team_id, source.id)

    def whole(self, source: Source) -> dict[str, Any]:
        """The configuration with its secrets, for the connector and nobody else. Raises ConfigError."""
        opened = {
            name: json.loads(self.vault.open(envelope, _place(source.id, name)))
            for name, envelope in source.secrets.items()
        }
        return {**source.config, **opened}

    def merged(self, source: Source, change: Mapping[str, Any]) -> dict[str, Any]:
        """What a changed configuration would be, whole.

        Raises InvalidRequest when it would send a secret that was not given again to another address: who may change
        a source may not read its credentials that way.
        """
        config = connectors.load(source.type).Config
        kept = {name for name in source.secrets if name not in change}
        moved = [name for name in sorted(destination_fields(config)) if change.get(name) != source.config.get(name)]
        if kept and moved:
            raise InvalidRequest(
                f"config.{moved[0]} says where the credentials are sent. To change it, give "
                f"{', '.join(sorted(kept))} again.",
                code="credentials_required",
            )
        opened = self.whole(source)
        given = {
            name: value for name, value in change.items() if value is not None or name not in secret_fields(config)
        }
        return {**given, **{name: opened[name] for name in kept}}

    def rotate(self, *, drop: bool = False) -> Rotation:
        """Encrypt every credential anew under the newest key; a source that is in use meanwhile is not disturbed.

        `drop` forgets those that cannot be opened; else their sources stay as they are.
        """
        rotated, failed, last = 0, list[str](), ""
        while True:
            with self.database.transaction() as transaction:
                batch = sources.with_secrets(transaction.connection, after=last, limit=_AT_ONCE)
                if not batch:
                    return Rotation(rotated, failed, self.vault.newest)
                for source in batch:
                    renewed = self._renewed(source)
                    if lost := source.secrets.keys() - renewed.keys():
                        failed.append(source.id)
                    if lost and not drop:
                        continue
                    sources.change(transaction.connection, source.id, secrets=renewed)
                    rotated += len(renewed)
                    told: dict[str, Any] = {"key": self.vault.newest, "fields": len(renewed), "dropped": len(lost)}
                    transaction.audit("secrets.rotated", source.id, team=source.team_id, **told)
                last = batch[-1].id

    def _renewed(self, source: Source) -> dict[str, Envelope]:
        """Those that can be opened, anew."""
        envelopes: dict[str, Envelope] = {}
        for name, envelope in source.secrets.items():
            place = _place(source.id, name)
            with suppress(ConfigError):
                envelopes[name] = self.vault.seal(self.vault.open(envelope, place), place)
        return envelopes


@dataclass(frozen=True, slots=True)
class Rotation:
    """How many credentials are under the key `key` now, and the sources of which one could not be opened."""

    rotated: int
    failed: list[str]
    key: str


def states(source: Source) -> dict[str, State]:
    """Each secret field of a source's type, and whether it is set."""
    # Of a type that is not known any more, at least what is kept.
    known = source.type in connectors.REGISTRY
    hidden = secret_fields(connectors.load(source.type).Config) if known else frozenset(source.secrets)
    return {name: "set" if name in source.secrets else "unset" for name in sorted(hidden)}


def _place(source_id: str, field: str) -> str:
    return f"source/{source_id}/{field}"
