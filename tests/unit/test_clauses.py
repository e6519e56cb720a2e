"""Filters written back as their asker would write them, and the one clause that does not hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_service.retrieval.clauses import clauses, failing, values, written
from rag_service.retrieval.filters import parse_filter
from rag_service.types import Filter
from tests import access_model

FIELDS = {"title": "Leave", "source": None, "metadata": {"year": 2023, "tags": ["hr", "pay"]}}

leaves = st.one_of(
    st.builds(lambda op, n: {"year": {op: n}}, st.sampled_from(["$eq", "$ne", "$gt", "$lte"]), st.integers(2020, 2026)),
    st.builds(lambda op, tags: {"tags": {op: tags}}, st.sampled_from(["$in", "$nin"]), st.just(["hr", "x"])),
    st.sampled_from(
        [{"title": None}, {"title": "Leave"}, {"year": {"$gte": "2024-01-31"}}, {"draft": {"$exists": False}}]
    ),
)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda name, parts: {name: parts}, st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3)
        ),
        st.builds(lambda part: {"$not": part}, inner),
    ),
    max_leaves=6,
)


def parsed(document: object) -> Filter:
    tree = parse_filter(document)
    assert tree is not None
    return tree


def holds(condition: Filter) -> bool:
    return access_model.matches(condition, FIELDS)


@given(filters)
def test_a_filter_written_and_parsed_again_is_the_same(document: dict[str, Any]) -> None:
    tree = parsed(document)
    assert parse_filter(written(tree)) == tree


@given(filters)
def test_the_failing_clause_fails_by_itself_and_there_is_one_exactly_where_the_filter_fails(
    document: dict[str, Any],
) -> None:
    tree = parsed(document)
    clause = failing(tree, holds)
    assert (clause is None) == holds(tree)
    if clause is not None:
        assert not holds(clause)
        assert written(clause) in [written(tree), *clauses(tree)]


@given(filters)
def test_all_clauses_hold_exactly_where_the_filter_does(document: dict[str, Any]) -> None:
    tree = parsed(document)
    assert all(holds(parsed(clause)) for clause in clauses(tree)) == holds(tree)


@pytest.mark.parametrize(
    ("document", "clause"),
    [
        ({"year": {"$gte": 2020, "$lt": 2022}, "title": "x"}, {"metadata.year": {"$lt": 2022}}),
        ({"$and": [{"title": "Leave"}, {"$and": [{"tags": "hr"}, {"tags": "x"}]}]}, {"metadata.tags": {"$eq": "x"}}),
        (
            {"title": "Leave", "$or": [{"tags": "x"}, {"year": 1}]},
            {"$or": [{"metadata.tags": {"$eq": "x"}}, {"metadata.year": {"$eq": 1}}]},
        ),
        ({"$not": {"tags": "hr"}}, {"$not": {"metadata.tags": {"$eq": "hr"}}}),
    ],
)
def test_the_first_condition_that_fails_is_the_one_named(document: dict[str, Any], clause: dict[str, Any]) -> None:
    found = failing(parsed(document), holds)
    assert found is not None
    assert written(found) == clause


def test_nothing_narrowed_has_no_clauses() -> None:
    assert clauses(None) == []


def test_values_are_given_by_the_names_of_the_filter() -> None:
    tree = parsed({"$or": [{"title": "x"}, {"$not": {"year": 1}}], "absent": 1, "source": "s"})
    assert values(tree, FIELDS) == {"title": "Leave", "metadata.year": 2023, "metadata.absent": None, "source": None}
