"""The one front door: what a connector yields and what the API is sent become document rows and jobs here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from connectors.base import Acl
from rag_service.access import AccessTokens, tokens_of
from rag_service.blobs import BlobStore
from rag_service.db import Connection, Database, dead_letters, documents, sources
from rag_service.db.documents import Document
from rag_service.db.engine import Transaction
from rag_service.errors import Conflict, RetryableError
from rag_service.ingest import audit_trail, notices
from rag_service.ingest.blob_names import owner
from rag_service.ingest.doorbell import Doorbell
from rag_service.ingest.reopening import reopened
from rag_service.types import DocumentFailure, DocumentStatus, FromStage, JobKind, Metadata, new_id

Change = Literal["new", "modified", "metadata_modified", "unchanged"]
OnConflict = Literal["replace", "skip", "error"]
# Two writers of one document settle in one round; more means a storm, and the sender should back off.
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Target:
    """Where documents go. `default_acl` applies to those without an ACL of their own; that of a source is asked for
    when they are written.

    `bulk`: nobody waits for one of them, so they stand behind uploads. Documents of a sync always do. `anew`: their
    bytes are read whatever their version tags say, and what has not changed is parsed and indexed once more.
    """

    team_id: str
    collection_id: str
    default_acl: Acl = field(default_factory=Acl)
    source_id: str = documents.NO_SOURCE
    listing: int = 0
    parent_id: str | None = None
    bulk: bool = False
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Incoming:
    """A document at the door. Its bytes are read only if `version_tag` is new; "" always reads."""

    external_id: str
    read: Callable[[], bytes]
    title: str = ""
    file_name: str = ""
    media_type: str | None = None
    uri: str | None = None
    metadata: Metadata = field(default_factory=dict)
    acl: Acl | None = None
    version_tag: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of it; `job_id` is the work that follows, if any does."""

    document: Document
    change: Change
    job_id: str | None = None


