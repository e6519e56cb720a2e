"""Connectors: one source type each, found by name and imported only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from connectors.base import Connector
from connectors.errors import FatalSourceError

REGISTRY: dict[str, str] = {
    "files": "connectors.files:FilesConnector",
}


def load(type_name: str) -> type[Connector]:
    """The connector class of a source type. Raises FatalSourceError for an unknown type."""
    if type_name not in REGISTRY:
        known = ", ".join(sorted(REGISTRY))
        raise FatalSourceError(
            f"There is no source type {type_name!r}. Use one of: {known}.", code="unknown_source_type"
        )
    module, _, name = REGISTRY[type_name].partition(":")
    return cast(type[Connector], getattr(import_module(module), name))


def create(type_name: str, config: Mapping[str, Any]) -> Connector:
    """A connector over `config`, which is validated first; nothing is opened.

    Raises FatalSourceError (code invalid_config) that names every wrong field and never repeats a given value.
    """
    connector = load(type_name)
    try:
        checked = connector.Config.model_validate(dict(config))
    except ValidationError as error:
        raise FatalSourceError(_explain(type_name, connector.Config, error), code="invalid_config") from None
    return cast(Callable[[BaseModel], Connector], connector)(checked)


def _explain(type_name: str, config: type[BaseModel], error: ValidationError) -> str:
    """One sentence per problem. Only names and rules are told: a value might be a secret."""
    problems = []
    for problem in error.errors(include_input=False, include_context=False, include_url=False):
        field = ".".join(str(part) for part in problem["loc"]) or "config"
        if problem["type"] == "extra_forbidden":
            problems.append(f"{field} is not a field of it (its fields: {', '.join(config.model_fields)})")
        elif problem["type"] == "tuple_type":
            problems.append(f'{field}: Input should be a list, such as ["a", "b"]')
        else:
            problems.append(f"{field}: {problem['msg'].removeprefix('Value error, ')}")
    return f"This is not a valid configuration of a {type_name} source. {'; '.join(problems)}."
