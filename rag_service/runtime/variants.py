"""The variants: which store, embedder, reranker, analyser and connector the settings ask for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

import connectors
from connectors.base import Connector
from connectors.errors import FatalSourceError
from connectors.secret_fields import secret_fields
from rag_service.blobs import BlobStore, LocalBlobs
from rag_service.db.engine import checked_url
from rag_service.embedding.base import Embedder, LexicalEncoder
from rag_service.embedding.lexical import Bm25Encoder, checked_language
from rag_service.errors import ConfigError
from rag_service.ingest.discretion import Discreet, discreet
from rag_service.reranking.base import NullReranker, Reranker
from rag_service.settings import Settings
from rag_service.types import IndexVersion
from rag_service.vectors.base import Storage, VectorStore

Role: TypeAlias = Literal["api", "worker", "scheduler"]


def refuse_impossible(settings: Settings, role: Role = "api") -> None:
    """Raises ConfigError, in one sentence each, for settings that cannot work together."""
    _refuse_lonely(settings, role)
    checked_url(settings.sql_url)
    if settings.embedder == "http" and not settings.embedding_url:
        raise ConfigError("RAG_EMBEDDER=http needs RAG_EMBEDDING_URL, the base URL of an embeddings API.")
    if settings.reranker == "http" and not settings.reranker_url:
        raise ConfigError("RAG_RERANKER=http needs RAG_RERANKER_URL, the address that reranking requests go to.")


def _refuse_lonely(settings: Settings, role: Role) -> None:
    """What several processes need, and what they cannot share."""
    if not settings.redis_url:
        if role != "api":
            raise ConfigError(
                f"A {role} of its own is rung for through Redis. Set RAG_REDIS_URL, or let `rag serve` do it all."
            )
        return
    if not settings.qdrant_url:
        raise ConfigError(
            "RAG_REDIS_URL means several processes, and the embedded vector store allows one. "
            "Set RAG_QDRANT_URL too, or unset RAG_REDIS_URL."
        )
    if checked_url(settings.sql_url).get_backend_name() == "sqlite":
        raise ConfigError(
            "RAG_REDIS_URL means several processes, and SQLite is for one. "
            "Set RAG_DATABASE_URL to a Postgres database, or unset RAG_REDIS_URL."
        )
    if settings.admin_key is None and role == "api":
        raise ConfigError(
            "RAG_REDIS_URL means several processes, and each would make an admin key of its own. Set RAG_ADMIN_KEY."
        )


def make_blobs(settings: Settings) -> BlobStore:
    """Raises ConfigError for an address that names no store."""
    if settings.blobs_url is None:
        return LocalBlobs(settings.data_dir / "blobs")
    url = urlsplit(settings.blobs_url)
    if url.scheme == "file" and url.netloc in ("", "localhost") and len(url.path) > 1:
        return LocalBlobs(Path(unquote(url.path)), shared=True)
    if url.scheme != "s3" or not url.netloc or url.query or "@" in url.netloc:
        raise ConfigError(
            "RAG_BLOBS_URL must be s3://bucket/prefix, or file:///folder for a folder that is shared. "
            "Credentials belong into RAG_BLOBS_ACCESS_KEY and RAG_BLOBS_SECRET_KEY."
        )
    if (settings.blobs_access_key is None) != (settings.blobs_secret_key is None):
        raise ConfigError("RAG_BLOBS_ACCESS_KEY and RAG_BLOBS_SECRET_KEY go together: set both or neither.")
    from rag_service.blobs.objects import ObjectBlobs, connect_to

    secret = settings.blobs_secret_key
    return ObjectBlobs(
        connect_to(
            url.netloc,
            unquote(url.path).strip("/"),
            endpoint=settings.blobs_endpoint,
            region=settings.blobs_region,
            access_key=settings.blobs_access_key,
            secret_key=secret.get_secret_value() if secret else None,
            timeout_s=settings.blobs_timeout_s,
        )
    )


def make_vectors(settings: Settings) -> VectorStore:
    """Raises ConfigError for an address that is none."""
    if settings.qdrant_url:
        if not _leads_somewhere(settings.qdrant_url):
            raise ConfigError("RAG_QDRANT_URL is no address of a Qdrant server. It looks like http://qdrant:6333.")
        from rag_service.vectors.server import ServerVectorStore, connect_to

        key = settings.qdrant_api_key
        secret = key.get_secret_value() if key else None
        storage = Storage(
            settings.qdrant_shards, settings.qdrant_replicas, settings.qdrant_on_disk, settings.qdrant_quantisation
        )
        connect = connect_to(settings.qdrant_url, secret, timeout_s=settings.qdrant_timeout_s)
        return ServerVectorStore(connect, storage=storage)
    from rag_service.vectors.edge import EdgeVectorStore

    return EdgeVectorStore(settings.data_dir / "vectors")


def _leads_somewhere(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its port is no number
        return False


def make_embedder(settings: Settings) -> Embedder:
    if settings.embedder == "hashing":
        from rag_service.embedding.hashing import HashingEmbedder

        return HashingEmbedder()
    if settings.embedder == "http":
        from rag_service.embedding.http import HttpEmbedder

        key = settings.embedding_api_key
        return HttpEmbedder(
            settings.embedding_url or "",
            settings.embedding_model,
            key.get_secret_value() if key else None,
            settings.embedding_dimensions,
            settings.embedding_window,
        )
    from rag_service.embedding.local import LocalEmbedder

    return LocalEmbedder(
        settings.embedding_model,
        settings.embedding_dtype,
        settings.embedding_runtime,
        cache=(settings.models_dir or settings.data_dir / "models").absolute(),
    )


def make_reranker(settings: Settings) -> Reranker:
    if settings.reranker == "cross-encoder":
        from rag_service.reranking.cross_encoder import CrossEncoderReranker

        return CrossEncoderReranker(settings.reranker_model, settings.reranker_timeout_s)
    if settings.reranker == "http":
        from rag_service.reranking.http import HttpReranker

        key = settings.reranker_api_key
        return HttpReranker(
            settings.reranker_url or "",
            settings.reranker_model,
            key.get_secret_value() if key else None,
            timeout_s=settings.reranker_timeout_s,
        )
    return NullReranker()


def lexical_of(index: IndexVersion) -> LexicalEncoder:
    return _encoder(index.average_length, index.analyser)


@lru_cache(maxsize=256)
def _encoder(average_length: float, analyser: str) -> Bm25Encoder:
    return Bm25Encoder(average_length, checked_language(analyser))


def make_connector(source_root: Path | None, source_type: str, config: Mapping[str, Any]) -> Connector | Discreet:
    """A connector that cannot tell its credentials. Raises FatalSourceError, which names no value."""
    if source_root is not None and source_type == "files" and not _lies_in(source_root, str(config.get("root", ""))):
        raise FatalSourceError(
            f"The folder must lie in {source_root}. Move it there or change RAG_SOURCE_ROOT.",
            code="outside_source_root",
        )
    hidden = {name: config[name] for name in secret_fields(connectors.load(source_type).Config) & config.keys()}
    return discreet(lambda: connectors.create(source_type, config), hidden)


def _lies_in(source_root: Path, folder: str) -> bool:
    try:
        return Path(folder).resolve().is_relative_to(source_root.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of symlinks, a name that no file can have
        return False
