"""Which fields of a configuration are secrets, however they are wrapped."""

from __future__ import annotations

from typing import Annotated

from pydantic import AnyUrl, BaseModel, Field, HttpUrl, SecretBytes, SecretStr

import connectors
from connectors.secret_fields import destination_fields, public_schema, secret_fields


class Inner(BaseModel):
    user: str
    password: SecretStr


class Tree(BaseModel):
    children: list[Tree] = []
    leaf: Inner | None = None


class Config(BaseModel):
    plain: SecretStr
    optional: SecretStr | None = None
    several: list[SecretStr] = []
    named: dict[str, SecretStr] = {}
    raw: SecretBytes = SecretBytes(b"")
    described: Annotated[SecretStr, Field(min_length=1, description="A token.")]
    nested: Inner | None = None
    deep: Tree | None = None
    declared: str = Field("", json_schema_extra={"writeOnly": True})
    root: str = ""
    url: HttpUrl | None = None
    other: AnyUrl | None = None
    region: str = Field("", json_schema_extra={"destination": True})
    count: int = 0


SECRET = {"plain", "optional", "several", "named", "raw", "described", "nested", "deep", "declared"}


def test_every_wrapping_of_a_secret_is_seen() -> None:
    assert secret_fields(Config) == SECRET


def test_the_schema_that_is_shown_says_so_at_the_field_itself() -> None:
    properties = public_schema(Config)["properties"]
    assert {name for name, field in properties.items() if field.get("writeOnly") is True} == SECRET


def test_fields_that_say_where_secrets_go_are_known() -> None:
    assert destination_fields(Config) == {"url", "other", "region"}


def test_a_folder_has_no_secrets() -> None:
    assert secret_fields(connectors.load("files").Config) == frozenset()
