"""PDF through pdfium: the text of each page, with page numbers."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from typing import Any

from rag_service.errors import UnsupportedDocument
from rag_service.parsing.archive import encrypted
from rag_service.parsing.render import clean, corrupt, join_blocks, join_pages, made_by, one_line
from rag_service.types import ParsedDocument

# pdfium writes a hyphen that breaks a word at the end of a line as one of these.
_BROKEN_WORD = re.compile("[\x02\ufffe](?:\n|(?=\\w))")
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1f\ufffe\uffff]")
_MAX_ANNOTATIONS = 10_000  # per page
_TRAILING_SPACES = re.compile(r"[ \t]+$", re.MULTILINE)
_MACHINE_TITLE = re.compile(r"(?i)microsoft word - |untitled$|.*\.(docx?|indd|pdf|tex|dvi|ps|pptx?|xlsx?)$")


class Pdf:
    """Layout plain: a PDF says where glyphs stand, not what a heading is."""

    media_types = frozenset({"application/pdf"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        document = _open(content)
        try:
            count = len(document)
            text, pages = join_pages(_pages(document))
            if not text:
                raise _no_text(count)
            return ParsedDocument(text, _title(document), pages, layout="plain", parser=made_by("pypdfium2"))
        finally:
            document.close()


def _open(content: bytes) -> Any:
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise encrypted("The PDF is protected with a password.") from None
        raise corrupt(f"The PDF cannot be opened ({error}).") from None


def _pages(document: Any) -> Iterator[tuple[int, str]]:
    import pypdfium2

    for index in range(len(document)):
        try:
            page = document[index]
        except pypdfium2.PdfiumError:
            continue  # a page that cannot be loaded has no text to give; the others do
        try:
            yield index + 1, join_blocks([_page_text(page), *_annotations(page.raw)])
        finally:
            page.close()


def _page_text(page: Any) -> str:
    textpage = page.get_textpage()
    try:
        raw = clean(textpage.get_text_bounded() or textpage.get_text_range())
    finally:
        textpage.close()
    joined = _NOT_TEXT.sub("", _BROKEN_WORD.sub("", raw))
    return _TRAILING_SPACES.sub("", joined).strip("\n\f ")


def _annotations(page: Any) -> Iterator[str]:
    """Notes, free text and filled-in form fields: what readers of the page see, and its text layer lacks."""
    import pypdfium2.raw as pdfium

    for index in range(min(pdfium.FPDFPage_GetAnnotCount(page), _MAX_ANNOTATIONS)):
        annotation = pdfium.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        try:
            kind = pdfium.FPDFAnnot_GetSubtype(annotation)
            if kind == pdfium.FPDF_ANNOT_WIDGET:
                value = _annotated(annotation, b"V")
                yield f"{_annotated(annotation, b'T')}: {value}" if value else ""
            elif kind not in (pdfium.FPDF_ANNOT_POPUP, pdfium.FPDF_ANNOT_LINK):
                yield _annotated(annotation, b"Contents")
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)


def _annotated(annotation: Any, key: bytes) -> str:
    import pypdfium2.raw as pdfium

    size = pdfium.FPDFAnnot_GetStringValue(annotation, key, None, 0)
    if size <= 2:  # bytes of UTF-16, its terminator included
        return ""
    buffer = ctypes.create_string_buffer(size)
    pdfium.FPDFAnnot_GetStringValue(annotation, key, ctypes.cast(buffer, ctypes.POINTER(pdfium.FPDF_WCHAR)), size)
    return clean(buffer.raw[:-2].decode("utf-16-le", "replace")).strip()


def _title(document: Any) -> str | None:
    title = one_line(clean(document.get_metadata_dict().get("Title", "")))
    return title if title and not _MACHINE_TITLE.match(title) else None


def _no_text(pages: int) -> UnsupportedDocument:
    if not pages:
        return UnsupportedDocument("The PDF has no pages.", code="empty")
    return UnsupportedDocument(
        f"The PDF has {pages} page{'s' if pages > 1 else ''} but no text: scanned, or drawn as pictures. "
        "It needs OCR, which this service does not do; run OCR over it and upload the result.",
        code="empty",
    )
