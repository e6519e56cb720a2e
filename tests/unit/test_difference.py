"""What appeared, vanished and moved between two answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rag_service.retrieval.difference import TOLERANCE, Moved, Place, best_of_documents, difference

answers = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=6).map(
    lambda keys: {key: Place(rank, 1.0 / rank, f"doc_{key}") for rank, key in enumerate(keys, start=1)}
)


def test_each_change_is_told_once_with_both_places() -> None:
    before = {"a": Place(1, 0.9, "x"), "b": Place(2, 0.8, "y"), "c": Place(3, 0.7, "z")}
    after = {"b": Place(1, 0.8, "y"), "d": Place(2, 0.75, "w"), "c": Place(3, 0.7 + TOLERANCE / 2, "z")}
    changed = difference(before, after)
    assert changed.appeared == (("d", after["d"]),)
    assert changed.vanished == (("a", before["a"]),)
    assert changed.moved == (Moved("b", before["b"], after["b"]),)
    assert changed.unchanged == 1


def test_another_score_at_the_same_rank_is_a_move() -> None:
    changed = difference({"a": Place(1, 0.9, "x")}, {"a": Place(1, 0.8, "x")})
    assert len(changed.moved) == 1


@given(answers, answers)
def test_the_difference_is_complete_and_turns_round(before: dict[str, Place], after: dict[str, Place]) -> None:
    there, back = difference(before, after), difference(after, before)
    assert len(after) == len(there.appeared) + len(there.moved) + there.unchanged
    assert len(before) == len(there.vanished) + len(there.moved) + there.unchanged
    assert (there.appeared, there.vanished) == (back.vanished, back.appeared)
    assert {one.id for one in there.moved} == {one.id for one in back.moved}


@given(answers)
def test_an_answer_does_not_differ_from_itself(answer: dict[str, Place]) -> None:
    same = difference(answer, answer)
    assert (same.appeared, same.vanished, same.moved, same.unchanged) == ((), (), (), len(answer))


def test_documents_stand_at_their_best_passage_and_are_ranked_among_themselves() -> None:
    places = [Place(3, 0.5, "y"), Place(1, 0.9, "x"), Place(2, 0.8, "x"), Place(4, 0.4, "z")]
    assert best_of_documents(places) == {
        "x": Place(1, 0.9, "x"),
        "y": Place(2, 0.5, "y"),
        "z": Place(3, 0.4, "z"),
    }
