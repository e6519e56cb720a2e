"""What every parser owes its caller, whatever the format: shown through the sandbox, as in production."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_service.errors import UnsupportedDocument
from rag_service.parsing.media_types import EXTENSIONS, media_type_of, supported_extensions
from rag_service.parsing.registry import PARSERS, parser_of
from rag_service.parsing.sandbox import ParserSandbox
from rag_service.types import ParsedDocument
from tests.contracts.parser_samples import PROSE, SAMPLES, Sample, pdf, zipped

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)
MAGIC = (
    b"",
    b"%PDF-1.7\n",
    b"PK\x03\x04",
    b"{\\rtf1 ",
    b"\xff\xfe",
    b"From: a\n\n",
    b"---\ntitle: ",
    b"<table><td>",
    OLE,
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ParserSandbox]:
    with ParserSandbox(timeout_s=60, memory_bytes=2 * 1024**3, processes=1) as sandbox:
        yield sandbox


@cache
def made(sample: Sample) -> bytes:
    """Made once: zip containers and mails hold the time and random boundaries."""
    return sample.make()


def each_sample() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)


def refusal(sandbox: ParserSandbox, content: bytes, name: str) -> UnsupportedDocument:
    with pytest.raises(UnsupportedDocument) as caught:
        sandbox.parse(content, name, None)
    return caught.value


@each_sample()
def test_the_words_of_a_document_come_through(sandbox: ParserSandbox, sample: Sample) -> None:
    document = sandbox.parse(sample.make(), sample.name, None)
    words = ("Junior", "25") if sample.name.startswith("grades") else PROSE.split()
    assert [word for word in words if word not in document.text] == []


@each_sample()
def test_structure_becomes_markdown(sandbox: ParserSandbox, sample: Sample) -> None:
    document = sandbox.parse(sample.make(), sample.name, None)
    lines = document.text.split("\n")
    assert document.title == sample.title
    assert sample.heading is None or sample.heading in lines
    assert sample.listed is None or sample.listed in document.text
    assert sample.table is None or sample.table in document.text


@each_sample()
def test_the_parser_says_who_it_is(sandbox: ParserSandbox, sample: Sample) -> None:
    document = sandbox.parse(sample.make(), sample.name, None)
    assert re.fullmatch(rf"{sample.engine} \d+\.\d+\S*", document.parser)


@each_sample()
def test_text_is_normalised(sandbox: ParserSandbox, sample: Sample) -> None:
    assert_storable(sandbox.parse(sample.make(), sample.name, None))


@each_sample()
def test_pages_are_where_they_say(sandbox: ParserSandbox, sample: Sample) -> None:
    document = sandbox.parse(sample.make(), sample.name, None)
    assert bool(document.pages) is sample.pages
    if sample.pages:
        first, last = document.pages[0], document.pages[-1]
        assert (first.start, first.page) == (0, 1)
        assert "hello" in document.text[: last.start]
        assert PROSE not in document.text[: last.start]
        assert PROSE in document.text[last.start :]


def test_an_empty_pdf_page_does_not_shift_the_numbers_of_later_pages(sandbox: ParserSandbox) -> None:
    document = sandbox.parse(pdf(["one", "", "three"]), "a.pdf", None)
    assert [(page.page, document.text[page.start :].split()[0]) for page in document.pages] == [
        (1, "one"),
        (3, "three"),
    ]


def test_speakers_notes_belong_to_their_slide(sandbox: ParserSandbox) -> None:
    sample = next(each for each in SAMPLES if each.name.endswith(".pptx"))
    document = sandbox.parse(sample.make(), sample.name, None)
    assert document.text.endswith("Notes: Mention the works council.")


@each_sample()
def test_an_empty_file_is_refused_as_empty(sandbox: ParserSandbox, sample: Sample) -> None:
    assert refusal(sandbox, b"", sample.name).code == "empty"


@each_sample()
def test_whitespace_alone_is_never_a_document(sandbox: ParserSandbox, sample: Sample) -> None:
    assert refusal(sandbox, b" \n\n\t \n", sample.name).code in ("empty", "corrupt")


@each_sample()
def test_a_truncated_file_gives_text_or_a_reason(sandbox: ParserSandbox, sample: Sample) -> None:
    whole = sample.make()
    try:
        document = sandbox.parse(whole[: len(whole) // 2], sample.name, None)
    except UnsupportedDocument as error:
        assert error.code in ("corrupt", "empty")
    else:
        assert_storable(document)


@each_sample()
def test_garbage_is_refused_as_corrupt(sandbox: ParserSandbox, sample: Sample) -> None:
    garbage = bytes((at * 37 + at // 7) % 256 for at in range(4096))
    assert refusal(sandbox, garbage, sample.name).code == "corrupt"


@pytest.mark.parametrize("name", ["a.docx", "a.pptx", "a.xlsx", "a.odt", "a.epub"])
def test_a_zip_that_is_no_document_is_corrupt(sandbox: ParserSandbox, name: str) -> None:
    assert refusal(sandbox, zipped({"readme.txt": "hello"}), name).code == "corrupt"


@pytest.mark.parametrize("name", ["a.docx", "a.pptx", "a.xlsx"])
def test_office_files_with_a_password_are_encrypted(sandbox: ParserSandbox, name: str) -> None:
    error = refusal(sandbox, OLE + "EncryptedPackage".encode("utf-16-le"), name)
    assert error.code == "encrypted"
    assert "Remove the protection" in error.message


def test_odt_and_epub_with_encrypted_parts_are_encrypted(sandbox: ParserSandbox) -> None:
    manifest = "<manifest><file-entry><encryption-data/></file-entry></manifest>"
    assert (
        refusal(sandbox, zipped({"META-INF/manifest.xml": manifest, "content.xml": "x"}), "a.odt").code == "encrypted"
    )
    package = (
        "<package><manifest><item id='c' href='c.xhtml' media-type='application/xhtml+xml'/></manifest>"
        "<spine><itemref idref='c'/></spine></package>"
    )
    book = {
        "META-INF/container.xml": "<container><rootfile full-path='content.opf'/></container>",
        "META-INF/encryption.xml": "<encryption><CipherReference URI='c.xhtml'/></encryption>",
        "content.opf": package,
        "c.xhtml": "\x12\x34",
    }
    assert refusal(sandbox, zipped(book), "a.epub").code == "encrypted"


def test_a_pdf_without_text_is_said_to_need_ocr(sandbox: ParserSandbox) -> None:
    error = refusal(sandbox, pdf(["", ""]), "scan.pdf")
    assert error.code == "empty"
    assert "2 pages" in error.message
    assert "OCR" in error.message


def test_notes_on_a_pdf_page_are_part_of_it(sandbox: ParserSandbox) -> None:
    document = sandbox.parse(pdf(["Contract"], annotation="Check clause 4"), "a.pdf", None)
    assert document.text == "Contract\n\nCheck clause 4"


@pytest.mark.parametrize("name", ["report.doc", "report.xls", "report.ppt"])
def test_old_office_formats_are_refused_with_a_next_step(sandbox: ParserSandbox, name: str) -> None:
    error = refusal(sandbox, OLE, name)
    assert error.code == "unsupported"
    assert f"Save it as {name.removeprefix('report')}x" in error.message or "Save it as .docx" in error.message


def test_every_extension_has_a_parser_that_claims_its_type() -> None:
    for extension in supported_extensions():
        assert EXTENSIONS[extension] in PARSERS
        assert EXTENSIONS[extension] in parser_of(EXTENSIONS[extension]).media_types


def test_every_sample_is_told_by_its_content_and_name() -> None:
    for sample in SAMPLES:
        extension = f".{sample.name.rsplit('.', 1)[1]}"
        assert media_type_of(sample.name, None, sample.make()) == EXTENSIONS[extension]


def test_an_unknown_media_type_has_no_parser() -> None:
    with pytest.raises(UnsupportedDocument, match="no parser for application/x-nothing"):
        parser_of("application/x-nothing")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    extension=st.sampled_from([*supported_extensions(), ".doc", ".bin", ""]),
    magic=st.sampled_from(MAGIC),
    body=st.binary(max_size=400) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
def test_any_bytes_under_any_name_give_text_or_a_reason(
    sandbox: ParserSandbox, extension: str, magic: bytes, body: bytes
) -> None:
    try:
        document = sandbox.parse(magic + body, f"file{extension}", None)
    except UnsupportedDocument as error:
        assert error.code in ("corrupt", "empty", "unsupported", "encrypted", "too_large")
        assert error.message
    else:
        assert_storable(document)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sample=st.sampled_from(SAMPLES), data=st.data())
def test_a_damaged_document_gives_text_or_a_reason(sandbox: ParserSandbox, sample: Sample, data: st.DataObject) -> None:
    content = bytearray(made(sample))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, 2**32)) % len(content)] = data.draw(st.integers(0, 255))
    try:
        document = sandbox.parse(bytes(content), sample.name, None)
    except UnsupportedDocument as error:
        assert error.code in ("corrupt", "empty", "unsupported", "encrypted", "too_large")
    else:
        assert_storable(document)


def assert_storable(document: ParsedDocument) -> None:
    assert document.text.strip()
    assert "\0" not in document.text
    assert "\r" not in document.text
    document.text.encode()  # raises at a lone surrogate
    (document.title or "").encode()
    starts = [page.start for page in document.pages]
    assert starts == sorted(starts)
    assert all(0 <= start < len(document.text) for start in starts)


def test_table_rows_each_stand_on_one_line(sandbox: ParserSandbox) -> None:
    content = b'name,note\nann,"two\nlines | and a bar"\n'
    document = sandbox.parse(content, "notes.csv", None)
    assert document.text.split("\n") == ["| name | note |", "| --- | --- |", "| ann | two lines \\| and a bar |"]
