"""Log lines: JSON for machines or text for people, each naming the work it belongs to.

Lines hold ids, counts, times and codes. What went wrong is told by the types and places of an exception, never by its
message: messages of libraries quote what they were given, and that may be a document, a question or a key.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from rag_service.observe import context, spans

Format = Literal["auto", "json", "text"]

OURS = ("rag_service", "workers", "connectors")
_FRAMES = 12
_CHAIN = 5


def fields(**known: object) -> dict[str, dict[str, object]]:
    """What a line says beside its message: `log.info("answered", extra=fields(hits=3))`. What is None is left out."""
    return {"fields": {name: value for name, value in known.items() if value is not None}}


def start(level: str, form: Format, stream: TextIO | None = None) -> None:
    """One line per event on `stream` (stderr): ours from `level` up, those of libraries from warnings up.

    `auto` writes text on a terminal and JSON elsewhere. What was set up before is replaced.
    """
    stream = stream or sys.stderr
    json_lines = form == "json" or (form == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if json_lines else TextLines())
    wanted = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(wanted, logging.WARNING), handlers=[handler], force=True)
    for ours in OURS:
        logging.getLogger(ours).setLevel(wanted)


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_known(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = described(record.exc_info[1])
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """The same for people: `time LEVEL logger: message name=value ...`; an exception takes lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        said = " ".join([record.getMessage(), *(f"{name}={value}" for name, value in _known(record).items())])
        lines = [f"{_time(record)} {record.levelname} {record.name}: {_on_one_line(said)}"]
        if record.exc_info and record.exc_info[1] is not None:
            for error in described(record.exc_info[1]):
                lines += [f"  {error['type']}", *(f"    {place}" for place in error["at"])]
        return "\n".join(lines)


def described(error: BaseException) -> list[dict[str, Any]]:
    """An exception and what it came from: each with its type and the innermost places it passed, without messages.

    A failure of the operating system says which one it is.
    """
    chain: list[dict[str, Any]] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < _CHAIN:
        frames = traceback.extract_tb(cause.__traceback__)[-_FRAMES:]
        kind = f"{type(cause).__module__}.{type(cause).__qualname__}".removeprefix("builtins.")
        if isinstance(cause, OSError) and cause.strerror:
            kind = f"{kind} ({cause.strerror})"
        chain.append({"type": kind, "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]})
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return chain


def _known(record: logging.LogRecord) -> Mapping[str, object]:
    return {**context.current(), **spans.current_ids(), **getattr(record, "fields", {})}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _on_one_line(text: str) -> str:
    """Nobody who names a thing with a line break in it can write a line of the log."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
