"""The contract of a connector, and the words it speaks.

A connector reads one *type* of source. It knows nothing of teams, databases, queues or vectors:
it turns a configuration and a cursor into an iterator of changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias

from pydantic import BaseModel

Cursor: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Acl:
    """Who may read a document. Deny wins over allow; the empty ACL admits nobody."""

    public: bool = False
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    deny_users: tuple[str, ...] = ()
    deny_groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """What a connector yields, before it is ours.

    `version_tag` changes whenever the content may have changed (a size and mtime, an ETag, a commit):
    an item whose tag and ACL are known is never read. `acl` None means: the source's default; `title` "" means:
    the document's own.
    `read` fetches the bytes, only if needed; it may raise the errors of `connectors.errors`.
    """

    external_id: str
    title: str
    media_type: str | None
    version_tag: str
    uri: str
    read: Callable[[], bytes]
    acl: Acl | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Upsert:
    item: Item


@dataclass(frozen=True, slots=True)
class Delete:
    external_id: str


@dataclass(frozen=True, slots=True)
class AclChange:
    external_id: str
    acl: Acl


@dataclass(frozen=True, slots=True)
class Failure:
    """One item that could not be listed or read; its neighbours go on."""

    external_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything yielded before this may be forgotten by the connector: resume from `cursor`.

    `complete` marks the end of a full listing: documents that it did not yield are gone from the source.
    A connector that could not list everything must raise or leave `complete` False, never fall short in silence.
    `total` is the number of items this listing expects in all, when the connector knows it.
    """

    cursor: Cursor
    complete: bool = False
    total: int | None = None


Change: TypeAlias = Upsert | Delete | AclChange | Failure | Checkpoint


@dataclass(frozen=True, slots=True)
class Check:
    """What `check` saw: how many items, and the names of a few."""

    items: int
    sample: tuple[str, ...] = ()


class Connector(Protocol):
    """One source type. Constructed with its own `Config`; the constructor does no work."""

    Config: ClassVar[type[BaseModel]]
    incremental: ClassVar[bool]
    reports_deletes: ClassVar[bool]
    reports_acl: ClassVar[bool]

    def check(self) -> Check:
        """Say whether the source can be read. Raises FatalSourceError or RetryableSourceError."""
        ...

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:
        """Yield changes since `cursor` (None: from the beginning), with a Checkpoint now and then and at the end."""
        ...
