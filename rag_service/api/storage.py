"""What a collection may wish of a Qdrant server that keeps its vectors."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from rag_service.api.schemas import Model


class StorageSettings(Model):
    """Fixed when the collection is made. What is left away is as the settings of the service say."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"shards": 4, "replicas": 2, "quantisation": "int8"}]})

    shards: int | None = Field(None, ge=1, le=256, description="Parts that the index is split into.")
    replicas: int | None = Field(
        None, ge=1, le=16, description="Machines that hold each shard; a write counts when most of them have it."
    )
    on_disk: bool | None = Field(None, description="Leave vectors and their graph on disk: less memory, slower.")
    quantisation: Literal["none", "int8", "binary"] | None = Field(
        None, description="Smaller copies in memory to search by; what they find is scored by the originals."
    )

    def stored(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)
