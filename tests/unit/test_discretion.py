"""A connector that is given secrets tells none of them, whatever goes wrong in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import ClassVar
from urllib.parse import quote

import pytest
from pydantic import BaseModel

from connectors.base import Acl, AclChange, Change, Check, Checkpoint, Cursor, Failure, Item, Upsert
from connectors.errors import FatalSourceError, RetryableSourceError, SkippableItemError
from rag_service.ingest.discretion import CredentialInMessageError, Discreet, discreet, secrets_in

SECRET = 'tok/en & "more"'
WRITTEN = [SECRET, quote(SECRET), quote(SECRET, safe=""), 'tok/en & \\"more\\"']


class Indiscreet:
    """Does what `act` does, wherever it is asked."""

    Config: ClassVar[type[BaseModel]] = BaseModel
    incremental: ClassVar[bool] = False
    reports_deletes: ClassVar[bool] = False
    reports_acl: ClassVar[bool] = False

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def check(self) -> Check:
        self.act()
        return Check(1)

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:
        yield Checkpoint({"seen": 1})
        self.act()


def wrapped(act: Callable[[], object]) -> Discreet:
    made = discreet(lambda: Indiscreet(act), {"token": SECRET})
    assert isinstance(made, Discreet)
    return made


def raising(error: Exception) -> Callable[[], object]:
    def act() -> object:
        raise error

    return act


def whole_story(error: BaseException) -> str:
    """All that a log would show of an error."""
    return logging.Formatter().formatException((type(error), error, error.__traceback__))


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("kind", [FatalSourceError, RetryableSourceError, SkippableItemError])
def test_an_error_keeps_its_kind_and_code_and_loses_the_secret(kind: type[FatalSourceError], written: str) -> None:
    for call in ("check", "changes"):
        connector = wrapped(raising(kind(f"GET /?t={written} failed", code="refused")))
        with pytest.raises(kind) as caught:
            list(connector.changes(None)) if call == "changes" else connector.check()
        assert str(caught.value) == "GET /?t=*** failed"
        assert caught.value.code == "refused"
        assert written not in whole_story(caught.value)


def test_a_defect_is_named_without_the_secret_of_its_cause() -> None:
    def act() -> object:
        try:
            raise ValueError(f"bad token {SECRET}")
        except ValueError as error:
            raise RuntimeError("while signing") from error

    with pytest.raises(CredentialInMessageError, match="RuntimeError: while signing") as caught:
        wrapped(act).check()
    assert SECRET not in whole_story(caught.value)


def test_a_note_counts_as_part_of_the_message() -> None:
    error = RuntimeError("no")
    error.add_note(f"token was {SECRET}")
    with pytest.raises(CredentialInMessageError):
        wrapped(raising(error)).check()


def test_errors_that_tell_nothing_pass_as_they_are() -> None:
    errors = [FatalSourceError("The folder is gone."), RuntimeError("a defect")]
    for error in errors:
        with pytest.raises(type(error)) as caught:
            wrapped(raising(error)).check()
        assert caught.value is error


def test_failures_of_items_and_the_reading_of_their_content_tell_nothing() -> None:
    item = Item("a", "A", None, "1", "uri", raising(SkippableItemError(f"401 with {SECRET}")))  # type: ignore[arg-type] # it only raises

    class Reporting(Indiscreet):
        def changes(self, cursor: Cursor | None) -> Iterator[Change]:
            yield Failure("b", "refused", f"401 with {SECRET}")
            yield AclChange("c", Acl(public=True))
            yield Upsert(item)

    connector = discreet(lambda: Reporting(lambda: None), {"token": SECRET})
    failure, acl_change, upsert = list(connector.changes(None))
    assert failure == Failure("b", "refused", "401 with ***")
    assert acl_change == AclChange("c", Acl(public=True))
    assert isinstance(upsert, Upsert)
    with pytest.raises(SkippableItemError, match=r"401 with \*\*\*"):
        upsert.item.read()


def test_a_configuration_that_is_refused_tells_nothing() -> None:
    with pytest.raises(FatalSourceError, match=r"no \*\*\* here"):
        discreet(_refuse, {"token": SECRET})


def _refuse() -> Indiscreet:
    raise FatalSourceError(f"no {SECRET} here")


def test_a_connector_without_secrets_is_left_alone() -> None:
    connector = Indiscreet(lambda: None)
    assert discreet(lambda: connector, {}) is connector
    assert discreet(lambda: connector, {"token": None}) is connector


def test_every_text_of_the_secrets_counts_but_the_very_short() -> None:
    found = secrets_in({"a": "first", "b": ["second", {"c": "third"}], "d": 12345, "e": "abc", "f": None})
    assert found == {"first", "second", "third"}


def test_without_discretion_the_secret_would_be_told() -> None:
    """The broken variant: the bare connector."""
    with pytest.raises(FatalSourceError) as caught:
        Indiscreet(raising(FatalSourceError(f"401 with {SECRET}"))).check()
    assert SECRET in str(caught.value)
