"""A request's body is measured before anything reads it."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag_service.api import problems
from rag_service.errors import LimitExceeded

# What a form may hold beside its file: the other fields and the boundaries.
FORM_SLACK = 2 * 1024 * 1024


class BodyLimit:
    """Refuses bodies over the limit with 413: by their Content-Length, or as soon as their chunks add up to more."""

    def __init__(self, app: ASGIApp, *, json_bytes: int, upload_bytes: int) -> None:
        self._app = app
        self._json_bytes = json_bytes
        self._form_bytes = upload_bytes + FORM_SLACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._form_bytes if is_form(headers) else self._json_bytes
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            response = problems.respond_to(scope, too_large(limit))
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        received = 0

        async def measured() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise too_large(limit)
            return message

        await self._app(scope, measured, send)


def is_form(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data"


def too_large(limit: int) -> LimitExceeded:
    return LimitExceeded(f"The body is larger than {limit:,} bytes. Send less at once, or a larger document as a file.")
