"""The process in which parsers run: `python -m rag_service.parsing.child`, started by `sandbox.py` and by nobody else.

One request is two frames, {"name", "media_type"} and the content; one reply is two frames, the JSON of a
ParsedDocument without its text, or of a failure, and the text. Standard output and error lead nowhere.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_service.errors import UnsupportedDocument
from rag_service.lifeline import die_with_the_service
from rag_service.parsing import confinement
from rag_service.parsing.frames import MAX_FRAME_BYTES, READY, WireBroken, receive, send

MAX_DOCUMENTS = 500


def main() -> None:
    options = _options()
    die_with_the_service(options.lifeline)
    confinement.confine(Path(options.folder), options.memory_bytes)
    worker = _Worker(options)
    with contextlib.suppress(WireBroken):
        send(options.replies, (READY,))
        while worker.serve_one():
            pass


class _Worker:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._extra: Mapping[str, str] = dict(pair.split("=", 1) for pair in options.extra)
        self._served = 0

    def serve_one(self) -> bool:
        """Answer one request; False when this process has done its share and ends."""
        request = json.loads(receive(self._options.requests, MAX_FRAME_BYTES))
        content = receive(self._options.requests, MAX_FRAME_BYTES)
        confinement.allow_cpu(self._options.timeout)
        reply, text = self._answer(content, request["name"], request["media_type"])
        del content
        self._served += 1
        _empty(Path(self._options.folder))
        retires = self._served >= MAX_DOCUMENTS or confinement.resident_bytes() > self._options.memory_bytes * 3 // 4
        reply["retires"] = retires or reply.get("code") == "memory"
        send(self._options.replies, (json.dumps(reply).encode(), text))
        return not reply["retires"]

    def _answer(self, content: bytes, name: str, media_type: str | None) -> tuple[dict[str, Any], bytes]:
        try:
            return _parsed(content, name, media_type, self._extra, self._options.max_text)
        except UnsupportedDocument as error:
            # A library may wrap what it met when memory ran out into an error of its own.
            starved = _caused_by_memory(error)
            return _out_of_memory() if starved else ({"code": error.code, "message": error.message}, b"")
        except MemoryError:
            return _out_of_memory()


def _parsed(
    content: bytes, name: str, media_type: str | None, extra: Mapping[str, str], max_text: int
) -> tuple[dict[str, Any], bytes]:
    from rag_service.parsing import registry

    # A type given by a test's own parser is taken as it is.
    kind = media_type if media_type in extra else registry.media_type_of(name, media_type, content)
    document = registry.parse(content, name, kind or "", extra)
    text = document.text.encode()
    if len(text) > max_text:
        raise UnsupportedDocument(
            f"The text of the document is {len(text) / 1024**2:,.0f} MB; {max_text / 1024**2:,.0f} MB are allowed. "
            "Split it and upload the parts.",
            code="too_large",
        )
    head = {
        "title": document.title,
        "pages": [[page.start, page.page] for page in document.pages],
        "layout": document.layout,
        "parser": document.parser,
    }
    return head, text


def _out_of_memory() -> tuple[dict[str, Any], bytes]:
    return {"code": "memory", "message": ""}, b""


def _caused_by_memory(error: BaseException | None) -> bool:
    while error is not None:
        said = str(error).lower()
        if isinstance(error, MemoryError) or "out of memory" in said or "memory allocation failed" in said:
            return True
        error = error.__cause__ or error.__context__
    return False


def _empty(folder: Path) -> None:
    """Remove what a document left behind, before the next one."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                entry.unlink()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rag_service.parsing.child")
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--replies", type=int, required=True)
    parser.add_argument("--lifeline", type=int, required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--max-text", type=int, required=True)
    parser.add_argument("--extra", action="append", default=[], metavar="MEDIA_TYPE=MODULE:CLASS")
    return parser.parse_args()


if __name__ == "__main__":
    main()
