"""What a document's fields become in a store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_service.access import AccessTokens
from rag_service.errors import InvalidRequest
from rag_service.types import Scalar, SparseVector
from rag_service.vectors.base import VectorPoint
from rag_service.vectors.payload import changes, moment, number, payloads_of, presence, range_keys, term

MICROSECONDS_A_DAY = 86_400_000_000


def test_fields_become_terms_numbers_and_dates() -> None:
    payload = changes(None, {"year": [1999, 2.5], "metadata": {"day": "1970-01-02", "ok": True, "no": None, "few": []}})
    assert payload == {
        "terms": [
            '["metadata.day", "1970-01-02"]',
            '["metadata.day"]',
            '["metadata.ok", true]',
            '["metadata.ok"]',
            '["year", 1999]',
            '["year", 2.5]',
            '["year"]',
        ],
        "numbers": {"year": [1999.0, 2.5]},
        "dates": {"metadata.day": [MICROSECONDS_A_DAY]},
    }
    assert range_keys(payload) == {'numbers."year"', 'dates."metadata.day"'}


def test_a_change_of_access_leaves_the_fields_alone_and_the_other_way_round() -> None:
    assert changes(AccessTokens(("a",), ("b",)), None) == {"allow": ["a"], "deny": ["b"]}
    assert changes(None, {}).keys() == {"terms", "numbers", "dates"}
    assert changes(None, None) == {}


ACCESS, FIELDS = AccessTokens(("a",), ()), {"year": 1999}
POINT = VectorPoint(
    chunk_id="c",
    team="t",
    document_id="d",
    version=1,
    text_hash="h",
    dense=np.ones(2, dtype=np.float32),
    lexical=SparseVector((), ()),
    access=ACCESS,
    fields=FIELDS,
    revision=1,
)
OTHERS: dict[str, Any] = {
    "access": AccessTokens(("b",), ("a",)),
    "fields": {"year": 2000},
    "revision": 2,
    "document_id": "e",
    "version": 2,
    "text_hash": "i",
    "team": "u",
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_point_is_kept_with_what_is_its_own_whatever_it_shares_with_its_neighbours(name: str) -> None:
    other = replace(POINT, **{name: OTHERS[name]})
    (alone,), (of_other,) = payloads_of([POINT]), payloads_of([other])
    assert of_other != alone
    assert list(payloads_of([POINT, other, other, POINT])) == [alone, of_other, of_other, alone]


def test_a_list_of_objects_is_the_values_of_each() -> None:
    assert changes(None, {"a": [{"b": 1}, {"b": [2]}]})["numbers"] == {"a.b": [1.0, 2.0]}


def test_what_is_no_value_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match=r"'a\.b' holds a bytes"):
        changes(None, {"a": {"b": b"raw"}})


def test_not_a_number_is_no_value() -> None:
    assert changes(None, {"a": float("nan")})["terms"] == []


SCALARS = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=200))


@given(SCALARS, SCALARS)
def test_terms_are_equal_exactly_when_values_are(one: Scalar, other: Scalar) -> None:
    same = one == other and isinstance(one, bool) == isinstance(other, bool)
    assert (term("f", one) == term("f", other)) == same


@given(st.text(), st.text(), SCALARS)
def test_terms_of_different_fields_never_meet(one: str, other: str, value: Scalar) -> None:
    assert (term(one, value) == term(other, value)) == (one == other)
    assert presence(one) != term(other, value)


@given(st.text(max_size=5000))
def test_a_term_stays_short_and_plain(text: str) -> None:
    assert len(term("field", text)) <= 100
    assert term("field", text).isascii()


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("1970-01-02", 1),
        ("1970-01-02T12:00:00Z", 1.5),
        ("1970-01-02t12:00:00z", 1.5),
        ("1970-01-02 12:00:00", 1.5),
        ("1970-01-02T12:00:00+12:00", 1),
        ("1970-01-01T00:00:00.000001Z", 1 / MICROSECONDS_A_DAY),
        ("1969-12-31T00:00:00.0Z", -1),
        ("1970-01-01T00:00:00.1234567890Z", 123456 / MICROSECONDS_A_DAY),
    ],
)
def test_dates_are_microseconds_since_1970(text: str, days: float) -> None:
    assert moment(text) == round(days * MICROSECONDS_A_DAY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "19700102",
        "1970-W01-1",
        "1970-01",
        "1970-02-30",
        "1970-01-02T25:00:00Z",
        "1970-01-02T12:00",
        "1970-01-02T12:00:00+0200",
        "1970-01-02\n",
        "१९७०-०१-०२",
    ],
)
def test_other_text_is_no_date(text: str) -> None:
    assert moment(text) is None


@given(st.datetimes(timezones=st.just(None)), st.datetimes(timezones=st.just(None)))
def test_dates_keep_their_order(one: object, other: object) -> None:
    first, second = moment(str(one).replace(" ", "T")), moment(str(other).replace(" ", "T"))
    assert first is not None
    assert second is not None
    assert not (first < second and str(one) > str(other))


def test_numbers_beyond_a_float_are_the_largest_float() -> None:
    assert number(10**400) == number(float("inf")) == -number(-(10**400))
