"""HTML: the main content as Markdown, without scripts, navigation and other noise. Also for e-mail and EPUB."""

from __future__ import annotations

import re
from typing import Any

from lxml import etree, html

from rag_service.parsing.html_writer import MarkdownWriter
from rag_service.parsing.render import corrupt, made_by, one_line
from rag_service.parsing.text import decode
from rag_service.types import ParsedDocument

_NEVER_TEXT = [
    "script", "style", "noscript", "template", "iframe", "object", "embed", "svg", "math", "canvas", "audio",
    "video", "map", "select", "button", "input", "textarea",
]  # fmt: skip
_NOISE = frozenset({"nav", "footer", "aside"})
_NOISE_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "complementary"})
_DECLARED_CHARSET = re.compile(rb"(?:charset|encoding)\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_MAIN_SHARE = 0.2


class Html:
    media_types = frozenset({"text/html"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        text, title = to_markdown(content)
        return ParsedDocument(text=text, title=title, parser=made_by("lxml"))


def to_markdown(content: bytes | str) -> tuple[str, str | None]:
    """The main content of a page as Markdown, and its title (`<title>`, else the first `<h1>`).

    Raises UnsupportedDocument (corrupt) when the page is nested deeper than can be read to its end.
    """
    root = _tree(content if isinstance(content, str) else decode(content, _declared_charset(content)))
    if root is None:
        return "", None
    etree.strip_elements(root, *_NEVER_TEXT, with_tail=False)
    title = _title(root)
    for element in root.findall("head"):
        element.clear()
    main = _main(root)
    return _written(main, drop_noise=True) or _written(root, drop_noise=False), title


def _tree(text: str) -> Any:
    # huge_tree raises the depth at which libxml2 stops without a word from 256 to 2,048.
    parser = html.HTMLParser(
        encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True, no_network=True, recover=True
    )
    try:
        root = html.document_fromstring(text.encode("utf-8"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError):
        root = None
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise corrupt("The page is nested deeper than 2,048 elements.")
    return root


def _declared_charset(content: bytes) -> str | None:
    found = _DECLARED_CHARSET.search(content[:4096])
    return found.group(1).decode("ascii", "replace") if found else None


def _title(root: Any) -> str | None:
    for path in ("head/title", ".//h1"):
        found = root.find(path)
        if found is not None and (title := one_line(_text(found))):
            return title
    return None


def _main(root: Any) -> Any:
    """The one `main` or `article` when it holds a good share of the page's text, else the whole page."""
    everything = len(_text(root))
    for path in (".//main", ".//*[@role='main']", ".//article"):
        found = root.findall(path)
        if len(found) == 1 and len(_text(found[0])) > _MAIN_SHARE * everything:
            return found[0]
    return root


def _text(element: Any) -> str:
    return str(etree.tostring(element, method="text", encoding="unicode", with_tail=False))


def _written(root: Any, *, drop_noise: bool) -> str:
    """Walks with an explicit stack (iterwalk): the depth of a page is its author's choice, that of our stack is not."""
    writer = MarkdownWriter(layout_tables=_layout_tables(root))
    walker = etree.iterwalk(root, events=("start", "end"))
    skipped = None
    for event, element in walker:
        if event == "start":
            if drop_noise and element is not root and _is_noise(element):
                walker.skip_subtree()
                skipped = element
                continue
            writer.start(element)
            writer.text(element.text)
        else:
            if element is not skipped:
                writer.end(element)
            if element is not root:
                writer.text(element.tail)
    return writer.result()


def _is_noise(element: Any) -> bool:
    return (
        element.tag in _NOISE
        or element.get("role") in _NOISE_ROLES
        or element.get("aria-hidden") == "true"
        or element.get("hidden") is not None
    )


def _layout_tables(root: Any) -> frozenset[Any]:
    """Tables that hold headings, code or further tables: they place things on a page and are no data."""
    found: set[Any] = set()
    stack: list[Any] = []
    for event, element in etree.iterwalk(root, events=("start", "end"), tag=("table", "h1", "h2", "h3", "pre")):
        if event == "start" and stack:
            found.add(stack[-1])
        if element.tag == "table":
            stack.append(element) if event == "start" else stack.pop()
    return frozenset(found)
