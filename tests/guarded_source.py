"""A source type whose configuration holds secrets, for tests: it checks them as a real system would."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import ClassVar

from pydantic import AnyUrl, BaseModel, ConfigDict, Field, SecretStr

from connectors.base import Change, Check, Checkpoint, Cursor, Item, Upsert
from connectors.errors import FatalSourceError, SkippableItemError

TYPE = "guarded"
PLACE = "tests.guarded_source:GuardedConnector"

log = logging.getLogger("connectors.guarded")


class Proxy(BaseModel):
    host: str
    password: SecretStr


class GuardedConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: AnyUrl = Field(AnyUrl("https://wiki.example.com"))
    region: str = Field("eu", json_schema_extra={"destination": True})
    pages: list[str] = Field(default_factory=lambda: ["start"])
    expects: str = Field("", description="What the token must be; the test's stand-in for the other side.")
    misbehave: str = ""
    token: SecretStr
    password: SecretStr | None = None
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    proxy: Proxy | None = None


class GuardedConnector:
    Config: ClassVar[type[BaseModel]] = GuardedConfig
    incremental: ClassVar[bool] = False
    reports_deletes: ClassVar[bool] = False
    reports_acl: ClassVar[bool] = False

    def __init__(self, config: GuardedConfig) -> None:
        self._config = config

    def check(self) -> Check:
        self._enter()
        return Check(len(self._config.pages), tuple(self._config.pages))

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:
        log.debug("reading with %s", self._config)
        self._enter()
        for page in self._config.pages:
            yield Upsert(Item(page, page, "text/markdown", "", f"https://wiki.example.com/{page}", self._read))
        yield Checkpoint({}, complete=True)

    def _enter(self) -> None:
        token = self._config.token.get_secret_value()
        if self._config.expects and not token.startswith(self._config.expects):
            raise FatalSourceError(f"401 for Authorization: Bearer {token}", code="refused")
        if self._config.misbehave == "defect":
            try:
                raise ValueError(f"token {token}")
            except ValueError as error:
                raise RuntimeError("while signing") from error

    def _read(self) -> bytes:
        if self._config.misbehave == "item":
            raise SkippableItemError(f"GET /page?access_token={self._config.token.get_secret_value()} failed")
        return b"# A page\n\nThe page of the wiki speaks of turnips."
