"""Through the HTTP route, as applications ask it: nobody gets a passage that she may not read, nobody misses one.

The catalogue of who may read what is kept here in plain Python, apart from the service's own code.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Connection, true

from rag_service.access import AccessScope
from rag_service.db import chunks
from rag_service.vectors import conditions, legs
from rag_service.vectors.conditions import Every, Match
from tests.conftest import Service, Started, Team, settings_for

QUERIES = 10_000
MOST = 100  # the largest top_k
USERS = [f"u{number}" for number in range(12)]
GROUPS = [f"g{number}" for number in range(6)]
KINDS = ["memo", "plan", "note"]


@dataclass
class Row:
    """A document as its uploader sees it."""

    external_id: str
    collection: str
    acl: dict[str, Any]
    metadata: dict[str, Any]
    id: str = ""


@dataclass
class World:
    service: Service
    team: Team
    rows: dict[str, Row] = field(default_factory=dict)

    @property
    def application(self) -> TestClient:
        return self.team.client("query", "impersonate")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two teams; in ours, a collection that hardly anybody may read, one in between, and one open to nearly all."""
    chance = random.Random(99)
    with Started(settings_for(tmp_path_factory.mktemp("http-access")), worker=False) as service:
        team, other = service.new_team(), service.new_team()
        world = World(service, team)
        for name, size, share in (("rare", 1000, 0.0), ("some", 300, 0.1), ("open", 100, 0.9)):
            for owner in (team, other):
                assert owner.manager.post("/v1/collections", json={"name": name}).status_code == 201
            rows = [_row(chance, name, number, share) for number in range(size)]
            upload(team, rows)
            upload(other, [Row(f"foreign-{row.external_id}", name, {"public": True}, {}) for row in rows[:50]])
            world.rows.update({row.external_id: row for row in rows})
        service.work()
        yield world


def _row(chance: random.Random, collection: str, number: int, share: float) -> Row:
    acl: dict[str, Any] = {
        "public": chance.random() < share,
        "users": chance.sample(USERS, 1) if chance.random() < (0.03 if share < 0.05 else 0.2) else [],
        "groups": chance.sample(GROUPS, 1) if chance.random() < (0.02 if share < 0.05 else 0.2) else [],
        "deny_users": chance.sample(USERS, 2) if chance.random() < 0.2 else [],
        "deny_groups": chance.sample(GROUPS, 1) if chance.random() < 0.1 else [],
    }
    if collection == "rare" and number == 0:
        acl = {"public": False, "users": ["lonely"], "groups": [], "deny_users": [], "deny_groups": []}
    return Row(f"{collection}-{number}", collection, acl, {"kind": chance.choice(KINDS), "year": 2000 + number % 20})


def upload(team: Team, rows: list[Row]) -> None:
    documents = [
        {
            "external_id": row.external_id,
            "collection": row.collection,
            "text": f"Common words about {row.external_id}.",
            "acl": row.acl,
            "metadata": row.metadata,
        }
        for row in rows
    ]
    for start in range(0, len(documents), 500):
        answer = team.manager.post("/v1/documents:batch", json={"documents": documents[start : start + 500]})
        assert answer.status_code == 200, answer.text
        for row, result in zip(rows[start : start + 500], answer.json()["results"], strict=True):
            row.id = result["document"]["id"]


@dataclass(frozen=True)
class Question:
    collection: str
    user: str | None
    groups: tuple[str, ...]
    filter: dict[str, Any] | None
    options: dict[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"query": "common words", "collections": [self.collection], "top_k": MOST}
        if self.user is not None or self.groups:
            body["as_user"] = {"user": self.user, "groups": list(self.groups)}
        if self.filter is not None:
            body["filter"] = self.filter
        return {**body, **self.options}

    def matches(self, metadata: dict[str, Any]) -> bool:
        wanted = self.filter or {}
        kind, year = wanted.get("kind"), wanted.get("year")
        return (kind is None or metadata["kind"] == kind) and (year is None or metadata["year"] >= year["$gte"])


def may_read(user: str | None, groups: tuple[str, ...], acl: dict[str, Any]) -> bool:
    if user in acl["deny_users"] or set(groups) & set(acl["deny_groups"]):
        return False
    return acl["public"] or user in acl["users"] or bool(set(groups) & set(acl["groups"]))


def random_question(chance: random.Random) -> Question:
    narrowing: dict[str, Any] = {}
    if chance.random() < 0.3:
        narrowing["kind"] = chance.choice(KINDS)
    if chance.random() < 0.2:
        narrowing["year"] = {"$gte": 2000 + chance.randrange(20)}
    user = chance.choice([None, "lonely", *USERS])
    groups = () if user is None else tuple(chance.sample(GROUPS, chance.randrange(3)))
    # The rare collection is asked most: its answers are short, and what leaks there stands out.
    return Question(chance.choices(["rare", "some", "open"], [8, 2, 1])[0], user, groups, narrowing or None)


