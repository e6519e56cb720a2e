"""What Word wraps around text, taken off: the partitioner reads paragraphs, runs and tables, and passes by all else."""

from __future__ import annotations

import io
from typing import Any

from rag_service.parsing.archive import parse_xml

_WRAPPERS = (
    "{*}ins", "{*}moveTo", "{*}sdt", "{*}sdtContent", "{*}fldSimple", "{*}smartTag", "{*}customXml", "{*}dir", "{*}bdo",
)  # fmt: skip
_SILENT = ("{*}del", "{*}moveFrom", "{*}sdtPr", "{*}sdtEndPr", "{*}customXmlPr", "{*}smartTagPr")
_REPEATED = "{*}Fallback"  # for old programs, what stands before it
_CONTENTS = "//w:sdt[w:sdtPr/w:docPartObj/w:docPartGallery/@w:val='Table of Contents']"  # the headings once more
_BOXES = "//w:txbxContent[ancestor::w:p]"
_ID = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}id"
_NOTES = ("footnote", "endnote")
_CITED = [f"{{*}}{kind}Reference" for kind in _NOTES]


def unwrapped(content: bytes) -> bytes:
    """The document with tracked changes accepted, and its controls, fields, text boxes and notes as paragraphs."""
    from docx import Document

    document = Document(io.BytesIO(content))
    root = document.element
    if next(root.iter(*_WRAPPERS, *_SILENT, *_CITED, "{*}txbxContent"), None) is None:
        return content
    _leave_out([*root.xpath(_CONTENTS), *root.iter(*_SILENT, _REPEATED)])
    for kind in _NOTES:
        _take_in_notes(document, kind)
    for wrapper in list(root.iter(*_WRAPPERS)):
        for child in list(wrapper):
            wrapper.addprevious(child)
        _leave_out([wrapper])
    for box in reversed(root.xpath(_BOXES)):
        _put_after_paragraph(box, box)
    saved = io.BytesIO()
    document.save(saved)
    return saved.getvalue()


def _take_in_notes(document: Any, kind: str) -> None:
    parts = [each for each in document.part.rels.values() if each.reltype.endswith(f"/{kind}s")]
    roots = [parse_xml(each.target_part.blob, f"{kind}s") for each in parts if not each.is_external]
    notes = {note.get(_ID): note for root in roots for note in root}
    for cited in reversed(document.element.xpath(f"//w:{kind}Reference[ancestor::w:p]")):
        note = notes.pop(cited.get(_ID), None)  # once, however often a hostile file cites it
        if note is not None:
            _put_after_paragraph(cited, note)


def _put_after_paragraph(within: Any, blocks: Any) -> None:
    paragraph = next(within.iterancestors("{*}p"))
    for block in reversed(list(blocks)):
        paragraph.addnext(block)


def _leave_out(elements: list[Any]) -> None:
    for element in elements:
        element.getparent().remove(element)
