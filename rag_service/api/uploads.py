"""A document as it comes over HTTP: as JSON with its text, or as a form with a file. Both become an `Upload`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema
from starlette.datastructures import UploadFile

from rag_service.api.limits import is_form, is_json
from rag_service.api.schemas import AclModel, MetadataIn, Model
from rag_service.api.strict import loads, storable, unstorable, validated
from rag_service.errors import InvalidRequest, LimitExceeded, UnsupportedDocument
from rag_service.ingest.intake import Incoming, OnConflict
from rag_service.parsing.media_types import EXTENSIONS

M = TypeVar("M", bound=BaseModel)

_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,99}/[a-z0-9][a-z0-9!#$&^_.+-]{0,99}", re.ASCII)
_MARKDOWN = "text/markdown"
_UNKNOWN = "application/octet-stream"
_LONGEST_NAME = 255
_MOST_FIELDS = 20
_JSON_FIELDS = ("metadata", "acl")


def _media_type(value: str) -> str:
    bare = value.partition(";")[0].strip().lower()
    if not _MEDIA_TYPE.fullmatch(bare):
        raise ValueError("must be a media type such as text/markdown")
    return bare


def _text_type(value: str) -> str:
    if not value.startswith("text/") and value != "application/json":
        raise ValueError("of a text must be text/... or application/json; upload anything else as a file")
    return value


def _some_text(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty. Send a text with something in it")
    return value


def _some_bytes(value: bytes) -> bytes:
    if not value:
        raise ValueError("is empty. Send a file with something in it")
    return value


MediaType: TypeAlias = Annotated[str, StringConstraints(max_length=300), AfterValidator(_media_type)]
TextType: TypeAlias = Annotated[MediaType, AfterValidator(_text_type)]
Text: TypeAlias = Annotated[str, AfterValidator(_some_text)]
Title: TypeAlias = Annotated[str, StringConstraints(max_length=1_000, strip_whitespace=True)]
File: TypeAlias = Annotated[
    bytes, AfterValidator(_some_bytes), WithJsonSchema({"type": "string", "contentMediaType": _UNKNOWN})
]


class DocumentFields(Model):
    """What is said about a document besides its content."""

    external_id: Annotated[str, StringConstraints(min_length=1, max_length=1_024)] | None = Field(
        None, description="Your own id; the file's name or the text's SHA-256 when not given."
    )
    title: Title | None = Field(None, description="The document's own title when not given.")
    uri: Annotated[str, StringConstraints(max_length=2_048)] | None = Field(None, description="Where people open it.")
    metadata: MetadataIn = Field(default_factory=dict)
    acl: AclModel | None = Field(
        None, description="Who may read it. A new document without one is read by keys that manage, and nobody else."
    )
    collection: Annotated[str, StringConstraints(min_length=1, max_length=100)] = "default"
    on_conflict: Literal["replace", "skip", "error"] = Field(
        "replace", description="What to do when the collection has a document of this external_id."
    )


class DocumentIn(DocumentFields):
    """A document with its text in the request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "external_id": "handbook/leave",
                    "title": "Parental leave",
                    "text": "# Parental leave\n\nEvery parent may take 16 weeks.",
                    "uri": "https://intranet.example.com/handbook/leave",
                    "metadata": {"department": "hr", "year": 2026},
                    "acl": {"groups": ["staff"], "deny_users": ["intern@example.com"]},
                }
            ]
        }
    )

    text: Text
    media_type: TextType = _MARKDOWN


class DocumentForm(DocumentFields):
    """A document as a file; `metadata` and `acl` are JSON in their form fields."""

    file: File
    media_type: MediaType | None = Field(None, description="Told by the file's name and content when not given.")


