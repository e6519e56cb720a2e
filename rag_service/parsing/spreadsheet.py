"""Excel workbooks through openpyxl: a heading per sheet, a pipe table per block of rows."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time
from itertools import groupby
from typing import Any
from zipfile import BadZipFile

from rag_service.parsing.archive import core_title
from rag_service.parsing.office import loose_text, open_package
from rag_service.parsing.render import clean, corrupt, heading, join_blocks, made_by, one_line, paragraph, pipe_table
from rag_service.types import ParsedDocument


class Workbook:
    """Values as last calculated, not formulas. Rows apart by an empty one are tables apart."""

    media_types = frozenset({"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        archive = open_package(content, "xlsx")
        text = clean(join_blocks(_sheets(content))) or loose_text(archive)
        return ParsedDocument(text=text, title=core_title(archive), parser=made_by("openpyxl"))


def _sheets(content: bytes) -> Iterator[str]:
    from openpyxl import load_workbook

    try:
        workbook = load_workbook(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
        for sheet in workbook.worksheets:
            # The declared dimensions may be wrong, and may promise 16,384 columns.
            sheet.reset_dimensions()
            blocks = list(_blocks(sheet.iter_rows(values_only=True)))
            if blocks:
                yield join_blocks([heading(2, sheet.title), *blocks])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, SyntaxError, BadZipFile, OSError) as error:
        raise corrupt(f"The workbook cannot be read ({one_line(str(error))[:200]}).") from error


def _blocks(rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    texts = ([_cell(value) for value in row] for row in rows)
    for filled, block in groupby(texts, key=any):
        if filled:
            yield _block(list(block))


def _block(rows: list[list[str]]) -> str:
    """One cell per row is prose, or a label; anything wider is a table."""
    cells = [[text for text in row if text] for row in rows]
    if all(len(row) == 1 for row in cells):
        return paragraph("\n".join(row[0] for row in cells))
    return pipe_table(rows)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime) and value.time() == time.min:
        return value.date().isoformat()
    if isinstance(value, datetime | date | time):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    if isinstance(value, float):
        return f"{value:.15g}"
    return one_line(str(value))
