"""The filter dialect: what it accepts, what it becomes, and how it says no."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_service.errors import InvalidRequest
from rag_service.retrieval.filters import MAX_CONDITIONS, MAX_DEPTH, MAX_STRING, MAX_VALUES, parse_filter
from rag_service.types import AllOf, AnyOf, Compare, Filter, Not

YEAR_2020 = Compare("metadata.year", "eq", 2020)
FROM_HR = Compare("source", "eq", "src_hr")


def refusal(document: object) -> str:
    with pytest.raises(InvalidRequest) as caught:
        parse_filter(document)
    assert caught.value.status == 422
    assert caught.value.code == "invalid_filter"
    return caught.value.message


@pytest.mark.parametrize("nothing", [None, {}])
def test_no_filter_and_an_empty_one_narrow_nothing(nothing: object) -> None:
    assert parse_filter(nothing) is None


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ({"year": 2020}, YEAR_2020),
        ({"year": {"$eq": 2020}}, YEAR_2020),
        ({"metadata.year": 2020}, YEAR_2020),
        ({"year": {"$ne": 2020}}, Compare("metadata.year", "ne", 2020)),
        ({"tag": {"$in": ["a", "b"]}}, Compare("metadata.tag", "in", ("a", "b"))),
        ({"tag": {"$nin": ["a"]}}, Compare("metadata.tag", "nin", ("a",))),
        ({"size": {"$gt": 1.5}}, Compare("metadata.size", "gt", 1.5)),
        ({"draft": False}, Compare("metadata.draft", "eq", False)),
        ({"tag": {"$exists": True}}, Compare("metadata.tag", "exists", True)),
        ({"tag": None}, Compare("metadata.tag", "exists", False)),
        ({"tag": {"$eq": None}}, Compare("metadata.tag", "exists", False)),
        ({"tag": {"$ne": None}}, Compare("metadata.tag", "exists", True)),
        ({"source": "src_hr"}, FROM_HR),
        ({"title": {"$in": ["A", "B"]}}, Compare("title", "in", ("A", "B"))),
        ({"media_type": "text/html"}, Compare("media_type", "eq", "text/html")),
        ({"external_id": "x/1"}, Compare("external_id", "eq", "x/1")),
        ({"uri": {"$exists": False}}, Compare("uri", "exists", False)),
        ({"metadata.title": "T"}, Compare("metadata.title", "eq", "T")),
        ({"metadata": "m"}, Compare("metadata.metadata", "eq", "m")),
    ],
)
def test_a_condition_on_one_field(written: object, means: Filter) -> None:
    assert parse_filter(written) == means


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ({"year": 2020, "source": "src_hr"}, AllOf((YEAR_2020, FROM_HR))),
        (
            {"year": {"$gte": 2020, "$lt": 2022}},
            AllOf((Compare("metadata.year", "gte", 2020), Compare("metadata.year", "lt", 2022))),
        ),
        ({"$and": [{"year": 2020}, {"source": "src_hr"}]}, AllOf((YEAR_2020, FROM_HR))),
        ({"$or": [{"year": 2020}, {"source": "src_hr"}]}, AnyOf((YEAR_2020, FROM_HR))),
        ({"$or": [{"year": 2020}]}, YEAR_2020),
        ({"$not": {"year": 2020, "source": "src_hr"}}, Not(AllOf((YEAR_2020, FROM_HR)))),
        ({"year": {"$not": {"$gt": 2020}}}, Not(Compare("metadata.year", "gt", 2020))),
        (
            {"year": {"$exists": True, "$not": {"$in": [1, 2]}}},
            AllOf((Compare("metadata.year", "exists", True), Not(Compare("metadata.year", "in", (1, 2))))),
        ),
        (
            {"source": "src_hr", "$or": [{"year": 2020}, {"$not": {"year": 2020}}]},
            AllOf((FROM_HR, AnyOf((YEAR_2020, Not(YEAR_2020))))),
        ),
    ],
)
def test_conditions_combine(written: object, means: Filter) -> None:
    assert parse_filter(written) == means


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("2026-01-31", "2026-01-31T00:00:00Z"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31t12:00:00z", "2026-01-31T12:00:00Z"),
        ("2026-01-31 12:00:00+02:00", "2026-01-31T10:00:00Z"),
        ("2026-01-31T12:00:00.25Z", "2026-01-31T12:00:00.250000Z"),
    ],
)
@pytest.mark.parametrize("field", ["created_at", "updated_at", "metadata.published"])
def test_dates_in_ranges_become_utc_datetimes(field: str, written: str, means: str) -> None:
    assert parse_filter({field: {"$gte": written}}) == Compare(field, "gte", means)
    assert datetime.fromisoformat(means).tzinfo is not None


@pytest.mark.parametrize(
    "not_a_date",
    [
        "2026",
        "yesterday",
        "2026-02-30",
        "2026-01-31T12:00:00",
        "2026-01-31T25:00:00Z",
        "2026-W05-1",
        "20260131",
        "0001-01-01T00:00:00+14:00",
        "٢٠٢٦-٠١-٣١",
        "2026-01-31\n",
        "",
    ],
)
def test_a_range_over_text_that_is_no_date_is_refused(not_a_date: str) -> None:
    message = refusal({"published": {"$lt": not_a_date}})
    assert message.startswith("filter.published.$lt must be a date")
    assert "2026-01-31T12:00:00Z" in message


@pytest.mark.parametrize(
    ("written", "where", "what_to_do"),
    [
        ([], "filter ", "must be an object"),
        ("year = 2020", "filter ", "must be an object"),
        ({"$or": []}, "filter.$or ", "at least one condition"),
        ({"$and": []}, "filter.$and ", "at least one condition"),
        ({"$and": {"year": 1}}, "filter.$and ", "needs a list"),
        ({"$or": [{"year": 1}, {}]}, "filter.$or[1] ", "is empty"),
        ({"$or": [{"year": 1}, 5]}, "filter.$or[1] ", "must be an object"),
        ({"$not": {}}, "filter.$not ", "is empty"),
        ({"$not": [{"year": 1}]}, "filter.$not ", "must be an object"),
        ({"year": {}}, "filter.year ", "has no operator"),
        ({"year": [1, 2]}, "filter.year ", '{"$in": [...]}'),
        ({"year": {"$like": 1}}, "filter.year.$like ", "Use one of $eq"),
        ({"year": {"gt": 1}}, "filter.year.gt ", "Use one of $eq"),
        ({"year": {"$not": 5}}, "filter.year.$not ", "object of operators"),
        ({"year": {"$not": {}}}, "filter.year.$not ", "has no operator"),
        ({"year": {"$and": [1]}}, "filter.year.$and ", "Use one of $eq"),
        ({"year": {"$in": 5}}, "filter.year.$in ", "needs a list"),
        ({"year": {"$in": []}}, "filter.year.$in ", "at least one value"),
        ({"year": {"$in": [1, None]}}, "filter.year.$in[1] ", "must be a string, a number"),
        ({"year": {"$eq": {"a": 1}}}, "filter.year.$eq ", "must be a string, a number"),
        ({"year": {"$eq": [1]}}, "filter.year.$eq ", "must be a string, a number"),
        ({"year": {"$gt": None}}, "filter.year.$gt ", "must be a string, a number"),
        ({"year": {"$gt": True}}, "filter.year.$gt ", "must be a number or a date"),
        ({"year": {"$exists": 1}}, "filter.year.$exists ", "true or false"),
        ({"$nor": [{"year": 1}]}, "filter.$nor ", "$and, $or or $not"),
        ({"$gt": 5}, "filter.$gt ", "Use a field name"),
        ({"title": 5}, "filter.title ", "must be a string"),
        ({"source": {"$in": ["a", True]}}, "filter.source.$in[1] ", "must be a string"),
        ({"title": {"$gt": "2026-01-01"}}, "filter.title.$gt ", "use $eq or $in"),
        ({"created_at": "2026-01-01"}, "filter.created_at ", "Use $gte and $lt"),
        ({"created_at": {"$in": ["2026-01-01"]}}, "filter.created_at.$in ", "Use $gte and $lt"),
        ({"updated_at": {"$gt": 1767225600}}, "filter.updated_at.$gt ", "must be a date"),
        ({"year": float("nan")}, "filter.year ", "finite numbers"),
        ({"year": {"$lt": float("inf")}}, "filter.year.$lt ", "finite numbers"),
        ({"year": 2**63}, "filter.year ", "64 bits"),
        ({"year": 10**400}, "filter.year ", "64 bits"),
        ({"tag": "a\x00b"}, "filter.tag ", "valid Unicode"),
        ({"tag": "\ud800"}, "filter.tag ", "valid Unicode"),
        ({"tag": "x" * (MAX_STRING + 1)}, "filter.tag ", "longer than 1,024"),
        ({"a.b": 1}, "filter.a.b ", "Names are 1 to 64"),
        ({"metadata.": 1}, "filter.metadata. ", "Names are 1 to 64"),
        ({"metadata.a.b": 1}, "filter.metadata.a.b ", "Names are 1 to 64"),
        ({"a" * 65: 1}, f"filter.{'a' * 65} ", "Names are 1 to 64"),
        ({"": 1}, "filter.'' ", "Names are 1 to 64"),
        ({"jahr_größe": 1}, "filter.", "Names are 1 to 64"),
        ({"year\n": 1}, "filter.", "Names are 1 to 64"),
        ({5: 1}, "filter.", "Names are strings"),
    ],
)
def test_a_refusal_says_where_and_what_to_do(written: object, where: str, what_to_do: str) -> None:
    message = refusal(written)
    assert message.startswith(where)
    assert what_to_do in message


@pytest.mark.parametrize("key", ["\ud800", "a\x00b", "<script>" * 1000, "zeile\r\nX-Header: 1", "\u202eabc"])
def test_a_refusal_does_not_repeat_hostile_text(key: str) -> None:
    for document in ({key: 1}, {"year": {key: 1}}):
        message = refusal(document)
        assert re.fullmatch(r"[ -~]{1,400}", message), "printable ASCII, so that logs and answers can carry it"


def nested(levels: int, wrap: Callable[[object], object]) -> object:
    document: object = {"year": 1}
    for _ in range(levels - 1):
        document = wrap(document)
    return document


@pytest.mark.parametrize(
    "wrap",
    [lambda inner: {"$and": [inner]}, lambda inner: {"$or": [inner]}, lambda inner: {"$not": inner}],
    ids=["and", "or", "not"],
)
def test_depth_is_bounded(wrap: Callable[[object], object]) -> None:
    assert parse_filter(nested(MAX_DEPTH, wrap)) is not None
    assert "nested deeper than 10" in refusal(nested(MAX_DEPTH + 1, wrap))
    assert "nested deeper than 10" in refusal(nested(900, wrap))


def test_depth_of_negated_operators_is_bounded() -> None:
    operand: object = {"$gt": 1}
    for _ in range(MAX_DEPTH - 1):
        operand = {"$not": operand}
    assert parse_filter({"year": operand}) is not None
    assert "nested deeper than 10" in refusal({"year": {"$not": operand}})


def test_the_number_of_conditions_is_bounded_over_the_whole_tree() -> None:
    half = [{f"f{n}": n} for n in range(MAX_CONDITIONS // 2)]
    assert parse_filter({"$or": [{"$and": half}, {"$or": half}]}) is not None
    assert "more than 100 conditions" in refusal({"$or": [{"$and": half}, {"$or": half}, {"one": 1}]})


def test_the_number_of_values_is_bounded() -> None:
    assert parse_filter({"id": {"$in": list(range(MAX_VALUES))}}) is not None
    assert "more than 1,000 values" in refusal({"id": {"$nin": list(range(MAX_VALUES + 1))}})


KEYS = st.from_regex(r"[a-z]{1,5}", fullmatch=True)
SCALARS = st.one_of(
    st.text(max_size=5, alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$and", "$or", "$not", "$in", "$gt", "$exists", "$x", "title", "year"])
            | st.text(max_size=4),
            inner,
            max_size=3,
        )
    ),
    max_leaves=20,
)


@given(key=KEYS, value=SCALARS)
def test_every_plain_value_survives_unchanged(key: str, value: str | float | bool) -> None:
    if key in ("source", "title", "uri"):
        return
    parsed = parse_filter(json.loads(json.dumps({key: value})))
    assert parsed == Compare(f"metadata.{key}", "eq", value)
    assert isinstance(parsed, Compare)
    assert type(parsed.operand) is type(value), "1, 1.0 and true stay apart"


@given(ANYTHING)
def test_any_json_is_either_understood_or_refused(document: object) -> None:
    try:
        parsed = parse_filter(document)
    except InvalidRequest as error:
        assert error.message.startswith("filter")
        error.message.encode("ascii")
    else:
        assert parsed is None or isinstance(parsed, Compare | AllOf | AnyOf | Not)
