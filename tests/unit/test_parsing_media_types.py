"""What a document is: name, declaration and first bytes must agree, and a refusal says what it is instead."""

from __future__ import annotations

import pytest

from rag_service.errors import UnsupportedDocument
from rag_service.parsing.media_types import DOCX, EPUB, ODT, XLSX, media_type_of, supported_extensions
from tests.contracts.parser_samples import odt, pdf, workbook, zipped

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
PDF = b"%PDF-1.7\n"
ZIP = zipped({"a": "b"})
PROGRAM = b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0"


@pytest.mark.parametrize(
    ("name", "declared", "head", "expected"),
    [
        ("a.md", None, b"# a", "text/markdown"),
        ("A.MD", "text/plain", b"# a", "text/markdown"),
        ("a.txt", "text/markdown; charset=utf-8", b"# a", "text/markdown"),
        ("a.pdf", "text/markdown", b"# the text of it", "text/markdown"),
        ("a.pdf", "application/octet-stream", PDF, "application/pdf"),
        ("a.pdf", "text/plain", PDF, "application/pdf"),
        ("a.pdf", None, b"\n\njunk" + PDF, "application/pdf"),
        ("a.md", None, b"# A PDF begins with %PDF-1.7", "text/markdown"),
        ("a.py", "text/plain", b"MAGIC = b'%PDF-'", "text/x-python"),
        ("a.txt", None, b"MZ-4711: open the valve slowly, wait a minute, then close it again tightly.", "text/plain"),
        ("a.csv", "application/vnd.ms-excel", b"a,b", "text/csv"),
        ("a.docx", "application/zip", ZIP, DOCX),
        ("folder.v2/readme", None, b"hello", "text/plain"),
        ("LICENSE", "application/octet-stream", b"MIT", "text/plain"),
        ("report", None, pdf(["x"]), "application/pdf"),
        ("report", None, odt(), ODT),
        ("report", None, workbook(), XLSX),
        ("report", EPUB, ZIP, EPUB),
        ("letter.doc", None, b"{\\rtf1 hello}", "application/rtf"),
        ("x.yaml", "application/yaml", b"a: 1", "text/x-yaml"),
        ("page.php?id=3", "text/html", b"<p>", "text/html"),
    ],
)
def test_the_type_is_told(name: str, declared: str | None, head: bytes, expected: str) -> None:
    assert media_type_of(name, declared, head) == expected


@pytest.mark.parametrize(
    ("name", "declared", "head", "code", "says"),
    [
        ("a.pdf", None, ZIP, "corrupt", "zip"),
        ("a.docx", None, b"plain text", "corrupt", "something else"),
        ("a.docx", None, PDF, "corrupt", "pdf"),
        ("a.md", None, b"\x89PNG\r\n\x1a\n", "corrupt", "picture"),
        ("a.md", None, PROGRAM, "corrupt", "program"),
        ("a.docx", None, OLE, "unsupported", "old Office"),
        ("a.xlsx", None, OLE + "EncryptedPackage".encode("utf-16-le"), "encrypted", "password"),
        ("a.doc", None, OLE, "unsupported", "Save it as .docx"),
        ("a.xls", None, OLE, "unsupported", "Save it as .xlsx"),
        ("a.msg", None, OLE, "unsupported", "Save the message as .eml"),
        ("a.zip", None, ZIP, "unsupported", "Unpack it"),
        ("a.png", "image/png", b"\x89PNG\r\n\x1a\n", "unsupported", "OCR"),
        ("a.ods", None, ZIP, "unsupported", ".xlsx"),
        ("a.xyz", None, b"who knows", "unsupported", "no parser for .xyz"),
        ("mystery", None, b"\0\1\2", "unsupported", "no parser"),
        ("a.pdf", None, b"", "empty", "0 bytes"),
    ],
)
def test_a_refusal_says_what_it_is_and_what_to_do(
    name: str, declared: str | None, head: bytes, code: str, says: str
) -> None:
    with pytest.raises(UnsupportedDocument) as caught:
        media_type_of(name, declared, head)
    assert caught.value.code == code
    assert says in caught.value.message


def test_the_supported_extensions_are_listed_for_people() -> None:
    listed = supported_extensions()
    assert list(listed) == sorted(set(listed))
    assert {".md", ".txt", ".rst", ".html", ".pdf", ".docx", ".pptx", ".xlsx", ".csv", ".eml", ".epub", ".odt"} <= set(
        listed
    )
