"""What a document is: told by its declared type, its name and its first bytes, which must agree."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from rag_service.errors import UnsupportedDocument
from rag_service.parsing.archive import encrypted
from rag_service.parsing.render import corrupt

_OOXML = "application/vnd.openxmlformats-officedocument"
DOCX = f"{_OOXML}.wordprocessingml.document"
PPTX = f"{_OOXML}.presentationml.presentation"
XLSX = f"{_OOXML}.spreadsheetml.sheet"
ODT = "application/vnd.oasis.opendocument.text"
EPUB = "application/epub+zip"

_CODE_EXTENSIONS = {
    "python": ".py .pyi", "javascript": ".js .mjs .cjs .jsx", "typescript": ".ts .tsx", "java": ".java", "c": ".c .h",
    "c++": ".cc .cpp .cxx .hh .hpp", "csharp": ".cs", "go": ".go", "rust": ".rs", "ruby": ".rb", "php": ".php",
    "swift": ".swift", "kotlin": ".kt .kts", "scala": ".scala", "lua": ".lua", "perl": ".pl .pm", "r": ".r",
    "shell": ".sh .bash .zsh", "sql": ".sql", "css": ".css .scss .less", "yaml": ".yaml .yml", "toml": ".toml",
    "ini": ".ini .cfg .conf .properties", "xml": ".xml .xsd .xsl", "makefile": ".mk", "diff": ".diff .patch",
    "proto": ".proto", "terraform": ".tf",
}  # fmt: skip

EXTENSIONS: dict[str, str] = {
    ".md": "text/markdown", ".markdown": "text/markdown", ".mdx": "text/markdown",
    ".txt": "text/plain", ".text": "text/plain", ".log": "text/plain", ".adoc": "text/plain",
    ".asciidoc": "text/plain", ".org": "text/plain", ".tex": "text/plain",
    ".rst": "text/x-rst", ".rest": "text/x-rst",
    ".html": "text/html", ".htm": "text/html", ".xhtml": "text/html",
    ".pdf": "application/pdf",
    ".docx": DOCX, ".pptx": PPTX, ".pptm": PPTX, ".xlsx": XLSX, ".xlsm": XLSX,
    ".csv": "text/csv", ".tsv": "text/tab-separated-values",
    ".eml": "message/rfc822", ".epub": EPUB, ".odt": ODT, ".rtf": "application/rtf",
    ".json": "application/json", ".jsonl": "application/x-ndjson", ".ndjson": "application/x-ndjson",
    **{ext: f"text/x-{language}" for language, exts in _CODE_EXTENSIONS.items() for ext in exts.split()},
}  # fmt: skip

_ALIASES = {
    "text/x-markdown": "text/markdown", "text/rst": "text/x-rst", "text/prs.fallenstein.rst": "text/x-rst",
    "application/xhtml+xml": "text/html", "application/x-pdf": "application/pdf", "application/csv": "text/csv",
    "text/tsv": "text/tab-separated-values", "text/rtf": "application/rtf", "text/json": "application/json",
    "application/jsonl": "application/x-ndjson", "application/x-jsonlines": "application/x-ndjson",
    "application/jsonlines": "application/x-ndjson", "application/xml": "text/x-xml", "text/xml": "text/x-xml",
    "application/yaml": "text/x-yaml", "application/x-yaml": "text/x-yaml", "application/toml": "text/x-toml",
    "text/javascript": "text/x-javascript", "application/javascript": "text/x-javascript", "text/css": "text/x-css",
    "application/x-sh": "text/x-shell", "application/sql": "text/x-sql", "text/x-c++src": "text/x-c++",
}  # fmt: skip

_NEXT_STEP = {
    ".doc .dot .docm .dotx .wpd .pages": "Save it as .docx and upload that.",
    ".xls .xlsb .xlt .ods .numbers": "Save it as .xlsx or .csv and upload that.",
    ".ppt .pps .odp .key": "Save it as .pptx and upload that.",
    ".msg .mbox .pst .mht .mhtml": "Save the message as .eml and upload that.",
    ".zip .tar .gz .tgz .bz2 .xz .7z .rar": "Unpack it and upload the files in it.",
    ".png .jpg .jpeg .gif .bmp .tif .tiff .webp .jp2": "It is a picture; run OCR over it and upload the text.",
}
_ADVICE = {ext: advice for extensions, advice in _NEXT_STEP.items() for ext in extensions.split()}

# What the first bytes say, and the word for it in a message.
_MAGIC = (
    ("pdf", re.compile(rb"%PDF-")),
    ("zip", re.compile(rb"PK(\x03\x04|\x05\x06|\x07\x08)")),
    ("OLE (old Office)", re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")),
    ("rtf", re.compile(rb"\{\\rtf")),
    ("picture", re.compile(rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|II\*\0|MM\0\*|RIFF....WEBP", re.DOTALL)),
    ("compressed", re.compile(rb"\x1f\x8b\x08|BZh[1-9]1AY|\xfd7zXZ\0|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07")),
    ("program", re.compile(rb"\x7fELF|\xfe\xed\xfa[\xce\xcf]|\xcf\xfa\xed\xfe")),
)
_EXPECTED = {
    "application/pdf": "pdf", "application/rtf": "rtf", DOCX: "zip", PPTX: "zip", XLSX: "zip", ODT: "zip", EPUB: "zip",
}  # fmt: skip
_INSIDE_ZIP = (
    (b"mimetypeapplication/epub+zip", EPUB),
    (b"mimetypeapplication/vnd.oasis.opendocument.text", ODT),
    (b"word/document.xml", DOCX),
    (b"ppt/presentation.xml", PPTX),
    (b"xl/workbook.xml", XLSX),
)
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_PDF_HEADER_WITHIN = 1024  # where readers look for it (ISO 32000-1, Annex H, note 13)


def supported_extensions() -> tuple[str, ...]:
    """Every file name extension that has a parser, sorted."""
    return tuple(sorted(EXTENSIONS))


def media_type_of(name: str, declared: str | None, head: bytes) -> str:
    """The media type under which the registry knows a parser for this document.

    The extension of `name` counts before `declared` where both are vague (`text/plain`), and whichever of them agrees
    with the first bytes wins. `head` is the beginning of the content, best all of it: what a zip or an OLE container
    holds may be told further in.
    Raises UnsupportedDocument: unsupported, corrupt (bytes and name disagree), encrypted.
    """
    candidates = _candidates(_extension(name), _known(declared))
    found = _family(head, may_be_pdf=not candidates or "application/pdf" in candidates)
    for candidate in candidates:
        if _EXPECTED.get(candidate) == found:
            return candidate
    if candidates:
        raise _mismatch(candidates[0], found, head)
    return _by_content(name, declared, found, head)


def _candidates(extension: str, declared: str | None) -> list[str]:
    named = EXTENSIONS.get(extension)
    order = [named, declared] if declared in (None, "text/plain") else [declared, named]
    return [each for each in order if each is not None]


def _known(declared: str | None) -> str | None:
    bare = (declared or "").split(";")[0].strip().lower()
    bare = _ALIASES.get(bare, bare)
    return bare if bare in EXTENSIONS.values() else None


def _extension(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).suffix.lower()


def _family(head: bytes, *, may_be_pdf: bool) -> str | None:
    for family, magic in _MAGIC:
        if magic.match(head):
            return family
    if head.startswith(b"MZ") and head.startswith(b"PE\0\0", int.from_bytes(head[60:64], "little")):
        return "program"  # text may begin with "MZ" as well
    return "pdf" if may_be_pdf and b"%PDF-" in head[:_PDF_HEADER_WITHIN] else None


def _mismatch(media_type: str, found: str | None, head: bytes) -> UnsupportedDocument:
    if not head:
        return UnsupportedDocument("The file is empty (0 bytes). Upload one with content.", code="empty")
    if found == "OLE (old Office)" and _EXPECTED.get(media_type) == "zip":
        return _old_office(head)
    return corrupt(f"The file is named or declared as {media_type}, but its content is {found or 'something else'}.")


def _old_office(head: bytes) -> UnsupportedDocument:
    if _ENCRYPTED_PACKAGE in head:
        return encrypted("The file is protected with a password.")
    return UnsupportedDocument(
        "The file is of an old Office format (Word, Excel or PowerPoint 97-2003, or Outlook). "
        "Save it as .docx, .xlsx, .pptx or .eml and upload that.",
        code="unsupported",
    )


def _by_content(name: str, declared: str | None, found: str | None, head: bytes) -> str:
    """Neither name nor declaration says anything known: the bytes may."""
    extension = _extension(name)
    if found in ("pdf", "rtf"):
        return f"application/{found}"
    inside = next((kind for mark, kind in _INSIDE_ZIP if mark in head), None)
    if found == "zip" and inside and extension not in _ADVICE:
        return inside
    if found == "OLE (old Office)" and extension not in _ADVICE:
        raise _old_office(head)
    if found is None and extension not in _ADVICE and _is_text(head, extension):
        return "text/plain"
    raise _unsupported(extension, declared, found)


def _is_text(head: bytes, extension: str) -> bool:
    """Text without a known name: only when there is no name to go by, or a name like README or LICENSE."""
    return not extension and b"\0" not in head


def _unsupported(extension: str, declared: str | None, found: str | None) -> UnsupportedDocument:
    what = f"{extension} files" if extension else (declared or f"files of this kind ({found or 'binary'})")
    advice = _ADVICE.get(extension, "Convert it to PDF, DOCX, HTML, Markdown or plain text and upload that.")
    return UnsupportedDocument(f"There is no parser for {what}. {advice}", code="unsupported")
