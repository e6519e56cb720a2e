"""Loaded by schemathesis: makes some of the sources that it invents ones that can be read."""

from __future__ import annotations

import os
from typing import Any

import schemathesis

_MAKE_SOURCES = ("/v1/sources", "/v1/sources/validate")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """A made-up folder is never there, so that nothing would ever be tried with a source that exists."""
    _spare_the_model(case)
    config = case.body.get("config") if isinstance(case.body, dict) else None
    well_formed = case.meta is None or case.meta.generation.mode.is_positive
    if well_formed and case.method == "POST" and case.path in _MAKE_SOURCES and isinstance(config, dict):
        case.body = {**case.body, "type": "files", "config": {"root": os.environ["FUZZ_DOCUMENTS"]}}


def _spare_the_model(case: Any) -> None:
    """A model of its own takes its time to be loaded, and is not what is tried here."""
    pipeline = case.body.get("pipeline") if isinstance(case.body, dict) else None
    embedding = pipeline.get("embedding") if isinstance(pipeline, dict) else None
    if isinstance(embedding, dict) and embedding.get("embedder") == "local":
        embedding["embedder"] = "hashing"