class ContentIn(Model):
    """New content as text."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "# Parental leave\n\nNow 18 weeks."}]})

    text: Text
    media_type: TextType = _MARKDOWN
    title: Title | None = None


class ContentForm(Model):
    """New content as a file."""

    file: File
    media_type: MediaType | None = None
    title: Title | None = None


@dataclass(frozen=True, slots=True)
class Content:
    content: bytes
    media_type: str | None
    file_name: str
    title: str | None


@dataclass(frozen=True, slots=True)
class Upload:
    """A document at the door of the API: what is said about it, and its bytes."""

    about: DocumentFields
    content: Content

    @property
    def collection(self) -> str:
        return self.about.collection

    @property
    def on_conflict(self) -> OnConflict:
        return self.about.on_conflict

    def incoming(self, largest: int) -> Incoming:
        """Raises LimitExceeded when the content has more than `largest` bytes."""
        about, content = self.about, self.content
        check_size(content, largest)
        digest = hashlib.sha256(content.content).hexdigest()
        return Incoming(
            external_id=about.external_id or content.file_name or f"sha256:{digest}",
            read=lambda: content.content,
            title=about.title or "",
            file_name=content.file_name,
            media_type=content.media_type,
            uri=about.uri,
            metadata=about.metadata,
            acl=None if about.acl is None else about.acl.acl(),
        )


def upload_of(document: DocumentIn) -> Upload:
    return Upload(document, Content(document.text.encode(), document.media_type, "", document.title))


def check_size(content: Content, largest: int) -> None:
    if len(content.content) > largest:
        raise LimitExceeded(f"The document is larger than {largest:,} bytes. Split it, or raise RAG_MAX_UPLOAD_BYTES.")


async def read_upload(request: Request) -> Upload:
    """A dependency: the document of either kind of body. Raises InvalidRequest, UnsupportedDocument."""
    if not is_form(request.headers):
        return upload_of(await _json(request, DocumentIn))
    form, name, declared = await read_form(request, DocumentForm)
    return Upload(form, Content(form.file, form.media_type or _type_of(name, declared), name, form.title))


async def read_content(request: Request) -> Content:
    """A dependency: new content of either kind of body. Raises InvalidRequest, UnsupportedDocument."""
    if not is_form(request.headers):
        text = await _json(request, ContentIn)
        return Content(text.text.encode(), text.media_type, "", text.title)
    form, name, declared = await read_form(request, ContentForm)
    return Content(form.file, form.media_type or _type_of(name, declared), name, form.title)


def bodies(json_model: type[BaseModel], form_model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says about a route that takes either body."""

    def schema(model: type[BaseModel]) -> dict[str, Any]:
        return {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}

    content = {"application/json": schema(json_model), "multipart/form-data": schema(form_model)}
    return {"requestBody": {"required": True, "content": content}}


async def _json(request: Request, model: type[M]) -> M:
    if not is_json(request.headers):
        raise UnsupportedDocument(
            "Send application/json with a text, or multipart/form-data with a file.", code="unsupported_content_type"
        )
    return validated(model, await request.json())


async def read_form(request: Request, model: type[M]) -> tuple[M, str, str]:
    """The form as `model`, the name of its file, and the media type declared for it."""
    values: dict[str, Any] = {}
    name = declared = ""
    async with request.form(max_files=_MOST_FIELDS, max_fields=_MOST_FIELDS) as form:
        files = [field for field, value in form.multi_items() if isinstance(value, UploadFile)]
        if len(files) > 1 or not set(files).isdisjoint(_JSON_FIELDS):
            raise InvalidRequest("Send one file per request; metadata and acl are plain fields.")
        for field, value in form.multi_items():
            if isinstance(value, UploadFile):
                name, declared = _file_name(value.filename or ""), value.content_type or ""
                values[field] = await value.read()
            else:
                values[field] = _field(field, value)
    return validated(model, values), name, declared


def _field(name: str, value: str) -> object:
    if not storable(value):
        raise unstorable()
    if name not in _JSON_FIELDS:
        return value
    try:
        return loads(value)
    except InvalidRequest as error:
        raise InvalidRequest(f"The form field {name} must hold valid JSON.", code=error.code) from None


def _file_name(given: str) -> str:
    """The last part of the name, printable and of a length that databases and people can stand."""
    last = PurePosixPath(given.replace("\\", "/")).name
    return "".join(char if char.isprintable() else " " for char in last).strip()[-_LONGEST_NAME:]


def _type_of(name: str, declared: str) -> str | None:
    """What the client said, unless that is nothing; else what the name says; else left to the content."""
    bare = declared.partition(";")[0].strip().lower()
    if bare != _UNKNOWN and _MEDIA_TYPE.fullmatch(bare):
        return bare
    return EXTENSIONS.get(PurePosixPath(name).suffix.lower())
