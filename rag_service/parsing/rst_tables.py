"""The two table forms of reStructuredText that are drawn with characters: grid and simple."""

from __future__ import annotations

import re

from rag_service.parsing.render import pipe_table

_GRID_RULE = re.compile(r"\s*\+(?:[-=]+\+)+\Z")
_SIMPLE_RULE = re.compile(r"=+(?: +=+)+\Z")
_SUB_RULE = re.compile(r"[-=]+(?: +[-=]+)*\Z")


def read_table(lines: list[str], at: int) -> tuple[str, int] | None:
    """The table that begins at line `at` as a pipe table, and the line after it; None when there is none."""
    if _GRID_RULE.match(lines[at]):
        end = at
        while end < len(lines) and lines[end].lstrip()[:1] in ("+", "|"):
            end += 1
        return pipe_table(_grid_rows([line.strip() for line in lines[at:end]])), end
    if _SIMPLE_RULE.match(lines[at]):
        after = _simple_end(lines, at)
        if after is not None:
            return pipe_table(_simple_rows(lines[at:after])), after
    return None


def _grid_rows(lines: list[str]) -> list[list[str]]:
    rows: list[list[str]] = []
    parts: list[list[str]] = []
    for line in lines:
        if _GRID_RULE.match(line):
            if parts:
                rows.append([" ".join(cell) for cell in parts])
            parts = []
            continue
        cells = [cell.strip() for cell in line.strip("|+").split("|")]
        parts += [[] for _ in range(len(cells) - len(parts))]
        for cell, words in zip(parts, cells, strict=False):
            cell.append(words)
    return [*rows, [" ".join(cell) for cell in parts]] if parts else rows


def _simple_end(lines: list[str], at: int) -> int | None:
    """A simple table has two or three rules; it ends after the last one that a blank line or the end follows."""
    for index in range(at + 1, len(lines)):
        if _SIMPLE_RULE.match(lines[index]) and (index + 1 == len(lines) or not lines[index + 1]):
            return index + 1
    return None


def _simple_rows(lines: list[str]) -> list[list[str]]:
    starts = [match.start() for match in re.finditer(r"=+", lines[0])]
    spans = list(zip(starts, [*starts[1:], None], strict=True))
    rows: list[list[str]] = []
    for line in lines[1:]:
        if not line.strip() or _SUB_RULE.match(line.strip()):
            continue
        cells = [line[start:end].strip() for start, end in spans]
        if cells[0] or not rows:
            rows.append(cells)
        else:  # an empty first column continues the row above
            rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)]
    return rows
