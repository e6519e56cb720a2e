"""Which fields of a connector's configuration are secret: those that pydantic calls write-only, as a SecretStr is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel


@cache
def secret_fields(config: type[BaseModel]) -> frozenset[str]:
    """Fields that hold a secret anywhere within them; such a field is kept encrypted as a whole."""
    schema = config.model_json_schema()
    definitions = schema.get("$defs", {})
    return frozenset(name for name, field in schema["properties"].items() if _is_secret(field, definitions, set()))


@cache
def destination_fields(config: type[BaseModel]) -> frozenset[str]:
    """Fields that say where the secrets are sent: addresses, and those of `json_schema_extra={"destination": True}`."""
    properties: dict[str, Any] = config.model_json_schema()["properties"]
    return frozenset(name for name, field in properties.items() if field.get("destination") or _is_address(field))


def public_schema(config: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a configuration; each secret field says `writeOnly` itself."""
    schema = config.model_json_schema()
    for name in secret_fields(config):
        schema["properties"][name]["writeOnly"] = True
    return schema


def _is_secret(schema: object, definitions: Mapping[str, Any], seen: set[str]) -> bool:
    if isinstance(schema, list):
        return any(_is_secret(part, definitions, seen) for part in schema)
    if not isinstance(schema, dict):
        return False
    if schema.get("writeOnly") is True:
        return True
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if name and name not in seen:
        seen.add(name)
        return _is_secret(definitions.get(name), definitions, seen)
    return any(_is_secret(part, definitions, seen) for part in schema.values())


def _is_address(field: object) -> bool:
    return '"format": "uri"' in json.dumps(field)
