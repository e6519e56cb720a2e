"""Index versions as their administrator asks for them: made, paused, cancelled, compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from rag_service.db import Connection, Database, builds, collections, dead_letters
from rag_service.db.builds import UNDER_WAY, WRITTEN_TO, Build
from rag_service.db.engine import Transaction
from rag_service.embedding.base import Embedder
from rag_service.embedding.languages import analyser_of
from rag_service.errors import ConfigError, Conflict, InvalidRequest, RetryableError
from rag_service.ingest.build_bell import BuildBell
from rag_service.ingest.calibration import FIRST_AFTER
from rag_service.pipelines import Pipelines
from rag_service.types import Collection as OneCollection
from rag_service.types import EmbedderIdentity, IndexState, IndexVersion, utc_now
from rag_service.vectors.base import IndexSpec, VectorStore

# What is written is built into each of them: more would make every upload dear.
MOST_LIVE = 5
# Questions of one comparison, which its request waits for.
MOST = 2_000
_PROBE = "Does this model answer?"


@dataclass(frozen=True, slots=True)
class Wanted:
    """`pipeline` names what differs from the settings, `priority` is low, normal or high."""

    pipeline: Mapping[str, Any]
    priority: str = "normal"
    max_concurrency: int = 1
    note: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What to compare by: a query set by name, or else live questions; at most `sample` of them, `MOST` in any case."""

    query_set: str | None = None
    sample: int | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """What a candidate has to reach: `metric` may change by `min_delta` at least, so many questions may lose by it."""

    metric: str
    min_delta: float = 0.0
    max_worse_queries: int | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A comparison as JSON has it, and what a gate says to it, where there was one."""

    comparison: Mapping[str, Any]
    passed: bool | None = None
    reasons: tuple[str, ...] = ()

    def stored(self) -> dict[str, Any]:
        verdict = None if self.passed is None else {"passed": self.passed, "reasons": list(self.reasons)}
        return {"at": utc_now().isoformat(), "comparison": dict(self.comparison), "verdict": verdict}


@dataclass(frozen=True, slots=True)
class Question:
    """Which two index versions of a team's collection are to be compared."""

    team_id: str
    collection: str
    candidate: str
    active: str


Judge = Callable[[Question, Asked, Gate | None], Judged]


