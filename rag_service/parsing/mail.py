"""E-mail: subject, who to whom, and the readable body; attachments are named, never opened."""

from __future__ import annotations

import email
import re
from collections.abc import Container, Iterator
from email.errors import HeaderParseError, MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.policy import compat32

from rag_service.parsing.html import to_markdown
from rag_service.parsing.render import clean, corrupt, heading, join_blocks, made_by, one_line
from rag_service.parsing.text import decode
from rag_service.types import ParsedDocument

_SHOWN = ("From", "To", "Cc", "Date")
_SHOWN_TYPES = ("text/plain", "text/html")
_HEADER_LINE = re.compile(rb"^[!-9;-~]+:", re.MULTILINE)
_MAX_PARTS = 1000
_MAX_HEADER_CHARACTERS = 10_000


class Mail:
    """Every text part that is shown; of alternatives the plain one when it says something, else the HTML one."""

    media_types = frozenset({"message/rfc822"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        # The header format is ASCII; a message saved as text in another encoding is brought back to it.
        content = (decode(content).encode() if b"\0" in content[:64] else content).lstrip()
        if not _HEADER_LINE.match(content) and not content.startswith(b"From "):
            raise corrupt("The file does not begin with e-mail headers.")
        try:
            message = email.message_from_bytes(content, policy=compat32)
            return _document(message)
        except (MessageError, RecursionError) as error:
            raise corrupt(f"The e-mail is malformed ({error}).") from error


def _document(message: Message) -> ParsedDocument:
    parts = list(_leaves(message))
    subject = _header(message, "Subject")
    fields = [f"{field}: {value}" for field in _SHOWN if (value := _header(message, field))]
    first = next(filter(_is_shown, parts), None)  # some programs name the body too
    names = [one_line(name) for part in parts if part is not first and (name := _file_name(part))]
    body = _body(message, frozenset(parts))
    blocks = [
        heading(1, subject) if subject else "",
        "\n".join(fields),
        body,
        f"Attachments: {', '.join(names)}" if names else "",
    ]
    # Addresses alone are no document: without a subject, a body or an attachment there is nothing to find.
    text = join_blocks(blocks) if subject or body or names else ""
    return ParsedDocument(text=clean(text), title=subject or None, parser=made_by("rag-service"))


def _leaves(message: Message) -> Iterator[Message]:
    """Parts without parts, in order, a bounded number; an attached message counts as one attachment."""
    stack = [message]
    for _ in range(_MAX_PARTS):
        if not stack:
            return
        part = stack.pop()
        inside = _inside(part)
        if inside is None:
            yield part
        else:
            stack += reversed(inside)


def _inside(part: Message) -> list[Message] | None:
    """The parts of a part, None for one that has none."""
    payload = part.get_payload()
    if part.get_content_maintype() != "multipart" or not isinstance(payload, list):
        return None
    return [each for each in payload if isinstance(each, Message)]


def _is_shown(part: Message) -> bool:
    return part.get_content_type() in _SHOWN_TYPES and not _is_attached(part)


def _is_attached(part: Message) -> bool:
    return str(part.get("Content-Disposition", "")).lower().startswith("attachment")


def _file_name(part: Message) -> str:
    """The name of an attachment, '' for a part of the body that has none."""
    if part.get_content_type() == "message/rfc822":
        payload = part.get_payload()
        inner = payload[0] if isinstance(payload, list) and payload else None
        return (_header(inner, "Subject") if isinstance(inner, Message) else "") or "message"
    try:
        name = part.get_filename()
    except (LookupError, UnicodeError, ValueError):
        name = "unnamed"
    return clean(name or "") or ("unnamed" if _is_attached(part) else "")


def _body(part: Message, leaves: Container[Message]) -> str:
    inside = _inside(part)
    if inside is not None and part.get_content_subtype() == "alternative":
        inside.sort(key=lambda each: each.get_content_type() != "text/plain")
        return next(filter(None, (_body(each, leaves) for each in inside)), "")
    if inside is not None:
        return join_blocks(dict.fromkeys(_body(each, leaves) for each in inside))  # some say it as text and as HTML
    if part not in leaves or not _is_shown(part):
        return ""
    words = _text(part).strip()
    return to_markdown(words)[0] if words and part.get_content_type() == "text/html" else words


def _text(part: Message) -> str:
    try:
        payload = part.get_payload(decode=True)
    except (ValueError, LookupError):
        return ""
    return decode(payload, part.get_content_charset()) if isinstance(payload, bytes) else ""


def _header(message: Message, field: str) -> str:
    value = message.get(field)
    if value is None:
        return ""
    if isinstance(value, str):
        value = value[:_MAX_HEADER_CHARACTERS]  # decoding is quadratic in the number of encoded words
    try:
        return one_line(clean(str(make_header(decode_header(value)))))
    except (HeaderParseError, LookupError, UnicodeError, ValueError, TypeError):
        return one_line(clean(str(value)))
