"""Plain text and source code, and the decoding of bytes that every text format shares."""

from __future__ import annotations

import codecs
import re
from typing import Literal

from rag_service.parsing.render import clean, corrupt, made_by
from rag_service.types import ParsedDocument

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE_BYTES = 128 * 1024
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffd]")
_MAX_CONTROL_SHARE = 0.05
# Of the bytes that are not ASCII. Text of another encoding, read as UTF-8, is broken in three quarters and more.
_MAX_BROKEN_SHARE = 1 / 3

CODE_TYPES = frozenset([
    "text/x-python", "text/x-javascript", "text/x-typescript", "text/x-java", "text/x-c", "text/x-c++",
    "text/x-csharp", "text/x-go", "text/x-rust", "text/x-ruby", "text/x-php", "text/x-swift", "text/x-kotlin",
    "text/x-scala", "text/x-lua", "text/x-perl", "text/x-r", "text/x-shell", "text/x-sql", "text/x-css",
    "text/x-yaml", "text/x-toml", "text/x-ini", "text/x-xml", "text/x-makefile", "text/x-dockerfile", "text/x-diff",
    "text/x-proto", "text/x-terraform",
])  # fmt: skip


class PlainText:
    """The text as it is."""

    media_types = frozenset({"text/plain"})
    layout: Literal["plain", "code"] = "plain"

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        return ParsedDocument(text=decode(content), layout=self.layout, parser=made_by("rag-service"))


class SourceCode(PlainText):
    """Program text and configuration: as it is, to be cut by line."""

    media_types = CODE_TYPES
    layout: Literal["plain", "code"] = "code"


def decode(content: bytes, declared: str | None = None) -> str:
    """Text of unknown encoding: byte order mark, UTF-8, `declared`, UTF-8 with broken bytes, then the most probable.

    Raises UnsupportedDocument (corrupt) when more than a twentieth of it is control characters: binary data.
    """
    text = clean(_decode(content, declared))
    sample = text[:_SAMPLE_BYTES]
    if len(_CONTROL.findall(sample)) > _MAX_CONTROL_SHARE * len(sample):
        raise corrupt("The file has a name of a text format, but holds binary data.")
    return text


def _decode(content: bytes, declared: str | None) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    for guess in (_utf16_without_mark(content), "utf-8", declared):
        if guess and (text := _strictly(content, guess)) is not None:
            return text
    text = content.decode("utf-8", "replace")
    beyond_ascii = len(content) - len(content.decode("ascii", "ignore"))
    if text.count("\ufffd") <= _MAX_BROKEN_SHARE * beyond_ascii:
        return text
    return content.decode(_probable_encoding(content), "replace")


def _strictly(content: bytes, encoding: str) -> str | None:
    try:
        return content.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _utf16_without_mark(content: bytes) -> str | None:
    """UTF-16 of mostly Latin text has a zero in nearly every second byte."""
    sample = content[:1024]
    half = len(sample) // 2
    if half >= 2 and sample[1::2].count(0) > 0.7 * half and not sample[0::2].count(0):
        return "utf-16-le"
    if half >= 2 and sample[0::2].count(0) > 0.7 * half and not sample[1::2].count(0):
        return "utf-16-be"
    return None


def _probable_encoding(content: bytes) -> str:
    from charset_normalizer import from_bytes

    sample = content[:_SAMPLE_BYTES]
    # A cut inside a multi-byte character would hide the true encoding: end the sample at a line.
    sample = sample[: sample.rfind(b"\n") + 1] or sample
    matches = from_bytes(sample)
    best = matches.best()
    if best is None:
        return "cp1252"
    # Many code pages fit a few accented letters equally well; then it is the one that most programs wrote.
    western = (match for match in matches if "cp1252" in (match.encoding, *match.could_be_from_charset))
    return "cp1252" if any(match.coherence >= best.coherence for match in western) else best.encoding
