"""New teams and collections, each collection with its first index version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rag_service.chunking.base import Chunker
from rag_service.db import Connection, Database, collections, teams
from rag_service.embedding.base import Embedder
from rag_service.embedding.languages import Language, analyser_of, is_newer
from rag_service.errors import ConfigError
from rag_service.ingest.calibration import FIRST_AFTER
from rag_service.pipelines import Pipelines
from rag_service.types import Collection, IndexVersion, Team
from rag_service.vectors.base import IndexSpec, VectorStore

_DEFAULT_LANGUAGE: Language = "auto"


@dataclass(frozen=True)
class Catalogue:
    """`average_length` (terms per chunk) is what new index versions start with, until it is measured."""

    database: Database
    vectors: VectorStore
    embedder: Embedder
    chunker: Chunker
    average_length: float
    pipelines: Pipelines

    def create_team(self, team_id: str, name: str) -> Team:
        """A team starts with the collection `default`. Raises Conflict."""
        with self.database.transaction() as transaction:
            team = teams.create(transaction.connection, team_id, name)
            self._add(transaction.connection, team_id, collections.DEFAULT, "", _DEFAULT_LANGUAGE, storage={})
            transaction.audit("team.created", team_id, team=team_id, after={"name": name})
            return team

    def create_collection(
        self,
        team_id: str,
        name: str,
        *,
        description: str,
        language: Language,
        retrieval: Mapping[str, Any] | None = None,
        storage: Mapping[str, Any] | None = None,
    ) -> Collection:
        """Raises Conflict; InvalidRequest for a `storage` that the vector store does not offer."""
        with self.database.transaction() as transaction:
            made = self._add(transaction.connection, team_id, name, description, language, storage=storage or {})
            transaction.audit("collection.created", made.id, team=team_id, after={"name": name, "language": language})
            if not retrieval and not storage:
                return made
            collections.change(
                transaction.connection, made.id, retrieval=dict(retrieval or {}), storage=dict(storage or {})
            )
            return collections.get(transaction.connection, team_id, made.id)

    def check_indexes(self) -> None:
        """Raises ConfigError when an active index was built with another model or a newer analyser than ours."""
        for index in self._active():
            identity = self.pipelines.embedder(index).identity
            if index.embedder != identity:
                raise ConfigError(
                    f"The index {index.id} was built with the model {index.embedder}, but {identity} is "
                    f"configured. Set RAG_EMBEDDING_MODEL back to {index.embedder.name!r}, and build an index version "
                    "with the new model beside it (`rag index build --help`).",
                    code="model_changed",
                )
            if is_newer(index.analyser):
                raise ConfigError(
                    f"The words of the index {index.id} were analysed by a newer version of the service. Start that "
                    "one.",
                    code="analyser_changed",
                )

    def make_indexes(self) -> None:
        """See to it that every live index is there, also where its maker died half-way."""
        with self.database.read() as connection:
            wished = collections.wished_storage(connection)
            live = collections.all_live(connection)
        for index in live:
            self.vectors.create(index.id, IndexSpec(index.embedder.dimensions, wished.get(index.id, {})))

    def _active(self) -> list[IndexVersion]:
        with self.database.read() as connection:
            return collections.all_active(connection)

    def _add(
        self,
        connection: Connection,
        team_id: str,
        name: str,
        description: str,
        language: str,
        *,
        storage: Mapping[str, Any],
    ) -> Collection:
        made = collections.create(connection, team_id, name, description=description, language=language)
        index = collections.add_index(
            connection,
            made.id,
            embedder=self.embedder.identity,
            chunker=self.chunker.identity,
            analyser=analyser_of(language),
            average_length=self.average_length,
            calibrate_at=FIRST_AFTER,
        )
        self.vectors.create(index.id, IndexSpec(index.embedder.dimensions, storage))
        return collections.get(connection, team_id, made.id)
