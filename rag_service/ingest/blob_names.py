"""Under which names the blobs of documents are kept."""

from __future__ import annotations

from rag_service.db.documents import Document


def owner(document_id: str, version: int) -> str:
    """Of all blobs of one version of one document."""
    return f"{document_id}.{version}"


def bytes_of(document: Document, version: int) -> str:
    """The key of the bytes of its newest version, or of the one that answers."""
    if version == document.version:
        return document.blob_key
    return f"{owner(document.id, version)}/{document.indexed_hash}"
