"""The filter of a search: made in one place, never empty."""

from __future__ import annotations

from typing import Any

import pytest

from rag_service.access import PUBLIC, AccessScope
from rag_service.types import AllOf, AnyOf, Compare, Filter, Not
from rag_service.vectors.conditions import (
    EVERYTHING,
    NOTHING,
    Among,
    Either,
    Every,
    Match,
    Range,
    Without,
    mandatory,
    of_document,
    readable,
    split,
    translated,
    within,
)

ANN = AccessScope("acme", frozenset({PUBLIC, "user:ann"}))
ACCESS = (
    Match("team", ("acme",)),
    Match("allow", ("public", "user:ann")),
    Without(Match("deny", ("public", "user:ann"))),
)


def test_a_search_is_filtered_by_team_allow_and_deny() -> None:
    assert mandatory(ANN, None) == readable(ANN) == Every(ACCESS)


@pytest.mark.parametrize("narrowing", [AllOf(()), AnyOf(()), Not(AnyOf(())), Compare("a", "nin", ())])
def test_no_narrowing_takes_a_condition_away(narrowing: Filter) -> None:
    assert mandatory(ANN, narrowing).conditions == (*ACCESS, translated(narrowing))


def test_an_alternative_stays_below_the_access_conditions() -> None:
    either = AnyOf((Compare("a", "eq", 1), Compare("b", "eq", 2)))
    *access, narrowed = mandatory(ANN, either).conditions
    assert tuple(access) == ACCESS
    assert isinstance(narrowed, Either)


@pytest.mark.parametrize(("team", "tokens"), [("", {"public"}), ("acme", set())])
def test_a_scope_forged_without_team_or_tokens_makes_no_filter(team: str, tokens: set[str]) -> None:
    forged = object.__new__(AccessScope)
    object.__setattr__(forged, "team", team)
    object.__setattr__(forged, "tokens", frozenset(tokens))
    with pytest.raises(ValueError, match="everything"):
        readable(forged)


@pytest.mark.parametrize("scope", [None, frozenset({"public"}), "acme"])
def test_what_is_no_scope_makes_no_filter(scope: Any) -> None:
    with pytest.raises(TypeError):
        readable(scope)


@pytest.mark.parametrize(
    "make", [lambda: Match("a", ()), lambda: Every(()), lambda: Either(()), lambda: Among(frozenset())]
)
def test_an_empty_condition_cannot_be_made(make: Any) -> None:
    with pytest.raises(ValueError, match="everything"):
        make()


def test_empty_filters_are_spelled_out() -> None:
    assert translated(AllOf(())) == EVERYTHING
    assert translated(AnyOf(())) == translated(Compare("a", "in", ())) == NOTHING
    assert Without(NOTHING) == EVERYTHING


def test_a_document_is_chosen_whole_or_by_version() -> None:
    assert of_document("d") == Every((Match("document_id", ("d",)),))
    assert of_document("d", older_than=0).conditions[1:] == (Range("version", "lt", 0),)
    assert of_document("d", only=0).conditions[1:] == (Range("version", "gte", 0), Range("version", "lte", 0))


def test_a_few_chunks_are_still_under_the_whole_filter() -> None:
    some = frozenset({"c"})
    assert within(some, mandatory(ANN, None)) == Every((Among(some), *ACCESS))


def test_conditions_are_split_as_stores_take_them() -> None:
    one, other = Match("a", ("1",)), Match("b", ("2",))
    assert split(Every((one, Without(other)))) == ([one], [], [other])
    assert split(Either((one, Without(other)))) == ([], [one, Without(other)], [])
    assert split(Without(one)) == ([], [], [one])
    assert split(one) == ([one], [], [])
