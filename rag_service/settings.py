"""Every setting of the service, read from the environment with the prefix RAG_. The defaults are the embedded mode."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Built once at the top and passed down as plain values; never imported as a global."""

    model_config = SettingsConfigDict(env_prefix="RAG_", extra="ignore")

    data_dir: Path = Field(
        Path(".rag"), description="Folder of the database, the blobs, the vectors and the admin key."
    )
    admin_key: SecretStr | None = Field(
        None, description="The admin key; made at first start and kept in the data folder when not given."
    )
    backup_dir: Path | None = Field(
        None, description="Folder that the service writes backups into; `backups` in the data folder when not given."
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL of the metadata database; SQLite in the data folder when not given."
    )
    redis_url: str | None = Field(
        None, description="Redis for wake-up calls between processes; in-process when not given."
    )
    qdrant_url: str | None = Field(
        None, description="Qdrant server; the embedded store in the data folder when not given."
    )
    qdrant_api_key: SecretStr | None = Field(None, description="API key of the Qdrant server.")
    worker_threads: int = Field(8, ge=1, le=64, description="Jobs that one worker process runs at a time.")
    source_root: Path | None = Field(
        None, description="Folder that `files` sources must lie in; any folder when not given."
    )

    embedder: Literal["local", "http", "hashing"] = Field(
        "local", description="Where embeddings come from; `hashing` is for tests only."
    )
    embedding_model: str = Field("all-MiniLM-L6-v2", description="Model name, or the path of a local model folder.")
    embedding_url: str | None = Field(
        None, description="Base URL of an OpenAI-compatible embeddings API, for the `http` embedder."
    )
    embedding_api_key: SecretStr | None = Field(None, description="Key for the embeddings API.")
    embedding_dimensions: int = Field(384, ge=1, le=65536, description="Vector length of the `http` embedder.")
    embedding_window: int = Field(
        512, ge=16, le=131072, description="Tokens of one text that the `http` embedder's model reads."
    )
    embedding_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Number format of the local model; auto takes bfloat16 where the CPU has it."
    )
    embedding_runtime: Literal["auto", "openvino", "torch"] = Field(
        "auto",
        description="What computes the local model: compiled once into RAG_MODELS_DIR, or torch; auto falls back.",
    )
    models_dir: Path | None = Field(
        None, description="Folder of compiled models, which may be shared; `models` in the data folder when not given."
    )
    chunk_tokens: int = Field(
        160,
        ge=32,
        le=8192,
        description="Largest chunk in tokens, heading path included; never above the model's window.",
    )

    reranker: Literal["none", "cross-encoder", "http"] = Field(
        "none", description="Who reads the question and each passage together, to order them anew."
    )
    reranker_model: str = Field(
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        description="Model name, or the path of a local cross-encoder folder; for `http` the name that is sent.",
    )
    reranker_url: str | None = Field(
        None, description="Full address of a Cohere- or Jina-shaped rerank API, for the `http` reranker."
    )
    reranker_api_key: SecretStr | None = Field(None, description="Key for the rerank API.")
    reranker_timeout_s: float = Field(
        2.0, gt=0, le=60, description="Seconds that reranking may take; the answer is then given without it."
    )
    reranker_depth: int = Field(50, ge=1, le=200, description="Passages that the reranker reads for one question.")

    max_upload_bytes: int = Field(100 * 1024 * 1024, ge=1024, description="Largest document accepted, in bytes.")
    max_batch_bytes: int = Field(64 * 1024 * 1024, ge=1024, description="Largest JSON request body, in bytes.")
    parser_timeout_s: float = Field(
        60, gt=0, le=3600, description="Wall-clock and CPU seconds one document may take to parse."
    )
    parser_memory_bytes: int = Field(
        2 * 1024**3, ge=256 * 1024**2, description="Address space one parser process may use."
    )
    parser_processes: int = Field(2, ge=1, le=32, description="Parser child processes per worker process.")

    lease_s: float = Field(
        45, gt=0, description="Seconds after which a job whose worker fell silent is given to another."
    )
    sweep_s: float = Field(
        5, gt=0, description="Seconds between looks for lost messages, expired leases and due syncs."
    )
    candidates: int = Field(50, ge=10, le=1000, description="Candidates that each leg draws before fusion.")
    trace_sample: float = Field(
        1.0, ge=0, le=1, description="Share of queries that leave a trace to look up and replay; 0 for none."
    )
    trace_retention_s: float = Field(7 * 86_400, gt=0, description="Seconds for which traces are kept.")
    trace_limit: int = Field(50_000, ge=1, description="Traces kept at most, the newest.")
    trace_content: bool = Field(
        False, description="Keep the text of each question in its trace; passages are never kept in one."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log message that is written."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Shape of log lines; auto: text on a terminal, JSON elsewhere."
    )
    metrics_key: SecretStr | None = Field(
        None, min_length=16, description="Key that opens `/metrics` and nothing else; an admin key opens it too."
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port on which the process gives its metrics out without a key; 0: a free one.",
    )
    metrics_host: str = Field("127.0.0.1", description="Address that RAG_METRICS_PORT listens on.")
    otlp_endpoint: str | None = Field(
        None, description="Base URL of an OpenTelemetry collector (OTLP over HTTP) for traces; none are made without."
    )

    @property
    def sql_url(self) -> str:
        return self.database_url or f"sqlite:///{(self.data_dir / 'rag.db').absolute()}"
