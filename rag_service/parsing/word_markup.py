"""What Word wraps around text, taken off: the partitioner reads paragraphs, runs and tables, and passes by all else."""

from __future__ import annotations

import io
from typing import Any

_WRAPPERS = (
    "{*}ins", "{*}moveTo", "{*}sdt", "{*}sdtContent", "{*}fldSimple", "{*}smartTag", "{*}customXml", "{*}dir", "{*}bdo",
)  # fmt: skip
_SILENT = ("{*}del", "{*}moveFrom", "{*}sdtPr", "{*}sdtEndPr", "{*}customXmlPr", "{*}smartTagPr")
_REPEATED = "{*}Fallback"  # for old programs, what stands before it
_CONTENTS = "//w:sdt[w:sdtPr/w:docPartObj/w:docPartGallery/@w:val='Table of Contents']"  # the headings once more
_BOXES = "//w:txbxContent[ancestor::w:p]"


def unwrapped(content: bytes) -> bytes:
    """The document with its tracked changes accepted, and its controls, fields and text boxes as plain paragraphs."""
    from docx import Document

    document = Document(io.BytesIO(content))
    root = document.element
    if next(root.iter(*_WRAPPERS, *_SILENT, "{*}txbxContent"), None) is None:
        return content
    _leave_out([*root.xpath(_CONTENTS), *root.iter(*_SILENT, _REPEATED)])
    for wrapper in list(root.iter(*_WRAPPERS)):
        for child in list(wrapper):
            wrapper.addprevious(child)
        _leave_out([wrapper])
    for box in reversed(root.xpath(_BOXES)):
        anchor = next(box.iterancestors("{*}p"))
        for block in reversed(list(box)):
            anchor.addnext(block)
    saved = io.BytesIO()
    document.save(saved)
    return saved.getvalue()


def _leave_out(elements: list[Any]) -> None:
    for element in elements:
        element.getparent().remove(element)