class Intake:
    def __init__(self, database: Database, blobs: BlobStore, doorbell: Doorbell) -> None:
        self._database = database
        self._blobs = blobs
        self._doorbell = doorbell

    def accept(
        self,
        target: Target,
        incoming: Sequence[Incoming],
        *,
        on_conflict: OnConflict = "replace",
        also: Callable[[Connection, list[Receipt]], object] | None = None,
    ) -> list[Receipt]:
        """Take documents in, one receipt each, in order; all in one transaction, with `also` inside it.

        External ids must differ from each other. Content goes to the blobs before the transaction begins.
        Raises Conflict (on_conflict "error" and the document exists), RetryableError (too many writers at once),
        ListingOverError (its source wants nothing of this listing any more).
        """
        for _ in range(_ROUNDS):
            drafts, in_vain = list[_Draft](), True
            try:
                for item, row in self._look_up(target, incoming):
                    drafts.append(self._draft(target, item, row, on_conflict))
                with self._database.transaction() as transaction:
                    now = _as_it_is_now(transaction.connection, target)
                    receipts = [self._write(transaction, now, draft) for draft in drafts]
                    unchanged = [receipt.document.id for receipt in receipts if receipt.change == "unchanged"]
                    documents.note_seen(transaction.connection, unchanged, target.listing)
                    audit_trail.taken_in(transaction, [draft.row for draft in drafts], receipts)
                    if also is not None:
                        also(transaction.connection, receipts)
                    in_vain = False  # whether a commit that fails has failed is not known
                return receipts
            except Exception as error:
                if in_vain:
                    self._forget(drafts)
                if not isinstance(error, _MovedOnError):
                    raise
        raise RetryableError("This document is being changed by others. Try again shortly.", code="busy")

    def _look_up(self, target: Target, incoming: Sequence[Incoming]) -> list[tuple[Incoming, Document | None]]:
        with self._database.read() as connection:
            names = [item.external_id for item in incoming]
            rows = documents.find(connection, target.collection_id, target.source_id, names)
        return [(item, rows.get(item.external_id)) for item in incoming]

    def _draft(self, target: Target, item: Incoming, row: Document | None, on_conflict: OnConflict) -> _Draft:
        if row is not None and not row.is_deleted:
            if on_conflict == "error":
                raise Conflict(
                    f"There is a document {item.external_id!r} already. Send on_conflict=replace to replace it.",
                    code="document_exists",
                )
            known = item.version_tag and item.version_tag == row.version_tag and not target.anew
            if on_conflict == "skip" or known:
                return _Draft(item, row, keep_row=on_conflict == "skip")
        content = item.read()
        digest = hashlib.sha256(content).hexdigest()
        if row is not None and not row.is_deleted and _same_content(row, digest, item):
            if target.anew:
                self._blobs.put(owner(row.id, row.version), content)  # where they were lost
            return _Draft(item, row)
        document_id = new_id("doc") if row is None else row.id
        version = 1 if row is None else row.version + 1
        key = self._blobs.put(owner(document_id, version), content)
        return _Draft(item, row, _Content(document_id, digest, key, len(content)))

    def _forget(self, drafts: Sequence[_Draft]) -> None:
        """The next look makes other ids for new documents: nobody would ever purge the bytes that these have put."""
        for draft in drafts:
            if draft.row is None and draft.content is not None:
                self._blobs.delete(owner(draft.content.document_id, 1))

    def _write(self, transaction: Transaction, target: Target, draft: _Draft) -> Receipt:
        row, content = draft.row, draft.content
        if row is not None and draft.keep_row:
            return Receipt(row, "unchanged")
        if row is None:
            return self._insert(transaction, target, draft)
        if content is None:
            return self._touch(transaction, target, draft, row)
        described = _described(draft.item, row)
        values = {
            **described,
            **content.columns(),
            "version": row.version + 1,
            "version_tag": draft.item.version_tag,
            "listing": target.listing,
            "status": DocumentStatus.ACCEPTED,
            "error": None,
            "deleted_at": None,
            "purged_at": None,
        }
        if row.is_deleted:
            values["indexed_version"] = None
        stored = documents.change(transaction.connection, row, values, _tokens(described["acl"], target))
        if stored is None:
            raise _MovedOnError
        if row.is_deleted and row.blob_key:
            self._purge_former(transaction, row)
        return self._enqueue(transaction, target, stored, "new" if row.is_deleted else "modified")

    def _purge_former(self, transaction: Transaction, deleted: Document) -> None:
        """Its removal has not come round yet and would take it for alive; the new version may never be indexed."""
        self._doorbell.add(
            transaction,
            JobKind.REMOVE,
            deleted.team_id,
            document_id=deleted.id,
            version=deleted.version,
            payload={"collection_id": None, "indexes": []},
        )

    def _insert(self, transaction: Transaction, target: Target, draft: _Draft) -> Receipt:
        item, content = draft.item, draft.content
        if content is None:
            raise AssertionError("a new document has content")
        values = {
            **_described(item, None),
            **content.columns(),
            "team_id": target.team_id,
            "collection_id": target.collection_id,
            "source_id": target.source_id,
            "external_id": item.external_id,
            "version_tag": item.version_tag,
            "listing": target.listing,
        }
        stored = documents.add(transaction.connection, content.document_id, values, _tokens(item.acl, target))
        if stored is None:
            raise _MovedOnError
        return self._enqueue(transaction, target, stored, "new")

    def _touch(self, transaction: Transaction, target: Target, draft: _Draft, row: Document) -> Receipt:
        """Same content: take over what is said about it, embed nothing, unless it failed or nobody carries it."""
        item, connection = draft.item, transaction.connection
        described = _described(item, row)
        again = reopened(connection, row, by_hand=target.source_id == documents.NO_SOURCE)
        if all(getattr(row, name) == value for name, value in described.items()):
            if item.version_tag != row.version_tag:
                documents.note_tag(connection, row.id, item.version_tag)
            stored = documents.change(connection, row, {**again, "updated_at": row.updated_at}) if again else row
            change: Change = "unchanged"
        else:
            values = {**described, **again, "version_tag": item.version_tag, "listing": target.listing}
            stored = documents.change(connection, row, values, _tokens(described["acl"], target))
            change = "metadata_modified"
        if stored is None:
            raise _MovedOnError
        return self._follow(transaction, target, stored, change, again)

    def _follow(
        self, transaction: Transaction, target: Target, stored: Document, change: Change, again: Mapping[str, Any]
    ) -> Receipt:
        """Queue what follows from the same content: nothing, or bringing its fields along, or all of the work."""
        if target.anew or again.get("status") == DocumentStatus.ACCEPTED:
            return self._enqueue(transaction, target, stored, change)
        if again:
            documents.record(transaction.connection, stored.id, stored.version, "restored")
            dead_letters.supersede(transaction.connection, stored.id)
            notices.ready(transaction, stored, stored.version, stored.chunk_count)
        job_id = None if change == "unchanged" else self.refresh(transaction, stored, target.parent_id)
        return Receipt(stored, change, job_id)

    def _enqueue(self, transaction: Transaction, target: Target, document: Document, change: Change) -> Receipt:
        documents.record(transaction.connection, document.id, document.version, "accepted", change=change)
        if change != "new":
            dead_letters.supersede(transaction.connection, document.id)
        job_id = self._doorbell.add(
            transaction,
            JobKind.INDEX,
            document.team_id,
            bulk=target.bulk,
            source_id=document.source_id or None,
            document_id=document.id,
            version=document.version,
            parent_id=target.parent_id,
            payload={"again": True, "from": FromStage.PARSE} if target.anew else None,
        )
        return Receipt(document, change, job_id)

    def change_acl(
        self, transaction: Transaction, document: Document, acl: Acl, *, parent_id: str | None = None
    ) -> Receipt:
        """Set a document's own ACL. Holds for every search from the commit on; embeds nothing."""
        receipt = self._change(transaction, document, {"acl": acl}, tokens_of(acl), parent_id)
        audit_trail.changed(transaction, document, receipt.document)
        return receipt

    def change_fields(self, transaction: Transaction, document: Document, **values: Any) -> Receipt:
        """Set title, uri or metadata; embeds nothing."""
        receipt = self._change(transaction, document, values, None, None)
        audit_trail.changed(transaction, document, receipt.document)
        return receipt

    def change_default_acl(self, transaction: Transaction, source_id: str, acl: Acl) -> int:
        """Apply a source's new default to its documents without an ACL of their own; returns how many."""
        inheriting = documents.inheriting(transaction.connection, source_id)
        for document in inheriting:
            # The source's own entry tells of all.
            self._change(transaction, document, {}, tokens_of(acl), None, bulk=True)
        return len(inheriting)

    def _change(
        self,
        transaction: Transaction,
        document: Document,
        values: Mapping[str, Any],
        tokens: AccessTokens | None,
        parent_id: str | None,
        *,
        bulk: bool = False,
    ) -> Receipt:
        stored = documents.change(transaction.connection, document, values, tokens)
        if stored is None:
            raise Conflict("The document was changed by somebody else at the same time. Try again.", code="busy")
        kind = "fields_changed" if tokens is None else "acl_changed"
        documents.record(transaction.connection, document.id, document.version, kind)
        return Receipt(stored, "metadata_modified", self.refresh(transaction, stored, parent_id, bulk=bulk))

    def refresh(
        self, transaction: Transaction, document: Document, parent_id: str | None = None, *, bulk: bool = False
    ) -> str | None:
        """Queue bringing a document's chunks up to its ACL and fields; None when nothing is indexed yet."""
        if document.indexed_version is None:
            return None
        return self._doorbell.add(
            transaction,
            JobKind.REFRESH,
            document.team_id,
            bulk=bulk,
            source_id=document.source_id or None,
            document_id=document.id,
            version=document.version,
            parent_id=parent_id,
        )

    def reject(self, target: Target, external_id: str, failure: DocumentFailure) -> None:
        """Put on record that an item could not be fetched. A version that answers goes on answering."""
        with self._database.transaction() as transaction:
            connection = transaction.connection
            target = _as_it_is_now(connection, target)
            row = documents.find(connection, target.collection_id, target.source_id, [external_id]).get(external_id)
            if row is None or row.is_deleted:
                values, tokens = _nothing_fetched(target, external_id), tokens_of(target.default_acl)
                if row is None:
                    row = documents.add(connection, new_id("doc"), values, tokens)
                else:
                    if row.blob_key:
                        self._purge_former(transaction, row)
                    row = documents.revive(connection, row, values, tokens)
                if row is None:
                    return  # it has just come in by another way
            documents.note_seen(connection, [row.id], target.listing)
            documents.note_tag(connection, row.id, "")
            if documents.fail(connection, row.id, row.version, failure):
                notices.failed(transaction, target.team_id, [row.id], failure)


