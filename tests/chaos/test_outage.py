"""While a store is out, requests are answered 503 with Retry-After; nothing that was accepted is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rag_service.ingest import backoff
from rag_service.ingest.backoff import Policy
from tests.chaos.outage import database_out, vectors_out
from tests.chaos.report import seed_of


@pytest.mark.parametrize("scenario", [vectors_out, database_out])
def test_an_outage_is_told_and_survived(scenario: Any, tmp_path: Path) -> None:
    report = scenario(tmp_path, seed_of(2), documents=30)
    print(report)  # noqa: T201 - the seed of a run that failed
    assert report.wrong == ()
    assert report.numbers["refused"]


def test_a_service_that_gives_up_at_the_first_failure_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "POLICIES", dict.fromkeys(backoff.POLICIES, Policy(tries=1)))
    assert vectors_out(tmp_path, 2, documents=30).wrong