@dataclass(frozen=True)
class Versions:
    """`average_length` (terms per chunk) is what an index version with another chunker or analyser starts with."""

    database: Database
    vectors: VectorStore
    pipelines: Pipelines
    bell: BuildBell
    judge: Judge
    average_length: float

    def create(self, team_id: str, collection: str, wanted: Wanted) -> Build:
        """Begin to build. Raises NotFound, InvalidRequest for a pipeline that cannot work, Conflict for too many."""
        with self.database.read() as connection:
            ours = collections.get(connection, team_id, collection)
            _refuse_too_many(connection, ours)  # before a model is loaded for nothing
        probe, embedder = self.check(ours, wanted.pipeline)
        with self.database.transaction() as transaction:
            _refuse_too_many(transaction.connection, ours)
            index = self._add(transaction.connection, ours, probe, embedder.identity, wanted)
            self.vectors.create(index.id, IndexSpec(index.embedder.dimensions, ours.storage))
            self.bell.wake(transaction, index.id, team_id)
            after = {"collection": ours.id, "number": index.number, "embedder": str(index.embedder)}
            transaction.audit("index_version.created", index.id, team=team_id, after=after)
            return builds.get(transaction.connection, team_id, index.id)

    def check(self, collection: OneCollection, pipeline: Mapping[str, Any]) -> tuple[IndexVersion, Embedder]:
        """What would be built, and the model, which has answered. Raises InvalidRequest with what to do."""
        wished = IndexVersion(
            id="",
            collection_id=collection.id,
            number=0,
            state=IndexState.BUILDING,
            pipeline=pipeline,
            embedder=EmbedderIdentity("", "", 1),
            chunker="",
            analyser=analyser_of(pipeline.get("language", collection.language)),
            average_length=self.average_length,
            calibration=0,
            settled=False,
            created_at=utc_now(),
        )
        try:
            embedder = self.pipelines.embedder(wished)
            width = embedder.embed([_PROBE], "document").shape[1]
            tokens = pipeline.get("chunking", {}).get("tokens")
            if tokens is not None and tokens > embedder.window:
                raise InvalidRequest(
                    f"The model reads {embedder.window} tokens at a time. Ask for chunks of at most so many.",
                    code="chunks_too_long",
                )
            self.pipelines.chunker(wished)
        except (ConfigError, RetryableError, ValueError) as error:
            raise InvalidRequest(f"This pipeline cannot work: {error}", code="pipeline_unusable") from error
        if width != embedder.identity.dimensions:
            raise InvalidRequest(
                f"The model gives vectors of {width} dimensions, not {embedder.identity.dimensions}. Say so in"
                " `dimensions`.",
                code="pipeline_unusable",
            )
        return wished, embedder

    def pause(self, team_id: str, index: str) -> Build:
        """Build nothing more for now. Deletions and changes of access reach it all the same."""
        with self.database.transaction() as transaction:
            self._change(transaction, team_id, index, WRITTEN_TO, paused=True)
            transaction.audit("index_version.paused", index, team=team_id)
            return builds.get(transaction.connection, team_id, index)

    def resume(self, team_id: str, index: str) -> Build:
        """Go on building; what could not be built is tried once more."""
        with self.database.transaction() as transaction:
            found = builds.get(transaction.connection, team_id, index)
            if not builds.resume(transaction.connection, index):
                raise not_in(found, WRITTEN_TO)
            builds.forget_failures(transaction.connection, index)
            dead_letters.supersede_builds(transaction.connection, index)
            self.bell.wake(transaction, index, team_id)
            transaction.audit("index_version.resumed", index, team=team_id)
            return builds.get(transaction.connection, team_id, index)

    def cancel(self, team_id: str, index: str) -> Build:
        """Give up a build. What there is of it is dropped by a job."""
        with self.database.transaction() as transaction:
            states = (*UNDER_WAY, IndexState.READY)
            self._change(transaction, team_id, index, states, state=IndexState.RETIRED, paused=False)
            dead_letters.supersede_builds(transaction.connection, index)
            self.bell.wake(transaction, index, team_id)
            transaction.audit("index_version.cancelled", index, team=team_id)
            return builds.get(transaction.connection, team_id, index)

    def change(self, team_id: str, index: str, **values: object) -> Build:
        """Set `priority`, `max_concurrency` or `note`; a build that runs heeds it with its next documents."""
        with self.database.transaction() as transaction:
            self._change(transaction, team_id, index, tuple(IndexState), **values)
            transaction.audit("index_version.changed", index, team=team_id, after=values)
            return builds.get(transaction.connection, team_id, index)

    def evaluate(self, team_id: str, index: str, asked: Asked, gate: Gate | None = None) -> tuple[Build, Judged]:
        """Compare with the active one and keep what came out. Raises Conflict for one that has not been built."""
        with self.database.read() as connection:
            found = builds.get(connection, team_id, index)
            active = collections.active_index(connection, found.index.collection_id)
        states = (IndexState.CATCHING_UP, IndexState.READY, IndexState.SOAKING)
        if found.index.state not in states:
            raise not_in(found, states)
        judged = self.judge(Question(team_id, found.collection, index, active.id), asked, gate)
        with self.database.transaction() as transaction:
            builds.change(transaction.connection, index, tuple(IndexState), quality=judged.stored())
            transaction.audit("index_version.evaluated", index, team=team_id, passed=judged.passed)
            return builds.get(transaction.connection, team_id, index), judged

    def _add(
        self,
        connection: Connection,
        collection: OneCollection,
        probe: IndexVersion,
        embedder: EmbedderIdentity,
        wanted: Wanted,
    ) -> IndexVersion:
        active = collections.active_index(connection, collection.id)
        chunker = self.pipelines.chunker(probe).identity
        alike = (chunker, probe.analyser) == (active.chunker, active.analyser)
        return collections.add_index(
            connection,
            collection.id,
            embedder=embedder,
            chunker=chunker,
            analyser=probe.analyser,
            average_length=active.average_length if alike else probe.average_length,
            calibrate_at=FIRST_AFTER,
            state=IndexState.BUILDING,
            pipeline=wanted.pipeline,
            priority=wanted.priority,
            max_concurrency=wanted.max_concurrency,
            note=wanted.note,
        )

    @staticmethod
    def _change(
        transaction: Transaction, team_id: str, index: str, states: Collection[IndexState], **values: object
    ) -> None:
        found = builds.get(transaction.connection, team_id, index)
        if not builds.change(transaction.connection, index, states, **values):
            raise not_in(found, states)


def _refuse_too_many(connection: Connection, collection: OneCollection) -> None:
    if builds.count_live(connection, collection.id) >= MOST_LIVE:
        raise Conflict(
            f"The collection has {MOST_LIVE} index versions that are written to. Cancel one first.",
            code="too_many_index_versions",
        )


def not_in(build: Build, states: Collection[IndexState]) -> Conflict:
    """The refusal of what only an index version in one of `states` allows."""
    among = ", ".join(states)
    return Conflict(
        f"The index version is {build.index.state}; this is for one that is {among}.",
        code="index_version_state",
        numbers={"state": build.index.state},
    )
