"""Word documents: what a reader sees on the page is in the text, however Word wraps it."""

from __future__ import annotations

import io

import docx
import pytest
from docx.opc.constants import CONTENT_TYPE, RELATIONSHIP_TYPE
from docx.opc.packuri import PackURI
from docx.opc.part import Part
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from rag_service.parsing.office import Word

NAMES = f'{nsdecls("w")} xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
SEEN = "<w:r><w:t>seen</w:t></w:r>"
BOX = f"<w:txbxContent><w:p>{SEEN}</w:p><w:p><w:r><w:t>twice</w:t></w:r></w:p></w:txbxContent>"
DRAWN = f"<mc:Choice Requires='wps'><w:drawing>{BOX}</w:drawing></mc:Choice>"
DRAWN_FOR_OLD_PROGRAMS = f"<mc:Fallback><w:pict>{BOX}</w:pict></mc:Fallback>"


def word(body: str, notes: str = "") -> str:
    document = docx.Document()
    if notes:
        package, type_ = document.part.package, CONTENT_TYPE.WML_FOOTNOTES
        part = Part(
            PackURI("/word/footnotes.xml"), type_, f"<w:footnotes {NAMES}>{notes}</w:footnotes>".encode(), package
        )
        document.part.relate_to(part, RELATIONSHIP_TYPE.FOOTNOTES)
    for block in parse_xml(f"<w:body {NAMES}>{body}</w:body>"):
        document.element.body.insert_element_before(block, "w:sectPr")
    out = io.BytesIO()
    document.save(out)
    return Word().parse(out.getvalue(), "a.docx").text


def paragraph(inner: str) -> str:
    return f'<w:p><w:r><w:t xml:space="preserve">It is </w:t></w:r>{inner}<w:r><w:t>.</w:t></w:r></w:p>'


@pytest.mark.parametrize(
    "wrapped",
    [
        f"<w:ins>{SEEN}</w:ins>",
        f"<w:moveTo>{SEEN}</w:moveTo>",
        f"<w:sdt><w:sdtPr><w:text/></w:sdtPr><w:sdtContent>{SEEN}</w:sdtContent></w:sdt>",
        f'<w:fldSimple w:instr="AUTHOR">{SEEN}</w:fldSimple>',
        f"<w:smartTag><w:smartTagPr/>{SEEN}</w:smartTag>",
        f"<w:customXml>{SEEN}</w:customXml>",
        f"<w:dir>{SEEN}</w:dir>",
        f"<w:hyperlink><w:ins>{SEEN}</w:ins></w:hyperlink>",
        f"<w:sdt><w:sdtContent><w:ins><w:smartTag>{SEEN}</w:smartTag></w:ins></w:sdtContent></w:sdt>",
    ],
)
def test_what_is_wrapped_within_a_paragraph_is_part_of_it(wrapped: str) -> None:
    assert word(paragraph(wrapped)) == "It is seen."


def test_what_was_deleted_or_moved_away_is_gone() -> None:
    gone = "<w:del><w:r><w:delText>old</w:delText></w:r></w:del><w:moveFrom><w:r><w:t>old</w:t></w:r></w:moveFrom>"
    assert word(paragraph(f"{gone}<w:ins>{SEEN}<w:del>{SEEN}</w:del></w:ins>")) == "It is seen."


def control(inner: str, properties: str = "") -> str:
    return f"<w:sdt><w:sdtPr>{properties}</w:sdtPr><w:sdtContent>{inner}</w:sdtContent></w:sdt>"


def test_a_control_may_hold_paragraphs_rows_and_what_is_in_cells() -> None:
    block = control(f"<w:p>{SEEN}</w:p>")
    head = f"<w:tr><w:tc>{block}</w:tc>{control(f'<w:tc><w:p>{SEEN}</w:p></w:tc>')}</w:tr>"
    row = control(f"<w:tr><w:tc>{block}</w:tc><w:tc>{block}</w:tc></w:tr>")
    table = f"<w:tbl><w:tblPr/><w:tblGrid><w:gridCol/><w:gridCol/></w:tblGrid>{head}{row}</w:tbl>"
    assert word(block + table) == "seen\n\n| seen | seen |\n| --- | --- |\n| seen | seen |"


def test_of_all_controls_only_the_table_of_contents_says_nothing_new() -> None:
    gallery = "<w:docPartObj><w:docPartGallery w:val='{}'/></w:docPartObj>"
    contents = control("<w:p><w:r><w:t>Scope 3</w:t></w:r></w:p>", gallery.format("Table of Contents"))
    assert word(contents + control(f"<w:p>{SEEN}</w:p>", gallery.format("Cover Pages"))) == "seen"


@pytest.mark.parametrize(
    "drawn",
    [
        f"<w:pict>{BOX}</w:pict>",
        f"<w:drawing>{BOX}</w:drawing>",
        f"<mc:AlternateContent>{DRAWN}{DRAWN_FOR_OLD_PROGRAMS}</mc:AlternateContent>",
    ],
)
def test_a_text_box_follows_the_paragraph_that_anchors_it_once(drawn: str) -> None:
    text = word(paragraph(f"<w:r>{drawn}</w:r>") + f"<w:p>{SEEN}</w:p>")
    assert text == "It is .\n\nseen\n\ntwice\n\nseen"


def test_a_footnote_follows_the_paragraph_that_cites_it_once() -> None:
    cited = '<w:r><w:footnoteReference w:id="{}"/></w:r>'
    notes = "".join(f'<w:footnote w:id="{at}"><w:p><w:ins>{SEEN}</w:ins></w:p></w:footnote>' for at in (1, 2))
    text = word(paragraph(cited.format(2)) + paragraph(cited.format(7)) + paragraph(cited.format(2)), notes)
    assert text == "It is .\n\nIt is .\n\nIt is .\n\nseen"
