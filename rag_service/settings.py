"""Every setting of the service, read from the environment with the prefix RAG_. The defaults are the embedded mode."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from rag_service.embedding.processors import NumberFormat


class Settings(BaseSettings):
    """Built once at the top and passed down as plain values; never imported as a global."""

    model_config = SettingsConfigDict(env_prefix="RAG_", extra="ignore")

    data_dir: Path = Field(
        Path(".rag"), description="Folder of the database, the blobs, the vectors and the admin key."
    )
    admin_key: SecretStr | None = Field(
        None, description="The admin key; made at first start and kept in the data folder when not given."
    )
    secret_keys: SecretStr | None = Field(
        None,
        description="Keys that credentials of sources are encrypted under, newest first, comma-separated, 32 bytes in "
        "base64 each; made once and kept in the data folder when not given.",
    )
    backup_dir: Path | None = Field(
        None, description="Folder that the service writes backups into; `backups` in the data folder when not given."
    )
    database_url: str | None = Field(
        None,
        repr=False,
        description="`postgresql://` URL of the metadata database; SQLite in the data folder when not given.",
    )
    database_pool: int = Field(
        10, ge=1, le=200, description="Connections to Postgres that each process keeps open; under load twice as many."
    )
    redis_url: str | None = Field(
        None, repr=False, description="Redis for wake-up calls between processes; in-process when not given."
    )
    qdrant_url: str | None = Field(
        None, repr=False, description="Qdrant server; the embedded store in the data folder when not given."
    )
    qdrant_api_key: SecretStr | None = Field(None, description="API key of the Qdrant server.")
    qdrant_timeout_s: int = Field(30, ge=1, le=600, description="Seconds that one request to Qdrant may take.")
    qdrant_shards: int = Field(1, ge=1, le=256, description="Shards of a new index, if its collection is silent.")
    qdrant_replicas: int = Field(
        1,
        ge=1,
        le=16,
        description="Machines that hold each shard of a new index, if its collection is silent.",
    )
    qdrant_on_disk: bool = Field(
        False, description="Leave the vectors of a new index on disk, if its collection is silent."
    )
    qdrant_quantisation: Literal["none", "int8", "binary"] = Field(
        "none", description="Smaller copies of a new index's vectors to search by, if its collection is silent."
    )
    blobs_url: str | None = Field(
        None,
        description="Where the blobs are kept: `s3://bucket/prefix`, or `file:///folder` for one that several machines "
        "share; a folder in the data folder when not given.",
    )
    blobs_endpoint: str | None = Field(
        None,
        description="Address of a store that speaks S3, such as `https://minio.internal:9000`; Amazon's if not given.",
    )
    blobs_region: str | None = Field(None, description="Region of the bucket; the usual AWS environment if not given.")
    blobs_access_key: str | None = Field(
        None, description="Access key of the bucket; the usual AWS environment if not given."
    )
    blobs_secret_key: SecretStr | None = Field(None, description="Secret key that belongs to the access key.")
    blobs_timeout_s: float = Field(
        30.0, gt=0, le=600, description="Seconds that one request to the bucket may take, its repetitions included."
    )
    worker_threads: int = Field(
        8,
        ge=1,
        le=64,
        description="Uploads that one worker process indexes at a time, and as many bulk documents beside them.",
    )
    team_jobs: int = Field(
        16,
        ge=1,
        le=1000,
        description="Jobs of one team, of uploads and of bulk each, that workers are given at a time.",
    )
    team_syncs: int = Field(2, ge=1, le=1000, description="Syncs of one team that run at a time.")
    source_root: Path | None = Field(
        None, description="Folder that `files` sources must lie in; any folder when not given."
    )

    embedder: Literal["local", "http", "hashing"] = Field(
        "local", description="Where embeddings come from; `hashing` is for tests only."
    )
    embedding_model: str = Field("all-MiniLM-L6-v2", description="Model name, or the path of a local model folder.")
    embedding_url: str | None = Field(
        None, repr=False, description="Base URL of an OpenAI-compatible embeddings API, for the `http` embedder."
    )
    embedding_api_key: SecretStr | None = Field(None, description="Key for the embeddings API.")
    embedding_dimensions: int = Field(384, ge=1, le=65536, description="Vector length of the `http` embedder.")
    embedding_window: int = Field(
        512, ge=16, le=131072, description="Tokens of one text that the `http` embedder's model reads."
    )
    embedding_dtype: Literal["auto", NumberFormat] = Field(
        "auto",
        description="Number format of the local model; auto takes the fastest of the CPU's that keeps its vectors.",
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
        None, repr=False, description="Full address of a Cohere- or Jina-shaped rerank API, for the `http` reranker."
    )
    reranker_api_key: SecretStr | None = Field(None, description="Key for the rerank API.")
    reranker_timeout_s: float = Field(
        2.0, gt=0, le=60, description="Seconds that reranking may take; the answer is then given without it."
    )
    reranker_depth: int = Field(50, ge=1, le=200, description="Passages that the reranker reads for one question.")

    max_upload_bytes: int = Field(100 * 1024 * 1024, ge=1024, description="Largest document accepted, in bytes.")
    max_batch_bytes: int = Field(64 * 1024 * 1024, ge=1024, description="Largest JSON request body, in bytes.")
    client_timeout_s: float = Field(
        30, gt=0, le=600, description="Seconds that a request's head, and any pause while bytes are due, may take."
    )
    max_requests: int = Field(
        128, ge=2, le=10_000, description="Requests one process works on at a time, half of them of one team at most."
    )
    rate_retrieve: int = Field(12_000, ge=0, description="Questions per minute of one key; 0 for no limit.")
    rate_read: int = Field(24_000, ge=0, description="Other reading requests per minute of one key; 0 for no limit.")
    rate_write: int = Field(12_000, ge=0, description="Writing requests per minute of one key; 0 for no limit.")
    rate_admin: int = Field(
        3_000, ge=0, description="Requests about teams, keys and administration per minute of one key; 0 for no limit."
    )
    rate_refused: int = Field(
        300, ge=0, description="Requests per minute of one address that show no valid key; 0 for no limit."
    )
    rate_team_factor: float = Field(
        4, ge=1, le=1000, description="How many times the rate of one key all keys of a team have together."
    )
    rate_teams: dict[str, float] = Field(
        default_factory=dict, description='Teams with other rates, as JSON: `{"search": 5}` for five times as much.'
    )
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
    soak_s: float = Field(
        7 * 86_400, gt=0, description="Seconds for which an index version that was left is kept up to date, to go back."
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
    fingerprint_s: float = Field(
        300, ge=1, description="Seconds between looks at whether the embedding model still gives the vectors it gave."
    )
    probe_results: int = Field(1_000, ge=1, le=100_000, description="Results kept of each probe, the newest.")
    drift_newest_h: int = Field(24, ge=1, le=720, description="Hours whose answers are compared with those before.")
    drift_reference_h: int = Field(168, ge=1, le=8_760, description="Hours before them that they are compared with.")
    drift_min_answers: int = Field(200, ge=10, description="Answers in either without which nothing is said of drift.")
    drift_index: float = Field(
        0.25, gt=0, description="Population stability index from which on the scores of answers have drifted."
    )
    drift_empty: float = Field(
        0.05, gt=0, le=1, description="Change of the share of empty answers that is a drift, if it is no chance."
    )
    webhook_private_addresses: bool = Field(
        False, description="Let webhooks lead to addresses of private networks and of this machine too."
    )
    webhook_timeout_s: float = Field(10.0, gt=0, le=60, description="Seconds that a webhook has to answer.")
    webhook_retention_s: float = Field(
        7 * 86_400, ge=86_400, description="Seconds for which events are kept to be delivered and replayed."
    )
    audit_addresses: bool = Field(True, description="Keep the address that a request came from in the audit log.")
    retrieval_audit: bool = Field(
        False, description="Audit every answered question too: who, query id and document ids, no text."
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
