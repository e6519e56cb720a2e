"""Measurements as a file beside the printed table, for reports and gates: a JSON list of rows."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def add_json_option(arguments: argparse.ArgumentParser) -> None:
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the measurements there as well")


def write(file: Path | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep `rows`; nothing happens without a file."""
    if file is not None:
        file.write_text(json.dumps(list(rows), indent=2) + "\n", encoding="utf-8")


def read(file: Path) -> list[dict[str, Any]]:
    """The rows that a benchmark wrote; none where it wrote no file."""
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return rows
