"""Comma- and tab-separated values: one pipe table."""

from __future__ import annotations

import csv
import io
from collections import Counter

from rag_service.parsing.render import corrupt, made_by, pipe_table
from rag_service.parsing.text import decode
from rag_service.types import ParsedDocument

_DELIMITERS = ",;\t|"
_SAMPLE_LINES = 50
_FIELD_CHARACTERS = 16 * 1024 * 1024


class SeparatedValues:
    """The delimiter is the one that gives most lines the same number of fields."""

    media_types = frozenset({"text/csv", "text/tab-separated-values"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        text = decode(content)
        csv.field_size_limit(_FIELD_CHARACTERS)
        try:
            rows = list(_rows(text, _delimiter(text, name)))
        except csv.Error as error:
            raise corrupt(f"The file is not a table of separated values ({error}).") from None
        return ParsedDocument(text=pipe_table(rows), parser=made_by("rag-service"))


def _rows(text: str, delimiter: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))


def _delimiter(text: str, name: str) -> str:
    if name.lower().endswith(".tsv"):
        return "\t"
    sample = "\n".join(text.split("\n", _SAMPLE_LINES)[:_SAMPLE_LINES])
    return max(_DELIMITERS, key=lambda delimiter: _agreement(sample, delimiter))


def _agreement(sample: str, delimiter: str) -> tuple[int, int]:
    """How many rows share the commonest width above one, and that width."""
    widths = Counter(len(row) for row in _rows(sample, delimiter) if len(row) > 1)
    if not widths:
        return 0, 0
    width, rows = widths.most_common(1)[0]
    return rows, width
