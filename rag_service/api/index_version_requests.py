"""What is asked of index versions."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints, model_validator

from rag_service.api.schemas import Model
from rag_service.embedding.languages import Language
from rag_service.ingest.planning import Planned
from rag_service.ingest.versions import MOST, Asked, Gate, Wanted

Priority: TypeAlias = Literal["low", "normal", "high"]
_Name: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=200)]
_Url: TypeAlias = Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=2_000)]
_Note: TypeAlias = Annotated[str, StringConstraints(max_length=2_000)]
_Threads: TypeAlias = Annotated[int, Field(ge=1, le=8)]
_Sample: TypeAlias = Annotated[int, Field(ge=1, le=MOST)]


class EmbeddingIn(Model):
    """The model; what is left out is as the settings say. `url`, `dimensions` and `window` are for `http`."""

    embedder: Literal["local", "http", "hashing"] | None = None
    model: Annotated[str, StringConstraints(min_length=1, max_length=300)] | None = None
    url: _Url | None = None
    dimensions: int | None = Field(None, ge=1, le=65_536)
    window: int | None = Field(None, ge=16, le=131_072)


class ChunkingIn(Model):
    """`tokens` is the largest chunk; `context` says whether title and headings stand before each chunk."""

    tokens: int | None = Field(None, ge=16, le=8_192)
    context: Literal["headings", "none"] | None = None


class ParsingIn(Model):
    anew: StrictBool = Field(False, description="Parse the raw bytes again instead of taking the text that was kept.")


class PipelineIn(Model):
    """What differs from the settings; `{}` builds the same anew."""

    embedding: EmbeddingIn | None = None
    chunking: ChunkingIn | None = None
    language: Language | None = None
    parsing: ParsingIn | None = None

    def stored(self) -> dict[str, Any]:
        parts = self.model_dump(exclude_none=True)
        if not parts.get("parsing", {}).get("anew"):
            parts.pop("parsing", None)
        return {name: part for name, part in parts.items() if part}


class IndexVersionIn(Model):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"collection": "default", "pipeline": {"chunking": {"tokens": 120}}, "priority": "normal"}]
        }
    )

    collection: Annotated[str, StringConstraints(min_length=1, max_length=100)] = "default"
    pipeline: PipelineIn = Field(default_factory=PipelineIn)
    priority: Priority = Field("normal", description="A quarter, half or all of the time.")
    max_concurrency: _Threads = Field(1, description="Documents built at a time.")
    note: _Note = ""
    dry_run: StrictBool = Field(False, description="Say what it would take, measured on a sample, and build nothing.")

    def wanted(self) -> Wanted:
        return Wanted(self.pipeline.stored(), self.priority, self.max_concurrency, self.note)


class IndexVersionChange(Model):
    model_config = ConfigDict(json_schema_extra={"examples": [{"priority": "low"}]})

    priority: Priority | None = None
    max_concurrency: _Threads | None = None
    note: _Note | None = None

    @model_validator(mode="after")
    def _says_something(self) -> IndexVersionChange:
        if not self.model_fields_set or all(getattr(self, name) is None for name in self.model_fields_set):
            raise ValueError("name something to change")
        return self


class EvaluationIn(Model):
    model_config = ConfigDict(json_schema_extra={"examples": [{"query_set": "faq"}, {"sample": 100}]})

    query_set: _Name | None = Field(None, description="Questions to compare by; live ones that were kept if left out.")
    sample: _Sample | None = Field(None, description="Questions to ask at most: 300 live ones, or all of the set.")

    def asked(self) -> Asked:
        return Asked(self.query_set, self.sample)


class GateIn(Model):
    """The switch is refused unless `metric` changes by `min_delta` at least and no more questions lose by it."""

    metric: Annotated[str, StringConstraints(min_length=1, max_length=40)] = "ndcg@10"
    min_delta: float = Field(0.0, ge=-1, le=1)
    max_worse_queries: int | None = Field(None, ge=0, le=1_000_000)

    def limits(self) -> Gate:
        return Gate(self.metric, self.min_delta, self.max_worse_queries)


class PromotionIn(EvaluationIn):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"gate": {"metric": "ndcg@10", "min_delta": 0.0}, "query_set": "faq"}, {"force": True}]
        }
    )

    gate: GateIn | None = Field(None, description="Without one nothing is compared.")
    force: StrictBool = Field(False, description="Switch whatever the gate says, and without what could not be built.")


class PlanEstimate(BaseModel):
    """`seconds` on this machine beside what it does otherwise, `tokens` where a model is paid by them."""

    documents: int
    chunks: int
    seconds: float
    disk_bytes: int
    tokens: int | None


class IndexVersionPlan(BaseModel):
    """What a build would take."""

    embedding_model: str
    dimensions: int
    chunker: str
    estimate: PlanEstimate

    @classmethod
    def of(cls, planned: Planned) -> IndexVersionPlan:
        return cls(
            embedding_model=planned.embedder.name,
            dimensions=planned.embedder.dimensions,
            chunker=planned.chunker,
            estimate=PlanEstimate(
                documents=planned.documents,
                chunks=planned.chunks,
                seconds=planned.seconds,
                disk_bytes=planned.disk_bytes,
                tokens=planned.tokens,
            ),
        )
