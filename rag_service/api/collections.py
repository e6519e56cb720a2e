"""Collections: a team's named bodies of documents."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from rag_service.api.auth import Manager, Member
from rag_service.api.retrieval_options import RetrievalSettings
from rag_service.api.schemas import After, Id, Limit, Listing, Model, Queued, Service, located
from rag_service.api.storage import StorageSettings
from rag_service.api.strict import StrictRoute
from rag_service.db import collections
from rag_service.embedding.languages import Language
from rag_service.errors import Conflict
from rag_service.types import Collection

router = APIRouter(prefix="/v1/collections", tags=["collections"], route_class=StrictRoute)


def _no_id(name: str) -> str:
    # Routes take a name or an id, so no name may look like an id.
    if name.startswith("col_"):
        raise ValueError("must not begin with col_, as ids do")
    return name


CollectionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"), AfterValidator(_no_id)]
Description = Annotated[str, StringConstraints(max_length=2_000)]


class CollectionIn(Model):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "handbook", "description": "All that is HR"}]})

    name: CollectionName
    description: Description = ""
    language: Language = Field(
        "auto", description="How words are told apart and reduced for the lexical leg; it cannot be changed later."
    )
    retrieval: RetrievalSettings = Field(default_factory=RetrievalSettings)
    storage: StorageSettings = Field(
        default_factory=StorageSettings,
        description="For services whose vectors a Qdrant server keeps; refused by others. It cannot be changed later.",
    )


class CollectionChange(Model):
    model_config = ConfigDict(json_schema_extra={"examples": [{"description": "Policies and forms"}]})

    name: CollectionName | None = None
    description: Description | None = None
    retrieval: RetrievalSettings | None = Field(None, description="Replaces what was set; `{}` takes it back.")
    language: Language | None = Field(None, description="May be sent as it is; another one is refused.")


class CollectionRecord(BaseModel):
    id: str
    name: str
    description: str
    language: str
    retrieval: RetrievalSettings
    storage: StorageSettings
    index_version: str | None
    created_at: datetime

    @classmethod
    def of(cls, collection: Collection) -> CollectionRecord:
        return cls(
            id=collection.id,
            name=collection.name,
            description=collection.description,
            language=collection.language,
            retrieval=RetrievalSettings.of(dict(collection.retrieval)),
            storage=StorageSettings(**collection.storage),
            index_version=collection.active_index,
            created_at=collection.created_at,
        )


@router.post("", status_code=201)
def create_collection(service: Service, caller: Manager, collection: CollectionIn) -> CollectionRecord:
    """Make a collection."""
    made = service.catalogue.create_collection(
        caller.team,
        collection.name,
        description=collection.description,
        language=collection.language,
        retrieval=collection.retrieval.stored(),
        storage=collection.storage.stored(),
    )
    return CollectionRecord.of(made)


@router.get("")
def list_collections(
    service: Service, caller: Member, limit: Limit = 50, after: After = None
) -> Listing[CollectionRecord]:
    """List the team's collections."""
    with service.database.read() as connection:
        page = collections.page(connection, caller.team, limit=limit, after=after)
    return Listing[CollectionRecord].of(page, CollectionRecord.of)


@router.get("/{collection}")
def get_collection(service: Service, caller: Member, collection: Id) -> CollectionRecord:
    """One collection, by name or id."""
    with service.database.read() as connection:
        return CollectionRecord.of(collections.get(connection, caller.team, collection))


@router.patch("/{collection}")
def update_collection(service: Service, caller: Manager, collection: Id, change: CollectionChange) -> CollectionRecord:
    """Change the name, the description or how questions are answered. `default` keeps its name."""
    values = change.model_dump(exclude_none=True, exclude={"retrieval"})
    if change.retrieval is not None:
        values["retrieval"] = change.retrieval.stored()
    with service.database.transaction() as transaction:
        connection = transaction.connection
        found = collections.get(connection, caller.team, collection)
        if found.name == collections.DEFAULT and values.get("name", found.name) != found.name:
            raise Conflict("The collection `default` keeps its name. Make another collection instead.")
        if values.pop("language", found.language) != found.language:
            raise Conflict(
                f"The language of a collection belongs to its index, and this one's is {found.language!r}. Make another"
                " collection with the language you want and ingest the documents into it.",
                code="language_fixed",
            )
        if values:
            collections.change(connection, found.id, **values)
            transaction.audit(
                "collection.changed",
                found.id,
                team=caller.team,
                before={"name": found.name},
                after={"name": values.get("name", found.name)},
                fields=sorted(values),
            )
        return CollectionRecord.of(collections.get(connection, caller.team, found.id))


@router.delete("/{collection}", status_code=202)
def delete_collection(service: Service, caller: Manager, collection: Id, response: Response) -> Queued:
    """Delete a collection with its sources and documents. Nobody finds them from here on; a job purges the rest."""
    with service.database.read() as connection:
        found = collections.get(connection, caller.team, collection)
    if found.name == collections.DEFAULT:
        raise Conflict("Every team keeps its collection `default`. Delete its documents instead.")
    return located(response, Queued(job_id=service.removal.collection(found)))
