"""JSON and JSON lines, laid out so that they can be cut by line."""

from __future__ import annotations

import json
from typing import Any

from rag_service.parsing.render import clean, corrupt, made_by, one_line
from rag_service.parsing.text import decode
from rag_service.types import ParsedDocument

_TITLE_KEYS = ("title", "name", "subject")


class Json:
    """One document: indented by two, its title from a `title`, `name` or `subject` at the top."""

    media_types = frozenset({"application/json"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        value = _load(decode(content), "The file")
        return _document(
            [json.dumps(value, indent=2, ensure_ascii=False)] if value not in ("", [], {}, None) else [], value
        )


class JsonLines:
    """One value per line; each becomes one line."""

    media_types = frozenset({"application/x-ndjson"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        lines = [(number, line) for number, line in enumerate(decode(content).split("\n"), 1) if line.strip()]
        values = [_load(line, f"Line {number}") for number, line in lines]
        return _document([json.dumps(value, ensure_ascii=False) for value in values], None)


def _load(text: str, where: str) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except RecursionError:
        raise corrupt(f"{where} is JSON nested deeper than can be read.") from None
    except ValueError as error:
        raise corrupt(f"{where} is not valid JSON ({error}).") from None


def _document(lines: list[str], value: Any) -> ParsedDocument:
    named = value if isinstance(value, dict) else {}
    titles = (named[key] for key in _TITLE_KEYS if isinstance(named.get(key), str))
    title = next((one_line(clean(title)) for title in titles if title.strip()), None)
    return ParsedDocument(text=clean("\n".join(lines)), title=title, layout="code", parser=made_by("rag-service"))