# No option may show more; these may not show less either. Phrases stand in all texts, the excluded word in none.
OPTIONS: dict[str, list[Any]] = {
    "query": ['"common words"', 'common words -nowhere "about"'],
    "mode": ["dense", "lexical"],
    "fusion": [{"method": "rrf"}, {"weights": {"dense": 0.1, "lexical": 0.9}}],
    "feedback": [True, {"passages": 1, "terms": 50, "weight": 1}],
    "diversity": [0.2, 1.0],
    "recency": [{"field": "year"}, {"field": "none", "weight": 1}],
    "expand": [{"before": 1}, {"before": 20, "after": 20}, {"section": True}],
    "rerank": [True, {"depth": 5}],
    "explain": [True],
    "highlight": [True],
}


def random_options(chance: random.Random) -> dict[str, Any]:
    return {name: chance.choice(values) for name, values in OPTIONS.items() if chance.random() < 0.3}


def wrong_answers(world: World, queries: int, seed: int, *, options: bool = False) -> list[str]:
    """Ask at random, on request with random options; return what was leaked and what was missing."""
    chance, application, wrong = random.Random(seed), world.application, []

    @cache
    def readable(collection: str, user: str | None, groups: tuple[str, ...]) -> list[Row]:
        return [row for row in world.rows.values() if row.collection == collection and may_read(user, groups, row.acl)]

    for _ in range(queries):
        question = random_question(chance)
        if options:
            question = replace(question, options=random_options(chance))
        answer = application.post("/v1/retrieve", json=question.body())
        assert answer.status_code == 200, answer.text
        got = {result["external_id"] for result in answer.json()["results"]}
        rows = readable(question.collection, question.user, question.groups)
        expected = {row.external_id for row in rows if question.matches(row.metadata)}
        wrong += [f"leaked {name} to {question}" for name in got - expected]
        if len(got) < MOST:
            wrong += [f"missing {name} for {question}" for name in expected - got]
    return wrong


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_random_questions_leak_nothing_and_miss_nothing(world: World) -> None:
    assert wrong_answers(world, QUERIES, seed=1) == []


def test_no_option_shows_more_or_less(world: World) -> None:
    assert wrong_answers(world, 600, seed=5, options=True) == []


