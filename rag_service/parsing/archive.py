"""Zip containers (Office, EPUB, OpenDocument): checked before anything is inflated, and their XML read safely."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import Any

from lxml import etree

from rag_service.errors import UnsupportedDocument
from rag_service.parsing.render import corrupt, one_line

MAX_MEMBERS = 10_000
MAX_INFLATED_BYTES = 1024**3
MAX_RATIO = 100
# Below this size a high ratio harms nobody: an empty spreadsheet's styles reach it honestly.
RATIO_FREE_BYTES = 16 * 1024**2

_CORE_PROPERTIES = "docProps/core.xml"
_DC_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_TEMPLATE_TITLES = frozenset({"powerpoint presentation", "word document", "untitled", "presentation", "document"})


def open_archive(content: bytes) -> zipfile.ZipFile:
    """A zip whose members are few, sanely named, not encrypted and small enough to inflate.

    The sizes are the declared ones; `zipfile` inflates no member beyond them, and a member that holds more
    or less than it declares fails its checksum.
    Raises UnsupportedDocument: corrupt, encrypted, too_large.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, UnicodeDecodeError) as error:
        raise corrupt(f"The file is no readable zip container ({error}).") from None
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise _too_large(f"{len(members):,} files inside; {MAX_MEMBERS:,} are allowed")
    inflated = sum(member.file_size for member in members)
    if inflated > MAX_INFLATED_BYTES:
        raise _too_large(f"{inflated / 1024**2:,.0f} MB unpacked; {MAX_INFLATED_BYTES / 1024**2:,.0f} MB are allowed")
    if inflated > RATIO_FREE_BYTES and inflated > MAX_RATIO * len(content):
        raise _too_large(f"{inflated // len(content):,} times its size unpacked; {MAX_RATIO} times is allowed")
    if any(member.flag_bits & 1 for member in members):
        raise encrypted("The file is protected with a password.")
    if any(not _sane(member.filename) for member in members):
        raise corrupt("The container holds a file whose name leads out of it.")
    return archive


def read_member(archive: zipfile.ZipFile, member: str) -> bytes:
    """The bytes of a member. Raises UnsupportedDocument (corrupt) when it is missing or damaged."""
    try:
        return archive.read(member)
    except KeyError:
        raise corrupt(f"The container lacks its part {member!r}.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise corrupt(f"The part {member!r} of the container is damaged ({error}).") from None


def read_xml(archive: zipfile.ZipFile, member: str) -> Any:
    """The root element of an XML member; entities are not expanded, nothing outside of it is read."""
    return parse_xml(read_member(archive, member), member)


def parse_xml(content: bytes, what: str) -> Any:
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(content, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise corrupt(f"The part {what!r} is not well-formed XML ({error}).") from None
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and any(True for _ in declared.iterentities()):
        raise corrupt(f"The part {what!r} declares entities of its own, as no such document needs to.")
    return root


def core_title(archive: zipfile.ZipFile) -> str | None:
    """The title among an Office file's properties; a template's own title counts as none."""
    try:
        found = read_xml(archive, _CORE_PROPERTIES).findtext(f".//{_DC_TITLE}")
    except UnsupportedDocument:
        return None
    title = one_line(str(found or ""))
    return title if title and title.lower() not in _TEMPLATE_TITLES else None


def encrypted(what: str) -> UnsupportedDocument:
    return UnsupportedDocument(f"{what} Remove the protection and upload it again.", code="encrypted")


def _too_large(what: str) -> UnsupportedDocument:
    return UnsupportedDocument(f"The container is too large: {what}. Split it and upload the parts.", code="too_large")


def _sane(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return "\0" not in name and not path.is_absolute() and ".." not in path.parts
