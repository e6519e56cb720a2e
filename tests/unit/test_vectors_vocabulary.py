"""A search may skip what every point of an index satisfies, and only that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from rag_service.access import PUBLIC, AccessScope, AccessTokens, may_read
from rag_service.types import Compare
from rag_service.vectors import shard as shards
from rag_service.vectors.base import SearchRequest
from rag_service.vectors.conditions import Every, Match, Without, mandatory
from rag_service.vectors.edge import EdgeVectorStore
from rag_service.vectors.shard import Shard
from rag_service.vectors.vocabulary import Vocabulary
from tests.contracts.vector_variants import SPEC, document_of, point, unit

ANN = AccessScope("acme", frozenset({PUBLIC, "user:ann"}))
NOT_ANN = AccessTokens((PUBLIC,), ("user:ann",))
REQUEST = SearchRequest(unit(1, 0, 0, 0), point("any").lexical, None, 100)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EdgeVectorStore]:
    store = EdgeVectorStore(tmp_path / "vectors")
    store.create("docs", SPEC)
    yield store
    store.close()


def seen(store: EdgeVectorStore, scope: AccessScope = ANN) -> list[str]:
    return sorted(document_of(candidate) for candidate in store.search("docs", REQUEST, scope))


def keys(condition: Every) -> list[str]:
    inner = [part.condition if isinstance(part, Without) else part for part in condition.conditions]
    return [part.key for part in inner if isinstance(part, Match)]


class TestSimplifying:
    def test_one_team_in_which_nobody_is_denied_leaves_the_question_who_is_allowed(self) -> None:
        vocabulary = Vocabulary(frozenset({"acme"}), frozenset())
        assert keys(vocabulary.simplified(mandatory(ANN, None))) == ["allow"]

    def test_a_reader_of_another_team_is_still_asked_for_hers(self) -> None:
        vocabulary = Vocabulary(frozenset({"other"}), frozenset())
        assert keys(vocabulary.simplified(mandatory(ANN, None))) == ["team", "allow"]

    def test_several_teams_are_told_apart(self) -> None:
        vocabulary = Vocabulary(frozenset({"acme", "other"}), frozenset())
        assert keys(vocabulary.simplified(mandatory(ANN, None))) == ["team", "allow"]

    def test_a_denial_matters_to_whom_it_names(self) -> None:
        vocabulary = Vocabulary(frozenset({"acme"}), frozenset({"user:ann"}))
        assert keys(vocabulary.simplified(mandatory(ANN, None))) == ["allow", "deny"]
        bob = AccessScope("acme", frozenset({PUBLIC, "user:bob"}))
        assert keys(vocabulary.simplified(mandatory(bob, None))) == ["allow"]

    def test_too_many_denials_to_know_are_always_asked_about(self) -> None:
        vocabulary = Vocabulary(frozenset({"acme"}), None).including((), {"user:bob"})
        assert keys(vocabulary.simplified(mandatory(ANN, None))) == ["allow", "deny"]

    def test_what_a_caller_asks_for_stays(self) -> None:
        vocabulary = Vocabulary(frozenset({"acme"}), frozenset())
        narrowing = Compare("colour", "ne", "red")
        assert keys(vocabulary.simplified(mandatory(ANN, narrowing))) == ["allow", "terms"]

    def test_nothing_is_ever_left_out_altogether(self) -> None:
        alone = Every((Match("team", ("acme",)),))
        assert Vocabulary(frozenset({"acme"}), frozenset()).simplified(alone) == alone

    def test_it_grows_by_what_is_new_and_stays_itself_otherwise(self) -> None:
        vocabulary = Vocabulary(frozenset({"acme"}), frozenset({"user:ann"}))
        assert vocabulary.including({"acme"}, {"user:ann"}) is vocabulary
        assert vocabulary.including({"other"}, {"user:bob"}) == Vocabulary(
            frozenset({"acme", "other"}), frozenset({"user:ann", "user:bob"})
        )


class TestInAStore:
    def test_every_mixture_of_documents_is_seen_by_whom_it_may_be(self, store: EdgeVectorStore) -> None:
        tokens = [AccessTokens((PUBLIC,), ()), NOT_ANN, AccessTokens(("user:ann",), ("user:bob",))]
        kinds = [(team, access) for team in ("acme", "other") for access in tokens]
        readers = [ANN, AccessScope("acme", frozenset({"user:bob", PUBLIC})), AccessScope("other", ANN.tokens)]
        for count in range(1, 4):
            for place, mixture in enumerate(combinations(kinds, count)):
                name = f"mixture-{count}-{place}"
                store.create(name, SPEC)
                points = [point(f"{name}/{n}", team=team, access=a) for n, (team, a) in enumerate(mixture)]
                store.upsert(name, points)
                for reader in readers:
                    answer = {candidate.chunk_id for candidate in store.search(name, REQUEST, reader)}
                    assert answer == {one.chunk_id for one in points if may_read(reader, one.team, one.access)}
                store.drop(name)

    def test_a_denial_that_comes_later_holds(self, store: EdgeVectorStore) -> None:
        store.upsert("docs", [point("a"), point("b")])
        assert seen(store) == ["a", "b"]
        store.update("docs", "a", access=NOT_ANN)
        assert seen(store) == ["b"]
        store.upsert("docs", [point("b", access=NOT_ANN), point("c", team="other")])
        assert seen(store) == []

    def test_a_store_opened_again_knows_who_is_denied(self, store: EdgeVectorStore) -> None:
        store.upsert("docs", [point("a"), point("b", access=NOT_ANN), point("c", team="other")])
        store.close()
        assert seen(store) == ["a"]
        assert seen(store, replace(ANN, team="other")) == ["c"]

    def test_more_denials_than_are_kept_in_memory_hold_too(
        self, store: EdgeVectorStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        denied = tuple(f"user:{number}" for number in range(20))
        store.upsert("docs", [point("a", access=AccessTokens((PUBLIC,), (*denied, "user:ann"))), point("b")])
        store.close()
        monkeypatch.setattr(shards, "MAX_DENIED", 10)
        assert seen(store) == ["b"]

    @pytest.mark.parametrize("retries", [True, False])
    def test_a_denied_point_that_comes_while_a_search_is_under_way_is_not_shown(
        self, store: EdgeVectorStore, monkeypatch: pytest.MonkeyPatch, retries: bool
    ) -> None:
        store.upsert("docs", [point("a")])
        shard = store._shard("docs")
        shard._edge = _WrittenMeanwhile(shard, point("b", access=NOT_ANN))  # type: ignore[assignment] # stands for it
        if not retries:  # the store that this test is there to catch
            monkeypatch.setattr(Shard, "_learn", lambda *_: None)
        assert seen(store) == (["a"] if retries else ["a", "b"])


class _WrittenMeanwhile:
    """A shard into which another thread writes a point just before the first question arrives."""

    def __init__(self, shard: Shard, point: Any) -> None:
        self._shard, self._edge, self._point = shard, shard._edge, point

    def query_batch(self, request: Any) -> Any:
        if self._point is not None:
            coming, self._point = self._point, None
            self._shard.upsert([coming])
        return self._edge.query_batch(request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._edge, name)
