"""Word and PowerPoint through unstructured, whose elements become Markdown here."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any
from zipfile import ZipFile

from rag_service.parsing.archive import core_title, open_archive, read_xml
from rag_service.parsing.html import to_markdown
from rag_service.parsing.render import (
    clean,
    corrupt,
    heading,
    join_blocks,
    join_pages,
    list_item,
    made_by,
    one_line,
    paragraph,
)
from rag_service.parsing.word_markup import unwrapped
from rag_service.types import ParsedDocument

_TEXT_PARTS = re.compile(
    r"(word/(document|footnotes|endnotes|comments)|ppt/(slides|diagrams|charts|comments)/[^/]+"
    r"|(word|xl)/(charts|diagrams|drawings)/[^/]+)\.xml\Z"
)
_FILE_NAME = re.compile(r"\.\w{3,4}\Z")
_ALTERNATIVE_PARTS = re.compile(r"word/(.+/)?[^/]+\.(html?|mht|xhtml)\Z", re.IGNORECASE)
_MAIN_PARTS = {"docx": "word/document.xml", "pptx": "ppt/presentation.xml", "xlsx": "xl/workbook.xml"}


class Word:
    """Headings are the paragraphs that are styled so; nothing is guessed from how a paragraph reads."""

    media_types = frozenset({"application/vnd.openxmlformats-officedocument.wordprocessingml.document"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        archive = open_package(content, "docx")
        text = join_tight(_word_blocks(_word_elements(content)))
        first = next((line[2:] for line in text.split("\n") if line.startswith("# ")), None)
        return ParsedDocument(
            text=clean(text) or loose_text(archive),
            title=core_title(archive) or first,
            parser=made_by("unstructured"),
        )


class Slides:
    """One page per slide; its title is a heading of level 2, the speaker's notes come last."""

    media_types = frozenset({"application/vnd.openxmlformats-officedocument.presentationml.presentation"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        archive = open_package(content, "pptx")
        elements, notes = _slide_elements(content)
        slides = dict.fromkeys(sorted(notes), "")
        for number, group in groupby(elements, key=lambda element: int(element.metadata.page_number)):
            slides[number] = _slide(list(group))
        blocks = ((at, join_blocks([slides[at], _notes(notes.get(at, ""))])) for at in sorted(slides))
        text, pages = join_pages((at, clean(block)) for at, block in blocks)
        titles = (one_line(each.text) for each in elements if _is_slide_title(each))
        return ParsedDocument(
            text=text or loose_text(archive),
            title=core_title(archive) or next(titles, None),
            pages=pages,
            parser=made_by("unstructured"),
        )


def open_package(content: bytes, kind: str) -> ZipFile:
    """The checked container of an Office file of `kind` (docx, pptx, xlsx)."""
    archive = open_archive(content)
    names = set(archive.namelist())
    if _MAIN_PARTS[kind] not in names and "[Content_Types].xml" not in names:
        raise corrupt(f"The file is a zip container, but no {kind}.")
    return archive


def loose_text(archive: ZipFile) -> str:
    """Every run of text in drawings, charts, notes and embedded pages: for files whose body has none."""
    blocks: list[str] = []
    for member in archive.namelist():
        if _TEXT_PARTS.match(member):
            blocks += _runs_by_paragraph(read_xml(archive, member))
        elif _ALTERNATIVE_PARTS.match(member):
            blocks.append(to_markdown(archive.read(member))[0])
    return clean(join_blocks(blocks))


def join_tight(blocks: Iterable[str]) -> str:
    """Blocks apart by a blank line, neighbouring list items by a line break only."""
    text = ""
    before = ""
    for block in blocks:
        tight = before.lstrip().startswith("- ") and block.lstrip().startswith("- ")
        text = f"{text}{chr(10) if tight else chr(10) * 2}{block}" if text else block
        before = block
    return text


def _runs_by_paragraph(root: Any) -> Iterator[str]:
    for element in root.iter("{*}p", "{*}pt"):
        words = "".join(str(run.text or "") for run in element.iter("{*}t", "{*}v"))
        if words.strip():
            yield paragraph(words)
    # What is written about pictures; a program fills in the file name by itself, which says nothing.
    for described in root.iter("{*}docPr", "{*}cNvPr"):
        words = str(described.get("descr", ""))
        if words.strip() and not _FILE_NAME.search(words.strip()):
            yield paragraph(words)


def _word_elements(content: bytes) -> list[Any]:
    # Seconds to import, and most children never meet an Office file.
    from unstructured.partition import docx

    _guess_nothing(docx)
    try:
        return list(docx.partition_docx(file=io.BytesIO(unwrapped(content)), languages=[""], include_page_breaks=False))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise corrupt(f"The Word document cannot be read ({one_line(str(error))[:200]}).") from error


def _slide_elements(content: bytes) -> tuple[list[Any], dict[int, str]]:
    """The elements of all slides, and the speaker's notes by slide number (from 1)."""
    from pptx import Presentation
    from unstructured.partition import pptx

    _guess_nothing(pptx)
    try:
        elements = list(pptx.partition_pptx(file=io.BytesIO(content), languages=[""], include_page_breaks=False))
        slides = enumerate(Presentation(io.BytesIO(content)).slides, 1)
        notes = {at: slide.notes_slide.notes_text_frame for at, slide in slides if slide.has_notes_slide}
        return elements, {number: str(frame.text) for number, frame in notes.items() if frame is not None}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise corrupt(f"The presentation cannot be read ({one_line(str(error))[:200]}).") from error


def _guess_nothing(partitioner: Any) -> None:
    """Switch off unstructured's guess at what loose paragraphs are, made from how they read.

    We take headings from styles and placeholders alone. The guess costs a quarter of the time, and downloads an
    English spaCy model at its first use; should anything else ask for that model, it gets a blank one.
    """
    import spacy
    from unstructured.nlp import tokenize

    def blank() -> Any:
        model = spacy.blank("en")
        model.add_pipe("sentencizer")
        return model

    tokenize._load_spacy_model = blank
    for guess in ("is_possible_narrative_text", "is_possible_title"):
        if hasattr(partitioner, guess):
            setattr(partitioner, guess, lambda *_, **__: False)


def _word_blocks(elements: Iterable[Any]) -> Iterator[str]:
    for element in elements:
        depth = element.metadata.category_depth or 0
        if element.category == "Title":
            yield heading(depth + 1, element.text)
        elif element.category == "ListItem":
            yield list_item(element.text, depth)
        elif element.category == "Table":
            yield _table(element)
        elif element.text.strip():
            yield paragraph(element.text)


def _slide(elements: Sequence[Any]) -> str:
    titles = [element for element in elements if _is_slide_title(element)]
    head = [heading(2, " ".join(each.text for each in titles))] if titles else []
    body = (_slide_block(element) for element in elements if element not in titles)
    return join_tight([*head, *(block for block in body if block)])


def _notes(words: str) -> str:
    return paragraph(f"Notes: {words}") if words.strip() else ""


def _slide_block(element: Any) -> str:
    if element.category == "Table":
        return _table(element)
    if element.category == "ListItem":
        return list_item(element.text, element.metadata.category_depth or 0)
    return paragraph(element.text.replace("\v", "\n"))


def _is_slide_title(element: Any) -> bool:
    """Depth 0 is the title placeholder; deeper "titles" are unstructured's guess about any short text."""
    return bool(element.category == "Title" and element.metadata.category_depth == 0)


def _table(element: Any) -> str:
    markup = element.metadata.text_as_html
    return to_markdown(markup)[0] if markup else paragraph(element.text)
