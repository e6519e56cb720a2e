"""Parsers at work in limited child processes: whatever a document does to its parser, it does to itself only."""

from __future__ import annotations

import signal
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from queue import LifoQueue
from types import TracebackType
from typing import Any, NoReturn

from rag_service.errors import PoisonousDocument, RetryableError, UnsupportedDocument
from rag_service.observe.metrics import parser_died
from rag_service.parsing.frames import MAX_FRAME_BYTES, FrameTooLarge, WireBroken, WireTimeout
from rag_service.parsing.process import ParserProcess
from rag_service.types import PageStart, ParsedDocument

MAX_TEXT_BYTES = 50 * 1024 * 1024
_START_SECONDS = 60.0


class ParserSandbox:
    """Up to `processes` child processes, started when needed and kept; each parses one document at a time.

    One document may take `timeout_s` seconds (wall clock and CPU) and `memory_bytes` of address space, and give
    `max_text_bytes` of text. `extra_parsers` maps further media types to "module:Class" and exists for tests.
    """

    def __init__(
        self,
        timeout_s: float,
        memory_bytes: int,
        processes: int,
        *,
        extra_parsers: Mapping[str, str] | None = None,
        max_text_bytes: int = MAX_TEXT_BYTES,
        scratch: Path | None = None,
    ) -> None:
        """`scratch` holds the children's temporary folders; the system's place for them when None."""
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._max_text_bytes = max_text_bytes
        self._extra = dict(extra_parsers or {})
        self._scratch = scratch
        self._closed = False
        self._lock = threading.Lock()
        self._children: set[ParserProcess] = set()
        # Last in, first out: the warm child is asked before another is started.
        self._seats: LifoQueue[ParserProcess | None] = LifoQueue()
        for _ in range(processes):
            self._seats.put(None)
        self._finalizer = weakref.finalize(self, _end_all, self._children)

    def parse(self, content: bytes, name: str, media_type: str | None) -> ParsedDocument:
        """Parse in a child process; waits for a free one. Threads may share a sandbox.

        Raises UnsupportedDocument: encrypted, corrupt, empty, unsupported, too_large, memory, timeout, crashed.
        Raises RetryableError when the sandbox is closed or no child can be started: not the document's fault.
        """
        if len(content) > MAX_FRAME_BYTES:
            raise UnsupportedDocument("The file is larger than 4 GB. Split it and upload the parts.", code="too_large")
        child = self._seats.get()
        keep = None
        try:
            if child is None or not child.alive:
                child = self._replacement(child)
            reply, text = self._ask(child, content, name, media_type)
            if reply.get("retires"):
                self._discard(child)
            else:
                keep = child
        finally:
            self._seats.put(keep)
        return self._document(reply, text)

    def close(self) -> None:
        """End every child; documents being parsed get a RetryableError, and so does every later one."""
        with self._lock:
            self._closed = True
            children = list(self._children)
        for child in children:
            child.kill()  # whoever is waiting for its answer ends it
        for child in children:
            self._discard(child)

    def __enter__(self) -> ParserSandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _replacement(self, dead: ParserProcess | None) -> ParserProcess:
        if dead is not None:
            self._discard(dead)
        with self._lock:
            self._raise_if_closed()
            child = ParserProcess(self._timeout_s, self._memory_bytes, self._max_text_bytes, self._extra, self._scratch)
            self._children.add(child)
        try:
            child.wait_until_ready(time.monotonic() + _START_SECONDS)
        except (WireBroken, WireTimeout, FrameTooLarge):
            self._discard(child)
            self._raise_if_closed()
            raise RetryableError(
                "No parser process can be started. Check the memory and process limits of the machine.",
                code="parser_unavailable",
            ) from None
        return child

    def _ask(
        self, child: ParserProcess, content: bytes, name: str, media_type: str | None
    ) -> tuple[dict[str, Any], bytes]:
        try:
            return child.ask(content, name, media_type, time.monotonic() + self._timeout_s)
        except WireTimeout:
            self._discard(child)
            self._raise_if_closed()
            raise self._timed_out() from None
        except FrameTooLarge:
            self._discard(child)
            parser_died("too_large")
            raise UnsupportedDocument(
                "The text of the document is larger than is accepted. Split it and upload the parts.", code="too_large"
            ) from None
        except (WireBroken, ValueError):
            self._explain_death(child)
        except BaseException:
            self._discard(child)  # half a conversation: nobody can go on with it
            raise

    def _explain_death(self, child: ParserProcess) -> NoReturn:
        status = self._discard(child)
        self._raise_if_closed()
        if status == -signal.SIGXCPU:
            raise self._timed_out() from None
        parser_died("crashed")
        how = signal.Signals(-status).name if -status in set(signal.Signals) else f"status {status}"
        raise PoisonousDocument(
            f"The parser's process died of this document ({how}). Open it in its own program, save it again, or "
            "convert it to another format, and upload that."
        ) from None

    def _document(self, reply: dict[str, Any], text: bytes) -> ParsedDocument:
        code = reply.get("code")
        if code == "memory":
            raise UnsupportedDocument(
                f"Parsing the document needs more than the {self._memory_bytes // 1024**2:,} MB of memory allowed. "
                "Split it and upload the parts.",
                code="memory",
            )
        if code is not None:
            raise UnsupportedDocument(str(reply["message"]), code=str(code))
        return ParsedDocument(
            text=text.decode(),
            title=None if reply["title"] is None else str(reply["title"]),
            pages=tuple(PageStart(int(start), int(page)) for start, page in reply["pages"]),
            layout=reply["layout"],
            parser=str(reply["parser"]),
        )

    def _timed_out(self) -> UnsupportedDocument:
        parser_died("timeout")
        return UnsupportedDocument(
            f"Parsing the document took longer than {self._timeout_s:g} seconds. Split it, or convert it to a simpler "
            "format, and upload that.",
            code="timeout",
        )

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise RetryableError("The service is stopping. Send the document again shortly.", code="stopping") from None

    def _discard(self, child: ParserProcess) -> int:
        with self._lock:
            self._children.discard(child)
        return child.end()


def _end_all(children: set[ParserProcess]) -> None:
    for child in list(children):
        child.kill()
        child.end()
