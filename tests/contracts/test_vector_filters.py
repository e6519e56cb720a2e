"""Every vector store narrows a search by a caller's filter exactly as the plain-Python model does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_service.errors import InvalidRequest
from rag_service.types import AllOf, AnyOf, Compare, Filter, Not
from rag_service.vectors.base import VectorStore
from tests.access_model import matches
from tests.contracts import vector_variants
from tests.contracts.vector_variants import SPEC, found, point

pytestmark = vector_variants.QUIET
variant, store, index = vector_variants.variant, vector_variants.store, vector_variants.index


FIELDS: Mapping[str, Mapping[str, Any]] = {
    "one": {"number": 1, "name": "ann", "tags": ["x", "y"], "day": "2026-01-31", "flag": True},
    "float": {"number": 1.0, "name": "Ann", "tags": [], "day": "2026-01-31T23:30:00-02:00", "flag": False},
    "half": {
        "number": 2.5,
        "name": "1",
        "tags": ["x"],
        "day": "2026-02-01T00:00:00Z",
        "meta": {"a.b": 1, "c": {"d": 2}},
    },
    "true": {"number": True, "name": ["ann", "bob", 1], "tags": None, "day": "yesterday"},
    "list": {"number": [1, 10], "name": "true", "tags": [None], "day": ["1999-12-31", "2026-03-01"]},
    "none": {},
}
CASES: list[tuple[Filter, set[str]]] = [
    (Compare("number", "eq", 1), {"one", "float", "list"}),
    (Compare("number", "eq", 1.0), {"one", "float", "list"}),
    (Compare("number", "eq", True), {"true"}),
    (Compare("number", "eq", "1"), set()),
    (Compare("number", "eq", 2.5), {"half"}),
    (Compare("number", "ne", 1), {"half", "true", "none"}),
    (Compare("number", "in", (2.5, True, "z")), {"half", "true"}),
    (Compare("number", "in", ()), set()),
    (Compare("number", "nin", (1, True)), {"half", "none"}),
    (Compare("number", "nin", ()), set(FIELDS)),
    (Compare("number", "gt", 1), {"half", "list"}),
    (Compare("number", "gte", 1), {"one", "float", "half", "list"}),
    (Compare("number", "lt", 2.5), {"one", "float", "list"}),
    (Compare("number", "lte", 2.5), {"one", "float", "half", "list"}),
    (Compare("name", "eq", "ann"), {"one", "true"}),
    (Compare("name", "eq", 1), {"true"}),
    (Compare("name", "eq", "true"), {"list"}),
    (Compare("name", "gte", 1), {"true"}),
    (Compare("tags", "eq", "x"), {"one", "half"}),
    (Compare("tags", "exists", True), {"one", "half"}),
    (Compare("tags", "exists", False), {"float", "true", "list", "none"}),
    (Compare("day", "gte", "2026-02-01"), {"float", "half", "list"}),
    (Compare("day", "lt", "2026-02-01T00:00:00Z"), {"one", "list"}),
    (Compare("day", "eq", "2026-01-31"), {"one"}),
    (Compare("meta.a.b", "eq", 1), {"half"}),
    (Compare("meta.c.d", "gt", 1), {"half"}),
    (Compare("flag", "ne", True), set(FIELDS) - {"one"}),
    (Not(Compare("number", "gt", 1)), {"one", "float", "true", "none"}),
    (Not(Compare("missing", "eq", 1)), set(FIELDS)),
    (AllOf(()), set(FIELDS)),
    (AnyOf(()), set()),
    (Not(AllOf(())), set()),
    (AllOf((AnyOf(()), AllOf(()))), set()),
    (AnyOf((AnyOf(()), Compare("name", "eq", "Ann"))), {"float"}),
    (AllOf((Compare("number", "eq", 1), Not(Compare("tags", "eq", "y")))), {"float", "list"}),
]


@pytest.fixture(scope="module")
def shelf(store: VectorStore) -> Iterator[str]:
    store.create("shelf", SPEC)
    store.upsert("shelf", [point(name, fields=fields) for name, fields in FIELDS.items()])
    store.upsert("shelf", [point("foreign", team="other", fields=FIELDS["one"])])
    yield "shelf"
    store.drop("shelf")


class TestNarrowing:
    @pytest.mark.parametrize(("narrowing", "expected"), CASES, ids=[str(case[0]) for case in CASES])
    def test_a_filter_keeps_what_it_says(
        self, store: VectorStore, shelf: str, narrowing: Filter, expected: set[str]
    ) -> None:
        assert {name for name, fields in FIELDS.items() if matches(narrowing, fields)} == expected, "the model"
        assert set(found(store, shelf, narrowing)) == expected

    @pytest.mark.parametrize(
        "narrowing",
        [
            Compare("day", "gt", "yesterday"),
            Compare("day", "gt", "2026-02-30"),
            Compare("day", "gt", True),
            Compare("day", "gt", (1, 2)),
            Compare("day", "eq", (1, 2)),
            Compare("day", "in", "2026-01-31"),
            Compare("day", "exists", "yes"),
            AllOf((Not(Compare("day", "lt", "soon")),)),
        ],
    )
    def test_an_operand_that_cannot_be_compared_is_refused(
        self, store: VectorStore, shelf: str, narrowing: Filter
    ) -> None:
        with pytest.raises(InvalidRequest, match="day"):
            found(store, shelf, narrowing)

    NAMES = ('quote"d', "back\\slash", "a[0]", "sp ace", "ключ", "a.b.", "", "x" * 500, "new\nline")

    def test_any_name_is_a_field_name(self, store: VectorStore, index: str) -> None:
        fields = {name: [number, f"value {number}", "2026-01-31"] for number, name in enumerate(self.NAMES)}
        store.upsert(index, [point("odd", fields={"m": fields}), point("plain")])
        for number, name in enumerate(self.NAMES):
            path = f"m.{name}"
            assert found(store, index, Compare(path, "eq", f"value {number}")) == ["odd"]
            assert found(store, index, Compare(path, "gte", number)) == ["odd"]
            assert found(store, index, Compare(path, "gt", "2026-01-30")) == ["odd"]
            assert found(store, index, Compare(path, "exists", False)) == ["plain"]

    def test_long_values_and_large_numbers_compare_exactly(self, store: VectorStore, index: str) -> None:
        long = "a" * 5000
        store.upsert(index, [point("a", fields={"text": long, "id": 2**80}), point("b", fields={"text": long + "a"})])
        assert found(store, index, Compare("text", "eq", long)) == ["a"]
        assert found(store, index, Compare("id", "eq", 2**80)) == ["a"]
        assert found(store, index, Compare("id", "eq", 2**80 + 1)) == []
        assert found(store, index, Compare("id", "gt", 2**79)) == ["a"]

    def test_more_ranges_than_are_indexed_still_compare(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [point("a", fields={f"field{number}": number for number in range(50)})])
        assert all(found(store, index, Compare(f"field{number}", "gte", number)) == ["a"] for number in range(50))
        assert all(found(store, index, Compare(f"field{number}", "gt", number)) == [] for number in range(50))


NAMES = st.sampled_from(["a", "b", "c.d"])
DATES = st.sampled_from(["2026-01-31", "2026-01-31T10:00:00Z", "2026-01-31T10:00:00+02:00", "1969-07-20 20:17:40.5Z"])
SCALARS = st.one_of(
    st.sampled_from([0, 1, 2, 1.0, 0.5, -3, True, False, "", "a", "A", "1", "true", "2026-02-30"]),
    DATES,
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
)
VALUES = st.one_of(SCALARS, st.none(), st.lists(st.one_of(SCALARS, st.none()), max_size=3))
DOCUMENTS = st.fixed_dictionaries({}, optional={"a": VALUES, "b": VALUES, "c": st.fixed_dictionaries({"d": VALUES})})
NUMBERS = st.one_of(st.sampled_from([0, 1, 1.0, 0.5]), st.integers(-(2**53), 2**53), st.floats(-1e6, 1e6))
COMPARISONS = st.one_of(
    st.builds(Compare, NAMES, st.sampled_from(["eq", "ne"]), SCALARS),
    st.builds(Compare, NAMES, st.sampled_from(["in", "nin"]), st.lists(SCALARS, max_size=3).map(tuple)),
    st.builds(Compare, NAMES, st.sampled_from(["gt", "gte", "lt", "lte"]), st.one_of(NUMBERS, DATES)),
    st.builds(Compare, NAMES, st.just("exists"), st.booleans()),
)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.builds(AllOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=st.lists(DOCUMENTS, min_size=1, max_size=8), filters=st.lists(FILTERS, min_size=1, max_size=12))
def test_any_filter_keeps_what_the_plain_model_keeps(
    store: VectorStore, index: str, documents: list[dict[str, Any]], filters: list[Filter]
) -> None:
    for number in range(8):
        store.delete(index, str(number))
    store.upsert(index, [point(str(number), fields=fields) for number, fields in enumerate(documents)])
    for narrowing in filters:
        expected = [str(number) for number, fields in enumerate(documents) if matches(narrowing, fields)]
        assert found(store, index, narrowing) == expected, narrowing
