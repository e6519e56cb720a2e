"""One well-behaved document per format, made on the spot: the same title, headings, list and table in each."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.message import EmailMessage

import docx
import openpyxl
import pptx
from pptx.util import Inches

TITLE = "Staff handbook"
HEADING = "Leave of absence"
PROSE = "Everybody may take unpaid leave after two years."
ITEMS = ("Ask your manager", "Fill in the form")
ROWS = (("Grade", "Days"), ("Junior", "20"), ("Senior", "25"))
TABLE = "| Grade | Days |\n| --- | --- |\n| Junior | 20 |\n| Senior | 25 |"
LIST = "- Ask your manager\n- Fill in the form"


@dataclass(frozen=True)
class Sample:
    """A document, and which of the common parts its format can say."""

    name: str
    make: Callable[[], bytes]
    title: str | None = TITLE
    heading: str | None = f"# {HEADING}"
    listed: str | None = LIST
    table: str | None = TABLE
    engine: str = "rag-service"
    pages: bool = False


def zipped(members: Mapping[str, str | bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in members.items():
            # OpenDocument and EPUB want their first member readable as it is.
            archive.writestr(name, content, zipfile.ZIP_STORED if name == "mimetype" else compression)
    return out.getvalue()


def pdf(pages: Iterable[str], title: str | None = None, annotation: str | None = None) -> bytes:
    """A PDF with one line of Helvetica per line of each page; an empty page has no text at all."""
    texts = list(pages)
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(len(texts)))
    note = f"/Annots [<</Type/Annot/Subtype/Text/Rect[0 0 9 9]/Contents({annotation})>>]" if annotation else ""
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {len(texts)}>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for at, text in enumerate(texts):
        lines = "".join(f"({line}) Tj 0 -14 Td " for line in text.split("\n") if line)
        stream = f"BT /F 12 Tf 72 720 Td {lines}ET"
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]{note}"
            f"/Resources<</Font<</F 3 0 R>>>>/Contents {5 + 2 * at} 0 R>>"
        )
        objects.append(f"<</Length {len(stream)}>>stream\n{stream}\nendstream")
    objects.append(f"<</Title({title})>>" if title else "<<>>")
    return pdf_of_objects(objects, info=len(objects))


def pdf_of_objects(objects: list[str], info: int | None = None, trailer: str = "") -> bytes:
    out = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    properties = f"/Info {info} 0 R" if info else ""
    return out + (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
        f"trailer<</Size {len(objects) + 1}/Root 1 0 R{properties}{trailer}>>\nstartxref\n{len(out)}\n%%EOF"
    ).encode("latin-1")


def word() -> bytes:
    document = docx.Document()
    document.core_properties.title = TITLE
    document.add_heading(HEADING, level=1)
    document.add_paragraph(PROSE)
    for item in ITEMS:
        document.add_paragraph(item, style="List Bullet")
    table = document.add_table(rows=0, cols=2)
    for row in ROWS:
        for cell, text in zip(table.add_row().cells, row, strict=True):
            cell.text = text
    return _saved(document)


def slides() -> bytes:
    presentation = pptx.Presentation()
    presentation.core_properties.title = TITLE
    first = presentation.slides.add_slide(presentation.slide_layouts[1])
    first.shapes.title.text = "Welcome"
    first.placeholders[1].text = "Page one says hello."
    second = presentation.slides.add_slide(presentation.slide_layouts[5])
    second.shapes.title.text = HEADING
    box = second.shapes.add_textbox(Inches(1), Inches(2), Inches(5), Inches(1))
    box.text_frame.text = PROSE
    shape = second.shapes.add_table(3, 2, Inches(1), Inches(4), Inches(5), Inches(1))
    for at, row in enumerate(ROWS):
        for column, text in enumerate(row):
            shape.table.cell(at, column).text = text
    second.notes_slide.notes_text_frame.text = "Mention the works council."
    return _saved(presentation)


def workbook() -> bytes:
    book = openpyxl.Workbook()
    book.properties.title = TITLE
    sheet = book.active
    sheet.title = HEADING
    sheet["A1"] = PROSE
    for at, row in enumerate(ROWS):
        for column, text in enumerate(row):
            sheet.cell(row=3 + at, column=2 + column, value=int(text) if text.isdigit() else text)
    return _saved(book)


def _saved(document: object) -> bytes:
    out = io.BytesIO()
    document.save(out)  # type: ignore[attr-defined]  # the three libraries share the method and no type
    return out.getvalue()


def markdown() -> bytes:
    items = "\n".join(f"- {item}" for item in ITEMS)
    return f"# {TITLE}\n\n# {HEADING}\n\n{PROSE}\n\n{items}\n\n{TABLE}\n".encode()


def html() -> bytes:
    items = "".join(f"<li>{item}</li>" for item in ITEMS)
    rows = "".join(f"<tr><td>{a}</td><td>{b}</td></tr>" for a, b in ROWS)
    return (
        f"<!doctype html><html><head><title>{TITLE}</title><script>steal()</script></head><body>"
        f"<nav><a href='/'>Navigation noise</a></nav><main><h1>{HEADING}</h1><p>{PROSE}</p>"
        f"<ul>{items}</ul><table>{rows}</table></main></body></html>"
    ).encode()


def rst() -> bytes:
    items = "\n".join(f"* {item}" for item in ITEMS)
    rows = "\n".join(f"{a:6}  {b:4}" for a, b in ROWS[1:])
    table = f"======  ====\nGrade   Days\n======  ====\n{rows}\n======  ===="
    return f":Title: {TITLE}\n\n{HEADING}\n{'=' * len(HEADING)}\n\n{PROSE}\n\n{items}\n\n{table}\n".encode()


def mail() -> bytes:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = TITLE, "ann@example.com", "bob@example.com"
    message.set_content(PROSE)
    message.add_attachment(b"\0\1", maintype="application", subtype="octet-stream", filename="form.bin")
    return message.as_bytes()


def epub() -> bytes:
    chapter = html().decode().replace("<!doctype html><html>", '<html xmlns="http://www.w3.org/1999/xhtml">')
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": (
                '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
                '<rootfile full-path="book/content.opf"/></rootfiles></container>'
            ),
            "book/content.opf": (
                '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
                f"<metadata><dc:title>{TITLE}</dc:title></metadata><manifest>"
                '<item id="c" href="chapter%201.xhtml" media-type="application/xhtml+xml"/></manifest>'
                '<spine><itemref idref="c"/></spine></package>'
            ),
            "book/chapter 1.xhtml": chapter,
        }
    )


def odt() -> bytes:
    items = "".join(f"<text:list-item><text:p>{item}</text:p></text:list-item>" for item in ITEMS)
    cell = "<table:table-cell><text:p>{}</text:p></table:table-cell>".format
    rows = "".join(f"<table:table-row>{cell(a)}{cell(b)}</table:table-row>" for a, b in ROWS)
    spaces = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text", "table")
    )
    prose = PROSE.replace("two years", "two<text:s/>years")
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": (
                f"<office:document-content {spaces}><office:body><office:text>"
                f'<text:h text:outline-level="1">{HEADING}</text:h><text:p>{prose}</text:p>'
                f"<text:list>{items}</text:list><table:table>{rows}</table:table>"
                "</office:text></office:body></office:document-content>"
            ),
            "meta.xml": f'<m xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{TITLE}</dc:title></m>',
        }
    )


def rtf() -> bytes:
    rows = "".join(f"\\trowd {a}\\cell {b}\\cell\\row\n" for a, b in ROWS)
    return f"{{\\rtf1\\ansi{{\\info{{\\title {TITLE}}}}}\n{HEADING}\\par\n{PROSE}\\par\n{rows}}}".encode()


def csv() -> bytes:
    return "\n".join(";".join(row) for row in ROWS).encode()


def json_object() -> bytes:
    return json.dumps({"title": TITLE, "topic": HEADING, "text": PROSE}).encode()


SAMPLES = (
    Sample("handbook.md", markdown),
    Sample("handbook.txt", PROSE.encode, title=None, heading=None, listed=None, table=None),
    Sample("rules.py", f"# {PROSE}\n".encode, title=None, heading=None, listed=None, table=None),
    Sample("handbook.rst", rst),
    Sample("handbook.html", html, engine="lxml"),
    Sample(
        "handbook.pdf",
        lambda: pdf(["Page one says hello.", "", f"{HEADING}\n{PROSE}"], title=TITLE),
        heading=None, listed=None, table=None, engine="pypdfium2", pages=True,
    ),
    Sample("handbook.docx", word, engine="unstructured"),
    Sample("handbook.pptx", slides, heading=f"## {HEADING}", listed=None, engine="unstructured", pages=True),
    Sample("handbook.xlsx", workbook, heading=f"## {HEADING}", listed=None, engine="openpyxl"),
    Sample("grades.csv", csv, title=None, heading=None, listed=None),
    Sample("grades.tsv", lambda: csv().replace(b";", b"\t"), title=None, heading=None, listed=None),
    Sample("handbook.eml", mail, heading=f"# {TITLE}", listed=None, table=None),
    Sample("handbook.epub", epub, engine="lxml"),
    Sample("handbook.odt", odt, engine="lxml"),
    Sample("handbook.rtf", rtf, heading=None, listed=None, engine="striprtf"),
    Sample("handbook.json", json_object, heading=None, listed=None, table=None),
    Sample("handbook.jsonl", json_object, title=None, heading=None, listed=None, table=None),
)  # fmt: skip
