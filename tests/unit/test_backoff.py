"""How long a failed job waits, and when it gives up, follows from the class of its error."""

from __future__ import annotations

import pytest

from connectors import errors as source_errors
from rag_service import errors
from rag_service.errors import ErrorClass
from rag_service.ingest.backoff import POLICIES, wait_s


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def waits(error_class: ErrorClass, retry_after: float = 0.0) -> list[float]:
    """Every wait of a job that only ever fails in this class, without the jitter."""
    found: list[float] = []
    while (wait := wait_s(error_class, len(found) + 1, retry_after, lambda low, high: 1.0)) is not None:
        found.append(wait)
    return found


def test_every_class_has_a_policy() -> None:
    assert POLICIES.keys() == set(ErrorClass)


@pytest.mark.parametrize("error_class", ErrorClass)
def test_a_job_is_tried_as_often_as_its_class_says(error_class: ErrorClass) -> None:
    assert len(waits(error_class)) == POLICIES[error_class].tries - 1


def test_an_outage_is_waited_for_longer_and_longer_for_two_hours() -> None:
    found = waits(ErrorClass.TRANSIENT)
    assert found[:4] == [2, 4, 8, 16]
    assert found == sorted(found)
    assert max(found) == 600
    assert 3_600 <= sum(found) <= 3 * 3_600


def test_what_cannot_succeed_is_tried_once_and_poison_three_times() -> None:
    assert waits(ErrorClass.PERMANENT) == []
    assert len(waits(ErrorClass.POISON)) == 2
    assert len(waits(ErrorClass.AUTH)) == 1


@pytest.mark.parametrize("error_class", [ErrorClass.TRANSIENT, ErrorClass.QUOTA])
def test_nobody_comes_back_before_he_was_told_to(error_class: ErrorClass) -> None:
    assert min(wait_s(error_class, 1, 900.0) or 0 for _ in range(200)) >= 900
    assert max(wait_s(error_class, 1, 900.0) or 0 for _ in range(200)) <= 900 * 1.25


def test_jobs_that_failed_together_come_back_apart() -> None:
    drawn = sorted(wait_s(ErrorClass.TRANSIENT, 5) or 0 for _ in range(400))
    assert 16 <= drawn[0] < 20
    assert 44 < drawn[-1] <= 48
    assert wait_s(ErrorClass.TRANSIENT, 5, draw=middle) == 32


def test_errors_say_their_class_themselves() -> None:
    assert errors.RetryableError().error_class == ErrorClass.TRANSIENT
    assert errors.QuotaExceeded(retry_after=7).error_class == ErrorClass.QUOTA
    assert errors.CredentialsRefused().error_class == ErrorClass.AUTH
    assert errors.PoisonousDocument().error_class == ErrorClass.POISON
    assert errors.UnsupportedDocument().error_class == ErrorClass.PERMANENT
    assert errors.NotFound().error_class == ErrorClass.PERMANENT


def test_every_error_of_a_source_has_a_class_that_jobs_know() -> None:
    waiting: list[type[source_errors.SourceError]] = [source_errors.SourceError]
    classes = {}
    while waiting:
        kind = waiting.pop()
        classes[kind.__name__] = ErrorClass(kind.error_class)
        waiting.extend(kind.__subclasses__())
    assert classes["ThrottledSourceError"] == ErrorClass.QUOTA
    assert classes["UnauthorizedSourceError"] == ErrorClass.AUTH
    assert classes["RetryableSourceError"] == ErrorClass.TRANSIENT
    assert classes["FatalSourceError"] == ErrorClass.PERMANENT
    assert source_errors.ThrottledSourceError(retry_after=12).retry_after == 12
