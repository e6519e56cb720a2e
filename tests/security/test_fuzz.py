"""What schemathesis tries against the whole OpenAPI document finds nothing. `make fuzz` tries much more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rag_service.api import openapi
from tests.security.fuzz import fuzz

SHORT = ("--max-examples", "3", "--max-time", "75", "--seed", "1", "--continue-on-failure")


@pytest.mark.slow
def test_every_answer_is_what_the_document_says_and_none_is_a_server_error(tmp_path: Path) -> None:
    done = fuzz(tmp_path / "service", [*SHORT, "--phases", "examples,coverage,stateful"], timeout_s=280)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    tried = re.search(r"(\d+) generated", done.stdout)
    assert tried
    assert int(tried[1]) > 200
    assert "Stateful" in done.stdout


@pytest.mark.slow
def test_a_document_that_leaves_out_an_answer_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = openapi._complete

    def without_404(path: str, method: str, operation: dict[str, dict[str, object]]) -> None:
        complete(path, method, operation)
        operation["responses"].pop("404", None)

    monkeypatch.setattr(openapi, "_complete", without_404)
    only = ("--include-operation-id", "get_job", "--phases", "coverage")
    done = fuzz(tmp_path / "service", [*SHORT[:2], *SHORT[4:], *only], timeout_s=120)
    assert done.returncode == 1
    assert "[404] Not Found" in done.stdout
