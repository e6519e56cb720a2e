"""Mail, zip containers, OpenDocument, RTF and workbooks: the odd ends that the contract suite does not reach."""

from __future__ import annotations

import io
import zipfile
from datetime import date, datetime, time

import openpyxl
import pytest

from rag_service.errors import UnsupportedDocument
from rag_service.parsing import archive
from rag_service.parsing.archive import core_title, open_archive, read_xml
from rag_service.parsing.mail import Mail
from rag_service.parsing.odt import OpenText
from rag_service.parsing.registry import parse
from rag_service.parsing.rtf import Rtf
from rag_service.parsing.spreadsheet import Workbook
from rag_service.types import ParsedDocument
from tests.contracts.parser_samples import zipped


class Careless:
    media_types = frozenset({"test/careless"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        if content == b"0":
            raise ZeroDivisionError("division by nothing")
        return ParsedDocument(text="a\0b\ud800c", title="t\ud800")


def mail(source: str) -> str:
    return Mail().parse(source.encode(), "a.eml").text


def test_html_mail_is_read_when_there_is_no_plain_text() -> None:
    text = mail("Subject: Hi\nContent-Type: text/html; charset=utf-8\n\n<p>Hello <b>you</b></p><script>x</script>\n")
    assert text == "# Hi\n\nHello you"


def test_the_plain_part_is_preferred() -> None:
    text = mail(
        "Subject: Hi\nContent-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/plain\n\nplain words\n"
        "--b\nContent-Type: text/html\n\n<p>html words</p>\n--b--\n"
    )
    assert "plain words" in text
    assert "html words" not in text


def test_only_of_alternatives_one_is_read() -> None:
    text = mail(
        "Subject: Hi\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nplain words\n"
        "--b\nContent-Type: text/html\n\n<p>html words</p>\n"
        "--b\nContent-Type: multipart/alternative; boundary=c\n\n--c\nContent-Type: text/plain\n\n \n"
        "--c\nContent-Type: text/html\n\n<p>the only ones</p>\n--c--\n--b\n\nthe foot\n--b--\n"
    )
    assert text == "# Hi\n\nplain words\n\nhtml words\n\nthe only ones\n\nthe foot"


def test_a_body_with_a_name_is_no_attachment() -> None:
    assert mail('Subject: Hi\nContent-Type: text/plain; name="body.txt"\n\nThe rules.\n') == "# Hi\n\nThe rules."


def test_headers_are_decoded_and_attachments_only_named() -> None:
    text = mail(
        "From: =?utf-8?q?J=C3=BCrgen?= <j@x.org>\nSubject: =?iso-8859-1?q?Gr=F6=DFe?=\n"
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nbody\n"
        '--b\nContent-Type: text/plain\nContent-Disposition: attachment; filename="../../secret.txt"\n\n'
        "hidden words\n--b--\n"
    )
    assert text.startswith("# Größe\n\nFrom: Jürgen <j@x.org>")
    assert text.endswith("Attachments: ../../secret.txt")
    assert "hidden words" not in text


def test_text_that_is_shown_where_it_is_attached_is_read_and_named() -> None:
    text = mail(
        "Subject: Hi\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nbody\n"
        "--b\nContent-Type: text/html\nContent-Disposition: inline; filename=report.html\n\n<p>Sales rose.</p>\n"
        "--b\nContent-Type: text/html\n\n<p>body</p>\n--b--\n"
    )
    assert text == "# Hi\n\nbody\n\nSales rose.\n\nAttachments: report.html"


@pytest.mark.parametrize(
    "source",
    [
        "Subject: =?no-such-charset?q?abc?=\n\nbody\n",
        "Subject: x\nContent-Type: text/plain; charset=no-such\n\nbody\n",
        "Subject: x\nContent-Type: multipart/mixed\n\nbody\n",
        "Subject: x\nContent-Transfer-Encoding: base64\n\n!!!not base64 body\n",
        "Subject: " + "x" * 100_000 + "\n\nbody\n",
        "Subject: " + "=?utf-8?q?a?= " * 100_000 + "\n\nbody\n",
    ],
)
@pytest.mark.timeout(20)
def test_malformed_mail_still_gives_what_it_has(source: str) -> None:
    assert mail(source).startswith("# ")


def test_mail_without_subject_body_or_attachment_has_no_text() -> None:
    assert mail("From: a@b.c\nTo: d@e.f\n\n") == ""


def test_mail_saved_as_utf16_is_read() -> None:
    content = "Subject: Hi\n\nHello\n".encode("utf-16")
    assert Mail().parse(content, "a.eml").text == "# Hi\n\nHello"


def test_something_that_is_no_mail_is_corrupt() -> None:
    with pytest.raises(UnsupportedDocument) as caught:
        Mail().parse(b"just some words\nin lines\n", "a.eml")
    assert caught.value.code == "corrupt"


def test_a_container_is_refused_before_anything_is_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    monkeypatch.setattr(archive, "MAX_INFLATED_BYTES", 1000)
    for members in ({str(number): "" for number in range(4)}, {"a": "x" * 1001}):
        with pytest.raises(UnsupportedDocument) as caught:
            open_archive(zipped(members))
        assert caught.value.code == "too_large"
    assert open_archive(zipped({"a": "x" * 1000})).namelist() == ["a"]


def test_the_ratio_counts_above_a_harmless_size(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zipped({"a": bytes(1024**2)})
    assert open_archive(bomb)
    monkeypatch.setattr(archive, "RATIO_FREE_BYTES", 1024)
    with pytest.raises(UnsupportedDocument, match="times its size"):
        open_archive(bomb)


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/etc/passwd", "..\\up"])
def test_names_that_lead_out_of_a_container_are_corrupt(name: str) -> None:
    with pytest.raises(UnsupportedDocument, match="leads out"):
        open_archive(zipped({name: "x"}))


def test_members_with_a_password_are_encrypted() -> None:
    content = bytearray(zipped({"a": "x"}, zipfile.ZIP_STORED))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    with pytest.raises(UnsupportedDocument) as caught:
        open_archive(bytes(content))
    assert caught.value.code == "encrypted"


def test_a_damaged_member_is_corrupt() -> None:
    content = bytearray(zipped({"a.xml": "<a>" + "x" * 100 + "</a>"}, zipfile.ZIP_STORED))
    content[60] ^= 0xFF
    with pytest.raises(UnsupportedDocument, match="damaged"):
        read_xml(open_archive(bytes(content)), "a.xml")


def test_a_missing_or_malformed_member_is_corrupt() -> None:
    opened = open_archive(zipped({"a.xml": "<a>"}))
    with pytest.raises(UnsupportedDocument, match="lacks its part"):
        read_xml(opened, "b.xml")
    with pytest.raises(UnsupportedDocument, match="not well-formed"):
        read_xml(opened, "a.xml")


@pytest.mark.parametrize(("title", "expected"), [("My plan", "My plan"), ("PowerPoint Presentation", None), ("", None)])
def test_a_templates_title_is_none(title: str, expected: str | None) -> None:
    core = f'<p xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></p>'
    assert core_title(open_archive(zipped({"docProps/core.xml": core}))) == expected


def opendocument(body: str) -> str:
    spaces = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{uri}:1.0"'
        for name, uri in (("o", "office"), ("t", "text"), ("b", "table"), ("d", "drawing"), ("s", "svg-compatible"))
    )
    content = f"<o:d {spaces}><o:body><o:text>{body}</o:text></o:body></o:d>"
    return OpenText().parse(zipped({"content.xml": content}), "a.odt").text


def test_opendocument_paragraphs_keep_spaces_notes_and_text_boxes() -> None:
    text = opendocument(
        '<t:p>a<t:s t:c="2"/>b<t:span>c</t:span><t:line-break/>d</t:p>'
        "<t:p>e<d:frame><d:text-box><t:p>boxed</t:p></d:text-box></d:frame>f</t:p>"
    )
    assert text == "a  bc\nd\n\nef\n\nboxed"


def test_opendocument_leaves_out_deleted_text_and_comments() -> None:
    text = opendocument(
        "<t:tracked-changes><t:p>deleted</t:p></t:tracked-changes>"
        "<t:p>kept<o:annotation><t:p>comment</t:p></o:annotation></t:p>"
    )
    assert text == "kept"


def test_opendocument_lists_nest_and_repeated_cells_are_bounded() -> None:
    text = opendocument(
        "<t:list><t:list-item><t:p>a</t:p><t:list><t:list-item><t:p>b</t:p></t:list-item></t:list></t:list-item></t:list>"
        '<b:table><b:table-row><b:table-cell b:number-columns-repeated="99999999"><t:p>x</t:p></b:table-cell>'
        "</b:table-row></b:table>"
    )
    assert text.startswith("- a\n  - b\n\n| x | x |")
    assert text.split("\n")[3].count("x") == 100


def test_opendocument_of_pictures_alone_gives_what_is_said_of_them() -> None:
    assert opendocument("<t:p><d:frame><s:title>A map of the office</s:title></d:frame></t:p>") == "A map of the office"


def test_rtf_text_unicode_and_tables() -> None:
    source = (
        b"{\\rtf1\\ansi Caf\\'e9 \\u8364? \\u-10179?\\u-8704?\\par"
        b"\\trowd a\\cell b\\cell\\row\\trowd c\\cell d\\cell\\row}"
    )
    assert Rtf().parse(source, "a.rtf").text == "Café € 😀\n\n| a | b |\n| --- | --- |\n| c | d |"


def test_rtf_with_a_misplaced_star_keeps_its_words() -> None:
    assert Rtf().parse(b"{\\rtf1{\\b\\*\\cs7 The quick fox}\\par}", "a.rtf").text == "The quick fox"


def workbook_of(**sheets: list[list[object]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def test_a_workbook_has_a_heading_per_sheet_and_a_table_per_block() -> None:
    content = workbook_of(
        Costs=[["A label"], [], ["item", "cost"], ["tea", 1.5], [None, None], ["x", "y"]],
        Empty=[],
        Notes=[["one"], ["two"]],
    )
    assert Workbook().parse(content, "a.xlsx").text == (
        "## Costs\n\nA label\n\n| item | cost |\n| --- | --- |\n| tea | 1.5 |\n\n| x | y |\n| --- | --- |\n\n"
        "## Notes\n\none\ntwo"
    )


def test_the_values_of_a_workbook_are_written_plainly() -> None:
    row: list[object] = [0.1 + 0.2, 3.0, date(2024, 5, 1), datetime(2024, 5, 1, 8, 30), time(8, 30), True, "a\nb"]  # noqa: DTZ001 - Excel knows no zones
    text = Workbook().parse(workbook_of(S=[row]), "a.xlsx").text
    assert "| 0.3 | 3 | 2024-05-01 | 2024-05-01 08:30:00 | 08:30:00 | True | a b |" in text


def test_one_far_cell_costs_nothing() -> None:
    book = openpyxl.Workbook()
    book.active["XFD1048576"] = "far away"
    out = io.BytesIO()
    book.save(out)
    assert "far away" in Workbook().parse(out.getvalue(), "a.xlsx").text


def test_what_a_parser_lets_slip_is_made_storable_without_moving_a_character() -> None:
    place = {"test/careless": f"{__name__}:Careless"}
    document = parse(b"x", "a", "test/careless", place)
    assert document.text == "a\ufffdb\ufffdc"
    assert document.title == "t\ufffd"


def test_a_parsers_own_exception_becomes_corrupt_with_its_words() -> None:
    with pytest.raises(UnsupportedDocument, match="ZeroDivisionError") as caught:
        parse(b"0", "a", "test/careless", {"test/careless": f"{__name__}:Careless"})
    assert caught.value.code == "corrupt"
