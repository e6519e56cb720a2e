"""The checkers themselves: each passes what a correct service may answer, and catches what it may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.history import GONE, History, NoAnswerError, RefusedError, leaked, lost, resurrected, went_back


class Script:
    """Writes a history the short way."""

    def __init__(self) -> None:
        self.history = History()

    def put(self, value: int, error: type[Exception] | None = None, readers: tuple[str, ...] = ("ann",)) -> Script:
        return self._do("upsert", value, error, readers=readers)

    def delete(self, error: type[Exception] | None = None) -> Script:
        return self._do("delete", GONE, error)

    def admit(self, *readers: str, error: type[Exception] | None = None) -> Script:
        return self._do("acl", None, error, readers=readers)

    def see(self, value: int | None, reader: str = "ann") -> Script:
        return self._do("read", value, None, reader=reader)

    def _do(self, op: str, value: Any, error: type[Exception] | None, **more: Any) -> Script:
        with self.history.doing(op, "doc", value, **more):
            if error is not None:
                raise error
        return self


@pytest.mark.parametrize(
    ("script", "final"),
    [
        (Script().put(1), 1),
        (Script().put(1).put(2), 2),
        (Script().put(1).delete(), GONE),
        (Script().put(1).put(2, RefusedError), 1),
        (Script().put(1).put(2, NoAnswerError), 1),
        (Script().put(1).put(2, NoAnswerError), 2),
        (Script().put(1).delete(NoAnswerError), GONE),
        (Script().put(1, NoAnswerError), GONE),
        (Script().put(1, NoAnswerError).put(2), 1),  # it may arrive late
    ],
)
def test_what_may_be_there_in_the_end(script: Script, final: int | None) -> None:
    assert lost(script.history, {"doc": final}) == []


@pytest.mark.parametrize(
    ("script", "final"),
    [
        (Script().put(1), GONE),
        (Script().put(1).put(2), 1),
        (Script().put(1).delete(), 1),
        (Script().put(1).put(2, RefusedError), 2),
        (Script().put(1).delete(NoAnswerError), 2),
        (Script(), 1),
    ],
)
def test_what_may_not_be_there_in_the_end(script: Script, final: int | None) -> None:
    assert lost(script.history, {"doc": final})


def test_a_deleted_document_stays_unseen_until_it_is_put_in_again() -> None:
    assert resurrected(Script().put(1).see(1).delete().see(GONE).put(2).see(2).history) == []
    assert resurrected(Script().put(1).delete(NoAnswerError).see(1).see(GONE).history) == []
    assert resurrected(Script().put(1).delete(RefusedError).see(1).history) == []
    assert resurrected(Script().put(1).delete().put(2, NoAnswerError).see(2).history) == []
    assert resurrected(Script().put(1).delete().see(1).history)
    assert resurrected(Script().put(1).delete().put(2, RefusedError).see(2).history)


def test_versions_never_go_back() -> None:
    assert went_back(Script().put(1).see(1).put(2).see(1).see(2).see(2).history) == []
    assert went_back(Script().put(1).put(2).see(2).see(1).history)


def test_an_acl_holds_from_its_answer_on() -> None:
    assert leaked(Script().put(1).see(1).admit("bob").see(1, "bob").history) == []
    assert leaked(Script().put(1).admit("bob", error=NoAnswerError).see(1, "ann").see(1, "bob").history) == []
    assert leaked(Script().put(1).admit("bob", error=RefusedError).see(1, "bob").history)
    assert leaked(Script().put(1).admit("bob").see(1, "ann").history)
    assert leaked(Script().put(1).see(1, "eve").history)
    assert leaked(Script().put(1).see(GONE, "eve").history) == []


def test_operations_at_the_same_time_may_take_effect_in_any_order() -> None:
    history = History()
    with (
        history.doing("upsert", "doc", 1, readers=["ann"]),
        history.doing("delete", "doc"),
        history.doing("read", "doc", 1, reader="ann"),
    ):
        pass
    for check in (resurrected, went_back, leaked):
        assert check(history) == []
    assert lost(history, {"doc": 1}) == lost(history, {}) == []


@pytest.mark.parametrize("check", [resurrected, went_back, leaked])
def test_nothing_is_wrong_with_nothing(check: Callable[[History], list[str]]) -> None:
    assert check(History()) == []


def test_a_history_is_kept_for_a_look_into_it(tmp_path: Path) -> None:
    script = Script().put(1).delete(NoAnswerError).see(GONE)
    script.history.save(tmp_path / "history.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [(line["op"], line["outcome"]) for line in lines] == [
        ("upsert", "ok"),
        ("delete", "unknown"),
        ("read", "ok"),
    ]
    assert (script.history.count("ok"), script.history.count("unknown")) == (1, 1)
