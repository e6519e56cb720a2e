"""A filter over the fields of one document finds what the stores find."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_service.errors import InvalidRequest
from rag_service.types import AllOf, AnyOf, Compare, Filter, Not
from rag_service.vectors.matching import matches
from tests import access_model
from tests.contracts.test_vector_filters import CASES, FIELDS


@pytest.mark.parametrize(("narrowing", "expected"), CASES, ids=[str(case[0]) for case in CASES])
def test_a_filter_keeps_what_it_keeps_in_the_stores(narrowing: Filter, expected: set[str]) -> None:
    assert {name for name, fields in FIELDS.items() if matches(narrowing, fields)} == expected


def test_no_filter_keeps_everything() -> None:
    assert matches(None, {})


def test_an_operand_that_cannot_be_compared_is_refused_whatever_the_document() -> None:
    for narrowing in (Compare("day", "gt", "yesterday"), AllOf((Not(Compare("day", "exists", "yes")),))):
        with pytest.raises(InvalidRequest):
            matches(narrowing, {})


_VALUES = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 1.0, True, False, "a", "1", "2026-01-31"]))
_FIELDS = st.dictionaries(st.sampled_from("ab"), st.one_of(_VALUES, st.lists(_VALUES, max_size=3)), max_size=2)
_COMPARES = st.one_of(
    st.builds(Compare, st.sampled_from("abc"), st.sampled_from(["eq", "ne"]), _VALUES),
    st.builds(Compare, st.sampled_from("abc"), st.sampled_from(["in", "nin"]), st.lists(_VALUES).map(tuple)),
    st.builds(Compare, st.sampled_from("abc"), st.just("exists"), st.booleans()),
    st.builds(Compare, st.sampled_from("abc"), st.sampled_from(["gt", "gte", "lt", "lte"]), st.integers(-3, 3)),
)
_FILTERS: Any = st.recursive(
    _COMPARES,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.lists(inner, max_size=3).map(lambda parts: AllOf(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
    ),
    max_leaves=5,
)


@given(_FILTERS, _FIELDS)
def test_it_agrees_with_the_model(narrowing: Filter, fields: Mapping[str, Any]) -> None:
    assert matches(narrowing, fields) == access_model.matches(narrowing, fields)
