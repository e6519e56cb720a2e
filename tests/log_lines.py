"""The log of a running service as machines read it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rag_service.observe.logs import OURS, JsonLines


class LogLines:
    """What was written so far; `raw` is every byte of it."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def raw(self) -> str:
        return self._stream.getvalue()

    def saying(self, message: str, **known: object) -> list[dict[str, Any]]:
        """Lines with this message and these fields, oldest first."""
        lines = [json.loads(line) for line in self.raw.splitlines()]
        return [line for line in lines if line["message"] == message and line.items() >= known.items()]


@contextmanager
def log_lines(level: int = logging.INFO) -> Iterator[LogLines]:
    """What `logs.start(level)` lets through while the block runs, beside where it goes else."""
    stream, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.partition(".")[0] in OURS)
    before = [(logger, logger.level) for logger in map(logging.getLogger, OURS)]
    root.addHandler(handler)
    for logger, _ in before:
        logger.setLevel(level)
    try:
        yield LogLines(stream)
    finally:
        root.removeHandler(handler)
        for logger, former in before:
            logger.setLevel(former)
