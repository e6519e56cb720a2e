"""Runs `rag` with the guarded source type; --leak makes one of the broken variants that the canaries must catch."""

from __future__ import annotations

import logging
import sys

import pytest

import connectors
from rag_service.__main__ import main
from rag_service.cli import process
from rag_service.ingest import credentials
from rag_service.runtime import variants
from rag_service.settings import Settings
from tests import guarded_source


def log_settings(settings: Settings) -> Settings:
    """Settings in the log, for debugging."""
    shown = {name: str(getattr(settings, name)) for name in Settings.model_fields}
    for name in ("admin_key", "embedding_api_key"):
        shown[name] = getattr(settings, name).get_secret_value()
    logging.getLogger("rag_service").warning("starting with %s", shown)
    return settings


def break_it(how: str) -> None:
    replace = pytest.MonkeyPatch().setattr
    if how == "log":
        read = process.read_settings
        replace(process, "read_settings", lambda: log_settings(read()))
    elif how == "plain":
        replace(credentials, "secret_fields", lambda _config: frozenset())
    elif how == "told":
        replace(variants, "discreet", lambda make, _hidden: make())
    else:
        raise ValueError(how)


if __name__ == "__main__":
    connectors.REGISTRY[guarded_source.TYPE] = guarded_source.PLACE
    if "--leak" in sys.argv:
        place = sys.argv.index("--leak")
        break_it(sys.argv[place + 1])
        del sys.argv[place : place + 2]
    main()
