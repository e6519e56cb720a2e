"""OpenDocument text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from zipfile import ZipFile

from rag_service.parsing.archive import encrypted, open_archive, read_member, read_xml
from rag_service.parsing.office import join_tight
from rag_service.parsing.render import clean, heading, list_item, made_by, one_line, paragraph, pipe_table
from rag_service.types import ParsedDocument

_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_DC_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_MANIFEST = "META-INF/manifest.xml"
_SPACING = {f"{_TEXT}s": " ", f"{_TEXT}tab": "\t", f"{_TEXT}line-break": "\n"}
_UNREAD = frozenset(
    {f"{_TEXT}tracked-changes", f"{_OFFICE}annotation", f"{_TEXT}table-of-content", f"{_TEXT}ruby-text"}
)
_MAX_REPEATED = 100


class OpenText:
    """Headings by outline level, lists, tables; deleted text and comments are left out."""

    media_types = frozenset({"application/vnd.oasis.opendocument.text"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        archive = open_archive(content)
        if _MANIFEST in archive.namelist() and b"encryption-data" in read_member(archive, _MANIFEST):
            raise encrypted("The document is protected with a password.")
        body = read_xml(archive, "content.xml").find(f"{_OFFICE}body")
        blocks = list(_blocks(body)) if body is not None else []
        blocks = blocks or _described(body) + _objects(archive)
        first = next((block[2:] for block in blocks if block.startswith("# ")), None)
        return ParsedDocument(
            text=clean(join_tight(blocks)), title=_meta_title(archive) or first, parser=made_by("lxml")
        )


def _described(body: Any) -> list[str]:
    """What is written about the pictures of a document that has no words of its own."""
    found = body.iter("{*}title", "{*}desc") if body is not None else ()
    return [paragraph(str(each.text)) for each in found if each.text and each.text.strip()]


def _objects(archive: ZipFile) -> list[str]:
    """The formulas and embedded tables of a document that has no words of its own."""
    members = [name for name in archive.namelist() if name.endswith("/content.xml")]
    return [paragraph(" ".join(map(str, read_xml(archive, member).itertext()))) for member in members]


def _meta_title(archive: ZipFile) -> str | None:
    if "meta.xml" not in archive.namelist():
        return None
    return one_line(str(read_xml(archive, "meta.xml").findtext(f".//{_DC_TITLE}") or "")) or None


def _blocks(element: Any, depth: int = -1) -> Iterator[str]:
    """The blocks below `element`; `depth` is that of the list it is in, from 0, else -1."""
    for child in element:
        tag = child.tag
        if tag == f"{_TEXT}h":
            level = str(child.get(f"{_TEXT}outline-level", "1"))
            yield from _block(heading(int(level) if level.isdecimal() else 1, _words(child)), _words(child))
            yield from _framed(child, depth)
        elif tag == f"{_TEXT}p":
            words = _words(child)
            yield from _block(list_item(words, depth) if depth >= 0 else paragraph(words), words)
            yield from _framed(child, depth)
        elif tag == f"{_TEXT}list":
            yield from _blocks(child, depth + 1)
        elif tag == f"{_TABLE}table":
            yield pipe_table(_rows(child))
        elif tag not in _UNREAD:
            yield from _blocks(child, depth)


def _block(block: str, words: str) -> Iterator[str]:
    if words.strip():
        yield block


def _framed(element: Any, depth: int) -> Iterator[str]:
    """Text boxes anchored in a paragraph are blocks of their own."""
    for box in element.iter("{*}text-box"):
        yield from _blocks(box, depth)


def _words(element: Any) -> str:
    """Text of a paragraph in order, without what `_framed` gives."""
    parts = [str(element.text or "")]
    for child in element:
        if child.tag in _SPACING:
            count = str(child.get(f"{_TEXT}c", "1"))
            parts.append(_SPACING[child.tag] * (min(int(count), _MAX_REPEATED) if count.isdecimal() else 1))
        elif child.tag not in _UNREAD and not str(child.tag).endswith(("}frame", "}text-box", "}custom-shape")):
            parts.append(_words(child))
        parts.append(str(child.tail or ""))
    return "".join(parts)


def _rows(table: Any) -> Iterator[list[str]]:
    for row in table.iter(f"{_TABLE}table-row"):
        cells: list[str] = []
        for cell in row.iterchildren(f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell"):
            words = " ".join(_words(each) for each in cell.iter(f"{_TEXT}p", f"{_TEXT}h"))
            repeated = str(cell.get(f"{_TABLE}number-columns-repeated", "1"))
            cells += [words] * (min(int(repeated), _MAX_REPEATED) if repeated.isdecimal() else 1)
        yield cells
