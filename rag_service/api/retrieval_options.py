"""The options of a question and the settings of a collection, as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    TypeAdapter,
    model_validator,
)

from rag_service.api.schemas import Model
from rag_service.retrieval.options import MAX_DEPTH, MAX_NEIGHBOURS, Expansion, Feedback, Recency
from rag_service.retrieval.plan import FusionSpec

Share: TypeAlias = Annotated[float, Field(gt=0, le=1, strict=True)]
_Most: TypeAlias = Annotated[StrictInt, Field(ge=0, le=MAX_NEIGHBOURS)]


def _told_plainly(kind: Any) -> BeforeValidator:
    """For a `kind` that may be a boolean instead: its errors name the fields as they were sent.

    Those of the union would name the members of the union as if they were fields, and say of each what is wrong.
    """
    adapter = TypeAdapter[Any](kind)
    return BeforeValidator(lambda value: value if isinstance(value, bool) else adapter.validate_python(value))


class Weights(Model):
    """Adapted to each question when not given; with one given, the other is 0.7 or 0.3, or 1 for rrf."""

    dense: StrictFloat | None = Field(None, ge=0, le=1_000)
    lexical: StrictFloat | None = Field(None, ge=0, le=1_000)


class Fusion(Model):
    method: Literal["weighted", "rrf"] = "weighted"
    weights: Weights = Field(default_factory=Weights)
    k: StrictInt = Field(60, ge=1, le=10_000, description="The constant of rrf: how little the first ranks stand out.")

    def spec(self) -> FusionSpec:
        """Raises InvalidRequest."""
        return FusionSpec(self.method, self.weights.dense, self.weights.lexical, self.k)


class RetrievalSettings(Model):
    """How a collection's questions are answered unless they say otherwise."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"fusion": {"weights": {"dense": 0.4, "lexical": 0.6}}}]})

    fusion: Fusion | None = None

    def stored(self) -> dict[str, Any]:
        """As the collection keeps it: the arguments of a FusionSpec. Raises InvalidRequest."""
        if self.fusion is None:
            return {}
        spec = self.fusion.spec()
        weights = {"dense_weight": spec.dense_weight, "lexical_weight": spec.lexical_weight}
        return {"fusion": {"method": spec.method, **weights, "k": spec.k}}

    @classmethod
    def of(cls, stored: dict[str, Any]) -> RetrievalSettings:
        if not stored:
            return cls()
        spec = FusionSpec(**stored["fusion"])
        weights = Weights(dense=spec.dense_weight, lexical=spec.lexical_weight)
        return cls(fusion=Fusion(method=spec.method, weights=weights, k=spec.k))


class FeedbackIn(Model):
    passages: StrictInt = Field(5, ge=1, le=20)
    terms: StrictInt = Field(10, ge=1, le=50)
    weight: StrictFloat = Field(0.3, gt=0, le=1)

    def spec(self) -> Feedback:
        return Feedback(self.passages, self.terms, self.weight)


class RecencyIn(Model):
    """Half of `weight` is lost at one half-life of age."""

    field: Annotated[str, StringConstraints(pattern=r"^(metadata\.)?[A-Za-z0-9_-]{1,64}$")] = Field(
        description="A metadata key that holds RFC 3339 dates."
    )
    half_life_days: StrictFloat = Field(365, gt=0, le=100_000)
    weight: StrictFloat = Field(0.3, ge=0, le=1)

    def spec(self) -> Recency:
        return Recency(self.field.removeprefix("metadata."), self.half_life_days, self.weight)


class ExpandIn(Model):
    before: _Most = 0
    after: _Most = 0
    section: StrictBool = False

    @model_validator(mode="after")
    def _something(self) -> ExpandIn:
        if not (self.before or self.after or self.section):
            raise ValueError("needs before, after or section")
        return self

    def spec(self) -> Expansion:
        return Expansion(self.before, self.after, self.section)


class RerankIn(Model):
    depth: StrictInt | None = Field(None, ge=1, le=MAX_DEPTH, description="Passages to read; never fewer than top_k.")


FeedbackOption: TypeAlias = Annotated[FeedbackIn | StrictBool, _told_plainly(FeedbackIn)]
RerankOption: TypeAlias = Annotated[RerankIn | StrictBool, _told_plainly(RerankIn)]
CollapseOption: TypeAlias = Annotated[StrictBool | Share, _told_plainly(Share)]
