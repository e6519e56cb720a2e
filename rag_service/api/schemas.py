"""What several resources share: the strict base model, ACLs, metadata, lists."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, Protocol, TypeAlias, TypeVar

from fastapi import Depends, Path, Query, Request, Response
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    WithJsonSchema,
)

from connectors.base import Acl
from rag_service.db.pages import Page
from rag_service.errors import ErrorClass
from rag_service.runtime import Runtime

T = TypeVar("T")
R = TypeVar("R")

METADATA_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MOST_KEYS = 64
_LONGEST_VALUE = 2_048
_MOST_VALUES = 1_000
_INT64 = 2**63
_SCALAR_SCHEMA = {"anyOf": [{"type": kind} for kind in ("string", "number", "boolean")]}


class Model(BaseModel):
    """A request: unknown fields are refused, so that a misspelt one is noticed."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def _written_out(value: object) -> object:
    if isinstance(value, int | float) or (isinstance(value, str) and not _DATE.match(value)):
        raise ValueError("is not a time such as 2026-01-31T12:00:00Z")
    return value


# A number is no time here, though pydantic would take it for seconds since 1970.
Moment: TypeAlias = Annotated[AwareDatetime, BeforeValidator(_written_out)]


def checked_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """Flat: names to scalars or lists of scalars. Raises ValueError."""
    if len(metadata) > _MOST_KEYS:
        raise ValueError(f"has more than {_MOST_KEYS} keys")
    for place, (key, value) in enumerate(metadata.items(), start=1):
        if not METADATA_KEY.fullmatch(key):
            raise ValueError(f"key {place} is not made of 1 to 64 letters, digits, _ or -")
        if isinstance(value, list):
            if len(value) > _MOST_VALUES:
                raise ValueError(f"{key} lists more than {_MOST_VALUES} values")
            for one in value:
                _check_scalar(key, one)
        else:
            _check_scalar(key, value)
    return metadata


def _check_scalar(key: str, value: object) -> None:
    match value:
        case bool():
            return
        case str() if len(value) > _LONGEST_VALUE:
            raise ValueError(f"{key} is longer than {_LONGEST_VALUE} characters")
        case str():
            return
        case int() if -_INT64 <= value < _INT64:
            return
        case float() if math.isfinite(value):
            return
        case int() | float():
            raise ValueError(f"{key} is out of range; numbers are finite and within 64 bits")
    raise ValueError(f"{key} is neither a string, number or boolean nor a list of them")


MetadataIn: TypeAlias = Annotated[
    dict[str, Any],
    AfterValidator(checked_metadata),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": _MOST_KEYS,
            "propertyNames": {"pattern": "^[A-Za-z0-9_-]{1,64}$"},
            "additionalProperties": {"anyOf": [*_SCALAR_SCHEMA["anyOf"], {"type": "array", "items": _SCALAR_SCHEMA}]},
            "examples": [{"department": "hr", "year": 2026, "tags": ["leave", "policy"]}],
        }
    ),
]
Name: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
PersonName: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Id: TypeAlias = Annotated[str, Path(max_length=100)]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=1000, description="How many to list at most.")]
After: TypeAlias = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")]


class AclModel(Model):
    """Who may read a document. Deny wins over allow; the empty ACL admits nobody but keys that manage."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"users": ["ada@example.com"], "groups": ["hr"]}]})

    public: StrictBool = False
    users: list[PersonName] = Field(default_factory=list, max_length=1_000)
    groups: list[PersonName] = Field(default_factory=list, max_length=1_000)
    deny_users: list[PersonName] = Field(default_factory=list, max_length=1_000)
    deny_groups: list[PersonName] = Field(default_factory=list, max_length=1_000)

    def acl(self) -> Acl:
        return Acl(
            public=self.public,
            users=tuple(self.users),
            groups=tuple(self.groups),
            deny_users=tuple(self.deny_users),
            deny_groups=tuple(self.deny_groups),
        )

    @classmethod
    def of(cls, acl: Acl) -> AclModel:
        # Sources may have longer lists than requests.
        return cls.model_construct(
            public=acl.public,
            users=list(acl.users),
            groups=list(acl.groups),
            deny_users=list(acl.deny_users),
            deny_groups=list(acl.deny_groups),
        )


class Listing(BaseModel, Generic[T]):
    """One page. Ask for the next with `after=<next_cursor>`, while there is one."""

    data: list[T]
    has_more: bool
    next_cursor: str | None

    @classmethod
    def of(cls, page: Page[R], show: Callable[[R], T]) -> Listing[T]:
        shown = [show(one) for one in page.data]
        return cls(data=shown, has_more=page.next_cursor is not None, next_cursor=page.next_cursor)


class Failure(BaseModel):
    """Why something failed: in which stage, a code for programs, a message that names the next step.

    `error_class` says how it is tried again: transient, quota, auth, poison, permanent or defect. `retryable`: it may
    succeed later without a change of the document.
    """

    stage: str
    code: str
    message: str
    retryable: bool
    error_class: ErrorClass = ErrorClass.PERMANENT

    @classmethod
    def of(cls, error: Mapping[str, Any] | None) -> Failure | None:
        return None if error is None else cls.model_validate(dict(error))


class Queued(BaseModel):
    """Work that goes on; follow it at `GET /v1/jobs/{job_id}`."""

    job_id: str | None


class _OfAJob(Protocol):
    @property
    def job_id(self) -> str | None: ...


J = TypeVar("J", bound=_OfAJob)


def located(response: Response, answer: J) -> J:
    """`answer`, which names the job that follows, if any does; Location then says where it is."""
    if answer.job_id is not None:
        response.headers["Location"] = f"/v1/jobs/{answer.job_id}"
    return answer


async def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


Service = Annotated[Runtime, Depends(_runtime)]
