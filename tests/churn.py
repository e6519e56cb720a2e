"""A team whose documents change all the time, and the questions by which two states of a service are compared."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from rag_service.db import chunks, collections, documents, inventory
from rag_service.db.fields import fields_of
from rag_service.runtime import Runtime
from rag_service.types import IndexVersion
from rag_service.vectors.base import IndexSpec, VectorPoint
from tests.conftest import Service, Team

WORDS = """
anchor bakery canteen dragon ember forest garden harbour island journal kitchen lantern meadow needle orchard pepper
quarry river saddle timber umbrella valley willow yacht zebra
""".split()  # noqa: SIM905 - a list of words reads better as words
NAMES = [f"doc-{number}" for number in range(40)]
Answer = list[tuple[str, dict[str, Any]]]
# The store adds up a sparse product in the order in which it first met its terms: 32-bit sums differ in the last digit.
_LAST_DIGIT = 1e-6


def text_of(seed: int) -> str:
    """Paragraphs that differ from seed to seed and make several chunks."""
    dice = random.Random(seed)
    return f"# Number {seed}\n\n" + "\n\n".join(" ".join(dice.choices(WORDS, k=90)) + "." for _ in range(3))


def questions(count: int, seed: int = 7) -> list[str]:
    dice = random.Random(seed)
    return [" ".join(dice.choices(WORDS, k=dice.randint(1, 4))) for _ in range(count)]


def answers(team: Team, asked: Sequence[str]) -> list[Answer]:
    """Chunk ids with every score, as a manager and as a reader are told."""
    reader = team.client("query", user="ada", groups=["staff"])
    found = []
    for number, question in enumerate(asked):
        hits = team.retrieve(question, reader if number % 2 else None, top_k=10)
        found.append([(hit["chunk_id"], {"score": hit["score"], **hit["scores"]}) for hit in hits])
    return found


def same(these: Sequence[Answer], those: Sequence[Answer]) -> bool:
    """The same chunks in the same order with the same scores; chunks of equal score may stand in either order."""
    return all(_same(this, that) for this, that in zip(these, those, strict=True))


def _same(this: Answer, that: Answer) -> bool:
    mine, other = dict(this), dict(that)
    if [scores["score"] for _, scores in this] != pytest.approx(
        [scores["score"] for _, scores in that], abs=_LAST_DIGIT
    ):
        return False
    # Only a tie with the last that is shown can leave one of the two out.
    alone = [{**mine, **other}[chunk]["score"] for chunk in mine.keys() ^ other.keys()]
    if alone and alone != pytest.approx([this[-1][1]["score"]] * len(alone), abs=_LAST_DIGIT):
        return False
    return all(
        _values(mine[chunk]) == pytest.approx(_values(other[chunk]), abs=_LAST_DIGIT) for chunk in mine.keys() & other
    )


def _values(scores: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if value is not None and not name.endswith("_rank")}


@dataclass
class Churn:
    """Uploads, replaces, deletes and changes readers, one after the other, until told to stop."""

    team: Team
    seed: int
    done: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        dice = random.Random(self.seed)
        while not self._stop.wait(0.005):
            self.step(dice)

    def step(self, dice: random.Random) -> None:
        name = dice.choice(NAMES)
        acl = dice.choice([{"public": True}, {"users": ["ada"]}, {"groups": ["staff"], "deny_users": ["ada"]}])
        body = {"text": text_of(dice.randrange(1000)), "external_id": name, "acl": acl}
        manager = self.team.manager
        if dice.random() < 0.7:
            answer = manager.post("/v1/documents", json=body)
        else:
            listed = manager.get("/v1/documents", params={"external_id": name}).json()["data"]
            if not listed:
                return
            path = f"/v1/documents/{listed[0]['id']}"
            answer = manager.delete(path) if dice.random() < 0.5 else manager.patch(f"{path}/acl", json=acl)
        self.done += 1
        if answer.status_code not in (200, 202, 404, 409):
            self.failures.append(answer.text)


@contextmanager
def churning(team: Team, seed: int) -> Iterator[Churn]:
    churn = Churn(team, seed)
    thread = threading.Thread(target=churn.run)
    thread.start()
    try:
        yield churn
    finally:
        churn._stop.set()
        thread.join()
    assert not churn.failures


def rebuild(runtime: Runtime) -> None:
    """Make every index anew from the rows alone, embedding their texts again: what the index should be."""
    with runtime.database.read() as connection:
        indexes = collections.all_active(connection)
    for index in indexes:
        runtime.vectors.drop(index.id)
        runtime.vectors.create(index.id, IndexSpec(index.embedder.dimensions))
        runtime.vectors.upsert(index.id, _points(runtime, index))


def _points(runtime: Runtime, index: IndexVersion) -> list[VectorPoint]:
    points = []
    with runtime.database.read() as connection:
        for page in inventory.live_documents(connection, index.id):
            for row in page:
                held = chunks.of_document(connection, index.id, row.id, row.indexed_version or 0)
                chunker = runtime.pipelines.chunker(index)
                title = chunker.fitting_title(row.title)
                texts = [chunker.embedded(title, chunk.content) for chunk in held]
                words = [chunker.counted(title, chunk.content) for chunk in held]
                dense = runtime.pipelines.embedder(index).embed(texts, "document")
                lexical = runtime.pipelines.lexical(index).encode(words, "document")
                points += [
                    VectorPoint(
                        chunk_id=chunk.id,
                        team=row.team_id,
                        document_id=row.id,
                        version=chunk.version,
                        text_hash=chunk.text_hash,
                        dense=vector,
                        lexical=terms,
                        access=documents.tokens(connection, row),
                        fields=fields_of(row),
                    )
                    for chunk, vector, terms in zip(held, dense, lexical, strict=True)
                ]
    return points


def known_team(service: Service, team: Team) -> Team:
    """The same team, in another service that was restored from a backup of its own."""
    return Team(service, team.id)