def test_options_over_a_service_that_forgets_the_deny_lists_are_caught(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_deny(scope: AccessScope) -> Every:
        return Every((Match("team", (scope.team,)), Match("allow", tuple(sorted(scope.tokens)))))

    _search_as(monkeypatch, without_deny)
    _confirm_unasked(monkeypatch)
    assert [problem for problem in wrong_answers(world, 300, seed=5, options=True) if problem.startswith("leaked")]


def test_the_lonely_reader_finds_her_one_document_in_a_thousand(world: World) -> None:
    body = Question("rare", "lonely", (), None).body()
    assert [
        result["external_id"] for result in world.application.post("/v1/retrieve", json=body).json()["results"]
    ] == ["rare-0"]


def test_a_service_that_forgets_the_deny_lists_is_caught(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_deny(scope: AccessScope) -> Every:
        return Every((Match("team", (scope.team,)), Match("allow", tuple(sorted(scope.tokens)))))

    _search_as(monkeypatch, without_deny)
    _confirm_unasked(monkeypatch)
    assert wrong_answers(world, 300, seed=2)


def test_either_check_alone_holds_when_the_other_is_broken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        _confirm_unasked(broken)
        assert wrong_answers(world, 300, seed=3) == []
    with monkeypatch.context() as broken:
        _search_as(broken, lambda scope: Every((Match("team", (scope.team,)),)))
        assert not [problem for problem in wrong_answers(world, 300, seed=3) if problem.startswith("leaked")]


class TestRevocation:
    """The index learns of a revocation from a job; the answer must not wait for it."""

    @pytest.fixture(autouse=True)
    def revoked(self, world: World) -> Iterator[None]:
        """A hundred documents closed to all, with no worker to tell the index."""
        nobody: dict[str, Any] = {"public": False, "users": [], "groups": [], "deny_users": [], "deny_groups": []}
        open_rows = [row for row in world.rows.values() if row.collection == "open"]
        before = {row.external_id: row.acl for row in open_rows}
        for row in open_rows:
            answer = world.team.manager.patch(f"/v1/documents/{row.id}/acl", json=nobody)
            assert answer.status_code == 202, answer.text
            row.acl = nobody
        yield
        for row in open_rows:
            row.acl = before[row.external_id]
            world.team.manager.patch(f"/v1/documents/{row.id}/acl", json=row.acl)
        world.service.work()

    def test_holds_from_the_moment_it_is_acknowledged(self, world: World) -> None:
        assert wrong_answers(world, 300, seed=4) == []

    def test_an_answer_that_is_not_confirmed_is_caught(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        _confirm_unasked(monkeypatch)
        assert [problem for problem in wrong_answers(world, 300, seed=4) if problem.startswith("leaked")]


class TestSurroundings:
    """A document is revoked between the confirmation of its passage and the look at what stands around it."""

    @pytest.fixture
    def revoking(self, team: Team, monkeypatch: pytest.MonkeyPatch) -> Team:
        text = "\n\n".join(f"# Part {n}\n\nThe canteen, part {n}. {'More words. ' * 100}" for n in range(4))
        document = team.put(text, external_id="book")
        team.drain()
        confirm = chunks.confirm

        def then_revoke(connection: Connection, chunk_ids: Sequence[str], scope: AccessScope) -> dict[str, Any]:
            confirmed = confirm(connection, chunk_ids, scope)
            assert team.manager.patch(f"/v1/documents/{document['id']}/acl", json={"public": False}).status_code == 202
            return confirmed

        monkeypatch.setattr(chunks, "confirm", then_revoke)
        return team

    def shown(self, team: Team) -> list[dict[str, Any]]:
        hits = team.retrieve("canteen", team.client("query"), expand={"before": 1, "after": 1})
        assert hits
        return [hit["context"] for hit in hits if "context" in hit]

    def test_are_looked_at_with_the_same_conditions_again(self, revoking: Team) -> None:
        assert self.shown(revoking) == []

    def test_a_service_that_shows_neighbours_unconfirmed_is_caught(
        self, revoking: Team, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The confirmation of the passages themselves is made already, and stays as it is.
        monkeypatch.setattr(chunks, "readable_few", true)
        assert self.shown(revoking)


@pytest.mark.parametrize("feedback", [False, True])
def test_words_of_what_she_may_not_read_never_move_her_answer(team: Team, *, feedback: bool) -> None:
    for number in range(30):
        team.put(f"Report {number} on the budget and topic{number}.", acl={"users": ["ann"]})
    team.drain()
    asker = team.client("query", user="ann")
    before = [(hit["text"], hit["score"]) for hit in team.retrieve("budget", asker, feedback=feedback)]
    for _ in range(5):
        team.put("Budget budget budget topic7 topic8.", acl={"users": ["bob"]}, external_id=f"bob{_}")
    team.drain()
    assert [(hit["text"], hit["score"]) for hit in team.retrieve("budget", asker, feedback=feedback)] == before


def _confirm_unasked(broken: pytest.MonkeyPatch) -> None:
    """The database lets every document pass."""
    broken.setattr(chunks, "CONFIRMED", chunks.confirming(true()))


def _search_as(broken: pytest.MonkeyPatch, allowed: Callable[[AccessScope], Every]) -> None:
    """The vector store finds what is `allowed`, with and without a filter."""
    for module in (conditions, legs):
        broken.setattr(module, "readable", allowed)


def test_scores_stay_the_same_when_others_add_what_she_cannot_read(team: Team) -> None:
    for number in range(20):
        team.put(f"The quarterly budget of department {number} covers travel.", acl={"users": ["ann"]})
    team.drain()
    asker = team.client("query", user="ann")
    before = [(hit["external_id"], hit["scores"]) for hit in team.retrieve("budget for travel", asker, top_k=20)]
    documents = [
        {"text": f"Budget, travel and budget again, number {number}.", "acl": {"users": ["bob"]}}
        for number in range(1000)
    ]
    assert team.manager.post("/v1/documents:batch", json={"documents": documents}).status_code == 200
    team.drain()
    after = [(hit["external_id"], hit["scores"]) for hit in team.retrieve("budget for travel", asker, top_k=20)]
    assert len(before) == 20
    assert after == before


def test_a_key_of_one_user_is_that_user_and_nobody_else(team: Team) -> None:
    team.put("A secret recipe.", external_id="recipe", acl={"users": ["ann"]})
    team.drain()
    assert team.retrieve("secret recipe", team.client("query", user="ann"))
    assert not team.retrieve("secret recipe", team.client("query", user="bob"))
    assert not team.retrieve("secret recipe", team.client("query"))
    taken = team.client("query", "impersonate", user="bob")
    refused = taken.post("/v1/retrieve", json={"query": "secret recipe", "as_user": {"user": "ann", "groups": []}})
    assert refused.status_code == 403


def test_data_of_one_folder_cannot_serve_two_processes(tmp_path: Path) -> None:
    from rag_service.errors import ConfigError

    with (
        Started(settings_for(tmp_path)),
        pytest.raises(ConfigError, match="Another process"),
        Started(settings_for(tmp_path)),
    ):
        pass