class _MovedOnError(Exception):
    """Somebody else wrote this document between our look and our write; look again."""


@dataclass(frozen=True, slots=True)
class _Content:
    document_id: str
    digest: str
    blob_key: str
    size: int

    def columns(self) -> dict[str, Any]:
        return {"content_hash": self.digest, "blob_key": self.blob_key, "size_bytes": self.size}


@dataclass(frozen=True, slots=True)
class _Draft:
    """One document with the row it was compared to; `content` is set when it makes a new version."""

    item: Incoming
    row: Document | None
    content: _Content | None = None
    keep_row: bool = False


def _as_it_is_now(connection: Connection, target: Target) -> Target:
    """With its source's default ACL, which nobody changes before the commit. Raises ListingOverError."""
    if target.source_id == documents.NO_SOURCE:
        return target
    return replace(target, default_acl=sources.being_listed(connection, target.source_id, target.listing).acl)


def _same_content(row: Document, digest: str, item: Incoming) -> bool:
    # The media type decides how the bytes are read, so other type, other content.
    return row.content_hash == digest and (item.media_type is None or item.media_type == row.media_type)


def _described(item: Incoming, row: Document | None) -> dict[str, Any]:
    """What is said about a document. An ACL that is not spoken of stays; a sync leaves keys it does not know."""
    if row is not None and row.is_deleted:
        row = None
    shown = item.title or ("" if row is None or row.given_title else row.title)
    kept = row.metadata if row is not None and row.source_id != documents.NO_SOURCE else {}
    return {
        "given_title": item.title,
        "title": shown or item.file_name or item.external_id,
        "file_name": item.file_name,
        "uri": item.uri,
        "media_type": item.media_type or (row.media_type if row else None),
        "metadata": {**kept, **item.metadata},
        "acl": row.acl if item.acl is None and row is not None else item.acl,
    }


def _tokens(acl: Acl | None, target: Target) -> AccessTokens:
    return tokens_of(target.default_acl if acl is None else acl)


def _nothing_fetched(target: Target, external_id: str) -> Mapping[str, Any]:
    blank = Incoming(external_id, read=bytes)
    return {
        **_described(replace(blank, file_name=external_id.rpartition("/")[2]), None),
        **_Content("", "", "", 0).columns(),
        "team_id": target.team_id,
        "collection_id": target.collection_id,
        "source_id": target.source_id,
        "external_id": external_id,
        "listing": target.listing,
    }
