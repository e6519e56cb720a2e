"""What people said of answers becomes questions with known answers, and no more than they said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_service.evaluation.judgements import from_judgements, only_of
from rag_service.types import LabelledQuery, Person


@dataclass(frozen=True)
class Said:
    query: str | None = "leave?"
    document_id: str = "doc_a"
    rating: str | None = None
    signals: Sequence[str] = ()
    expected_document_id: str | None = None
    as_user: Mapping[str, Any] | None = None
    key_id: str = ""


KEYS: dict[str, Person | None] = {"": None, "key_ada": Person("ada"), "key_app": Person()}


def made(*said: Said, **options: Any) -> list[LabelledQuery]:
    return from_judgements(said, KEYS, **options)


def grades(*said: Said, **options: Any) -> dict[str | None, int]:
    queries = made(*said, **options)
    return {one.document_id: one.grade for query in queries for one in query.expected}


LIKE, DISLIKE = Said(rating="like"), Said(rating="dislike")
USED = Said(signals=["retried", "copied"])


def test_a_liked_document_answers_and_one_that_was_missed_is_the_answer() -> None:
    assert grades(LIKE, Said(rating="dislike", document_id="doc_b", expected_document_id="doc_c")) == {
        "doc_a": 2,
        "doc_c": 3,
    }


def test_a_document_as_often_disliked_as_liked_answers_nothing() -> None:
    assert grades(LIKE, DISLIKE) == {}
    assert grades(LIKE, LIKE, DISLIKE) == {"doc_a": 2}
    assert grades(LIKE, LIKE, DISLIKE, min_likes=2) == {}


def test_what_was_copied_or_clicked_counts_only_where_that_is_asked() -> None:
    assert grades(USED) == {}
    assert grades(USED, signals=True) == {"doc_a": 1}
    assert grades(USED, DISLIKE, signals=True) == {}
    assert grades(Said(signals=["retried"]), signals=True) == {}
    assert grades(USED, LIKE, signals=True) == {"doc_a": 2}


def test_what_is_said_of_an_answer_as_a_whole_names_no_document() -> None:
    assert made(Said(document_id="", rating="like", signals=["copied"]), signals=True) == []
    assert grades(Said(document_id="", expected_document_id="doc_c")) == {"doc_c": 3}


def test_questions_whose_text_was_not_kept_are_left_out() -> None:
    assert made(Said(query=None, rating="like"), Said(query="  ", rating="like")) == []


def test_the_same_question_of_two_people_is_two() -> None:
    for_ada = Said(rating="like", as_user={"user": "ada", "groups": ["staff"]})
    queries = made(LIKE, for_ada, for_ada, Said(query="lunch?", rating="like"))
    assert [(query.query, query.as_user) for query in queries] == [
        ("leave?", None),
        ("leave?", Person("ada", ("staff",))),
        ("lunch?", None),
    ]


def test_a_key_asks_with_its_own_rights_and_an_unknown_one_with_none() -> None:
    by = [Said(rating="like", key_id=key) for key in ("key_ada", "key_app", "key_gone")]
    people = [query.as_user for query in made(*by)]
    assert people == [Person("ada"), Person()]


def test_documents_that_are_gone_are_expected_no_more() -> None:
    queries = made(LIKE, Said(rating="like", document_id="doc_b"), Said(query="lunch?", rating="like"))
    kept = only_of(queries, {"doc_b"})
    assert [(query.query, [one.document_id for one in query.expected]) for query in kept] == [("leave?", ["doc_b"])]
