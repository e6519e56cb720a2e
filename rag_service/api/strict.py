"""Requests taken at their word: parameters that the route knows, and JSON bodies as the standard has them.

Their numbers are finite, their text can be stored, nothing is nested without end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from fnmatch import fnmatchcase
from typing import Any, NoReturn, TypeVar

from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from rag_service.api.limits import is_json
from rag_service.api.problems import NO_BODY
from rag_service.errors import InvalidRequest, UnsupportedDocument

M = TypeVar("M", bound=BaseModel)

# Parsing this much takes about a millisecond: beyond it, the other requests should not wait.
_INLINE_BYTES = 128 * 1024
# A filter of ten levels takes about thirty of these.
_MOST_LEVELS = 64
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class StrictRoute(APIRoute):
    """A route whose JSON body is read by `loads`, and whose address holds no NUL and no parameter that it ignores."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, known = super().get_route_handler(), _parameters(self.dependant)

        async def strictly(request: Request) -> Response:
            if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
                raise InvalidRequest("The address contains NUL. Leave it out.", code="invalid_text")
            _check_parameters(request, known)
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


def _parameters(dependant: Dependant) -> list[str]:
    """The names that a query may have; one that ends in `*` stands for all that begin like it."""
    own = [field.alias for field in dependant.query_params]
    return own + [name for one in dependant.dependencies for name in _parameters(one)]


def _check_parameters(request: Request, known: list[str]) -> None:
    """Raises RequestValidationError: a misspelt parameter would be left out of account, also of what is deleted."""
    unknown = [name for name in request.query_params if not any(fnmatchcase(name, one) for one in known)]
    if unknown:
        takes = f"This route takes {', '.join(known)}." if known else "This route takes none."
        said = {"type": "unknown_parameter", "msg": f"There is no such parameter. {takes}"}
        raise RequestValidationError([{**said, "loc": ("query", name)} for name in unknown])


class _StrictRequest(Request):
    async def body(self) -> bytes:
        body = await super().body()
        if body and not is_json(self.headers):
            raise UnsupportedDocument(
                "Send the body as JSON, with the header Content-Type: application/json.",
                code="unsupported_content_type",
            )
        return body

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            body = await self.body()
            if not body:
                raise InvalidRequest(NO_BODY)
            self._json = loads(body) if len(body) <= _INLINE_BYTES else await run_in_threadpool(loads, body)
        return self._json


def loads(body: bytes | str) -> Any:
    """Raises InvalidRequest: malformed JSON, NaN and Infinity, NUL or lone surrogates in any text, too deep."""
    try:
        text = body if isinstance(body, str) else body.decode("utf-8")
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise InvalidRequest(
            "The body is not valid JSON in UTF-8. Check it with a JSON linter.", code="invalid_json"
        ) from None
    if _is_deeper(value, _MOST_LEVELS):
        raise _too_deep()
    # Only an escape can smuggle them in: UTF-8 has no surrogates, and JSON no raw control characters.
    if "\\u" in text and _has_unstorable(value):
        raise unstorable()
    return value


def storable(text: str) -> bool:
    """Whether UTF-8 and every database can hold this text: no NUL, no half of a surrogate pair."""
    return _UNSTORABLE.search(text) is None


def unstorable() -> InvalidRequest:
    return InvalidRequest(
        "A text contains NUL or half of a surrogate pair. Send valid Unicode text.", code="invalid_text"
    )


def validated(model: type[M], value: object) -> M:
    """`value` as a `model`, refused in the same words as a body that FastAPI validates."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in found]) from None


def _too_deep() -> InvalidRequest:
    return InvalidRequest("The JSON is nested too deeply. Flatten it.", code="invalid_json")


def _is_deeper(value: object, levels: int) -> bool:
    """Level by level rather than by recursion, which what is measured here would exhaust."""
    level = [value]
    for _ in range(levels + 1):
        members = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [member for inside in members for member in inside if isinstance(member, dict | list)]
        if not level:
            return False
    return True


def _has_unstorable(value: object) -> bool:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if not storable(one):
                return True
        elif isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, dict):
            waiting.extend(one)
            waiting.extend(one.values())
    return False


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
