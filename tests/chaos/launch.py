"""Starts the service as `rag serve` does, with hostile parsers at hand, or as a broken variant that must be caught."""

from __future__ import annotations

import functools
import sys

import pytest

from rag_service import runtime
from rag_service.__main__ import main
from rag_service.parsing.sandbox import ParserSandbox
from tests.chaos.mutants import MUTANTS
from tests.security.hostile_parsers import types


def _flag(name: str) -> str | None:
    """The value of --name=value, taken out of the arguments."""
    for argument in sys.argv:
        if argument.startswith(f"--{name}="):
            sys.argv.remove(argument)
            return argument.partition("=")[2]
    return None


if __name__ == "__main__":
    if mutant := _flag("mutant"):
        MUTANTS[mutant](pytest.MonkeyPatch())
    if _flag("hostile"):
        hostile = functools.partial(ParserSandbox, extra_parsers=types())
        pytest.MonkeyPatch().setattr(runtime, "ParserSandbox", hostile)
    main()
