"""EPUB: the chapters in reading order."""

from __future__ import annotations

import posixpath
from typing import Any
from urllib.parse import unquote
from zipfile import ZipFile

from rag_service.parsing.archive import encrypted, open_archive, read_member, read_xml
from rag_service.parsing.html import to_markdown
from rag_service.parsing.render import corrupt, join_blocks, made_by, one_line
from rag_service.types import ParsedDocument

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_CHAPTER_TYPES = frozenset({"application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document"})


class Epub:
    """A chapter that is listed but missing is left out; a book without any chapter is corrupt."""

    media_types = frozenset({"application/epub+zip"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        archive = open_archive(content)
        package_path = _package_path(archive)
        package = read_xml(archive, package_path)
        members = set(archive.namelist())
        chapters = [each for each in _chapters(package, posixpath.dirname(package_path)) if each in members]
        if not chapters:
            raise corrupt("The book lists no chapter that is in it.")
        if _protected(archive) & set(chapters):
            raise encrypted("The book is protected by rights management.")
        text = join_blocks(to_markdown(read_member(archive, chapter))[0] for chapter in chapters)
        title = one_line(str(package.findtext(".//{*}metadata/{*}title") or package.findtext(".//{*}title") or ""))
        return ParsedDocument(text=text, title=title or None, parser=made_by("lxml"))


def _package_path(archive: ZipFile) -> str:
    found = read_xml(archive, _CONTAINER).find(".//{*}rootfile")
    path = str(found.get("full-path", "")) if found is not None else ""
    if not path:
        raise corrupt("The book does not say where its contents are listed.")
    return path


def _chapters(package: Any, folder: str) -> list[str]:
    items = {item.get("id"): item for item in package.iter("{*}item")}
    order = [items.get(reference.get("idref")) for reference in package.iter("{*}itemref")]
    return [
        posixpath.normpath(posixpath.join(folder, unquote(str(item.get("href", "")))))
        for item in order
        if item is not None and item.get("media-type") in _CHAPTER_TYPES
    ]


def _protected(archive: ZipFile) -> set[str]:
    """Members that are encrypted: fonts often are, harmlessly; chapters only by rights management."""
    if _ENCRYPTION not in archive.namelist():
        return set()
    references = read_xml(archive, _ENCRYPTION).iter("{*}CipherReference")
    return {unquote(str(reference.get("URI", ""))) for reference in references}
