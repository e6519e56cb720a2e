"""What a request may look like, how fast it must come, and how many are worked on at a time."""

from __future__ import annotations

import asyncio
from collections import Counter

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag_service.api import problems
from rag_service.errors import (
    ClientTooSlow,
    InvalidRequest,
    LimitExceeded,
    RagError,
    RetryableError,
    UnsupportedDocument,
)

# What a form may hold beside its file: the other fields and the boundaries.
FORM_SLACK = 2 * 1024 * 1024
MOST_HEADERS = 100
MOST_HEADER_BYTES = 32 * 1024
MOST_ADDRESS_BYTES = 8 * 1024
# Bytes per second below which a client is taken for one that only wants to hold its connection.
SLOWEST = 8 * 1024


class AddressTooLong(InvalidRequest):
    """The address is too long. Send what it holds in a body, or less of it."""

    status = 414
    default_code = "address_too_long"


class HeadersTooLarge(InvalidRequest):
    """The headers are too many or too large. Send fewer of them."""

    status = 431
    default_code = "headers_too_large"


class RequestShape:
    """Refuses, before anybody looks for a key, what no client of ours sends: long addresses, many headers, packed data.

    A compressed body is refused with 415 rather than unpacked: a few kilobytes can become gigabytes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = _misshapen(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
            return
        response = problems.respond_to(scope, error)
        if isinstance(error, UnsupportedDocument):
            response.headers["Accept-Encoding"] = "identity"
        await response(scope, receive, send)


def _misshapen(scope: Scope) -> RagError | None:
    headers = scope["headers"]
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MOST_ADDRESS_BYTES:
        return AddressTooLong()
    if len(headers) > MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > MOST_HEADER_BYTES:
        return HeadersTooLarge()
    encodings = [value.strip().lower() for name, value in headers if name == b"content-encoding"]
    if any(encoding not in (b"", b"identity") for encoding in encodings):
        return UnsupportedDocument("Send the body as it is, without Content-Encoding.", code="unsupported_encoding")
    return None


class Ceiling:
    """Works on `most` requests at a time, at most half of them of one team, and refuses more with 503 at once.

    Without it they would queue, and each would be answered long after its caller gave up. Stands behind the Guard:
    what is open to everybody is not counted, so that a loaded service still says that it is alive.
    """

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app = app
        self._most = most
        self._of_one_team = max(1, most // 2)
        self._under_way: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope["state"].get("caller") if scope["type"] == "http" else None
        if caller is None:
            await self._app(scope, receive, send)
            return
        team = caller.team
        if self._under_way.total() >= self._most or self._under_way[team] >= self._of_one_team:
            await problems.respond_to(scope, _overloaded())(scope, receive, send)
            return
        self._under_way[team] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way[team] -= 1
            if not self._under_way[team]:
                del self._under_way[team]


class BodyLimit:
    """Refuses bodies over the limit with 413: by their Content-Length, or as soon as their chunks add up to more.

    A body that comes more slowly than `SLOWEST`, beyond a start of `timeout_s` seconds, is refused with 408.
    """

    def __init__(self, app: ASGIApp, *, json_bytes: int, upload_bytes: int, timeout_s: float = 30.0) -> None:
        self._app = app
        self._json = json_bytes, _too_large(json_bytes)
        self._form = upload_bytes + FORM_SLACK, _form_too_large(upload_bytes)
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit, refusal = self._form if is_form(headers) else self._json
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            response = problems.respond_to(scope, LimitExceeded(refusal))
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        body = _Body(receive, limit, refusal, self._timeout_s)
        await self._app(scope, body.receive, send)


class _Body:
    """One request's body, as far as it has come."""

    def __init__(self, receive: Receive, limit: int, refusal: str, timeout_s: float) -> None:
        self._receive = receive
        self._limit = limit
        self._refusal = refusal
        self._timeout_s = timeout_s
        self._began: float | None = None
        self._received = 0
        self._complete = False

    async def receive(self) -> Message:
        if self._complete:
            # What is awaited now is the client's leaving.
            return await self._receive()
        now = asyncio.get_running_loop().time
        self._began = now() if self._began is None else self._began
        left = self._began + self._timeout_s + self._received / SLOWEST - now()
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.001))
        except TimeoutError:
            raise ClientTooSlow from None
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._received > self._limit:
            raise LimitExceeded(self._refusal)
        return message


def is_form(headers: Headers) -> bool:
    return _kind(headers) == "multipart/form-data"


def is_json(headers: Headers) -> bool:
    kind = _kind(headers)
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _kind(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _too_large(limit: int) -> str:
    return f"The body is larger than {limit:,} bytes. Send less at once, or a larger document as a file."


def _form_too_large(largest: int) -> str:
    return f"The form is too large: its file may have {largest:,} bytes. Split it, or raise RAG_MAX_UPLOAD_BYTES."


def _overloaded() -> RetryableError:
    return RetryableError("The service is busy. Try again shortly.", code="overloaded", retry_after=1)
