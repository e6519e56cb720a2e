"""`rag probe` and the fingerprints of `rag admin`, as an operator uses them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rag_service.cli import app
from rag_service.cli.serving import Serving, serving
from rag_service.embedding.hashing import HashingEmbedder
from tests.conftest import ADMIN_KEY, settings_for
from tests.flows.test_fingerprints import other_weights

Rag = Callable[..., Result]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(settings_for(tmp_path_factory.mktemp("data"), sweep_s=0.2), "127.0.0.1", 0) as started:
        yield started


@pytest.fixture(scope="module")
def rag(running: Serving) -> Rag:
    """`rag` with the admin key, for the only team there is; fails unless it exits as expected."""
    unset: dict[str, str | None] = dict.fromkeys(("RAG_API_KEY", "RAG_TEAM", "RAG_DATA_DIR"))

    def run(*arguments: str, exits: int = 0, **more: Any) -> Result:
        env = unset | {"RAG_URL": running.url, "RAG_ADMIN_KEY": ADMIN_KEY}
        result = CliRunner().invoke(app, arguments, env=env, **more)
        assert result.exit_code == exits, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        return result

    run("team", "create", "staff")
    run("document", "add", "-", "--external-id", "turnips", "--public", input="Turnips are grown in rows.")
    return run


def test_a_probe_is_added_run_listed_looked_at_and_removed(rag: Rag) -> None:
    assert "There is no probe" in rag("probe", "list").stdout
    added = rag("probe", "add", "found", "turnips in rows", "--expect", "turnips", "--every", "60")
    assert "rag probe results found" in added.stdout
    assert "ok: 1 hits, recall 1.00" in rag("probe", "run", "found").stdout
    assert "recall 1.00" not in rag("probe", "list").stdout
    assert "1.00" in rag("probe", "list", "--state", "ok").stdout
    assert "ok" in rag("probe", "results", "found").stdout
    assert "is paused" in rag("probe", "pause", "found").stdout
    assert "paused" in rag("probe", "list").stdout
    assert "is run again" in rag("probe", "resume", "found").stdout
    assert "is deleted" in rag("probe", "remove", "found").stdout
    assert "There is no probe 'found'" in rag("probe", "run", "found", exits=1).stderr


def test_a_probe_that_fails_ends_with_1_and_says_what_is_missing(rag: Rag) -> None:
    rag("probe", "add", "lost", "turnips in rows", "--expect", "turnips", "--expect", "swedes", "--min-recall", "0.6")
    failed = rag("probe", "run", "lost", exits=1)
    assert "swedes" in failed.stdout
    assert "The probe lost fails" in failed.stderr
    assert "Missing: swedes" in rag("probe", "results", "lost").stdout
    result = json.loads(rag("probe", "run", "lost", "--json", exits=1).stdout)
    assert (result["passed"], result["recall"]) == (False, 0.5)
    rag("probe", "remove", "lost")


def test_every_expectation_can_be_said(rag: Rag) -> None:
    narrow = ("--filter", '{"area": "payroll"}', "--top-k", "3", "--mode", "lexical", "--min-score", "0.1")
    said = json.loads(rag("probe", "add", "none", "turnips", "--nothing", *narrow, "--json").stdout)
    assert said["expect"]["nothing"] is True
    asked = said["question"]
    assert (asked["filter"], asked["top_k"], asked["mode"]) == ({"area": "payroll"}, 3, "lexical")
    private = ("--must-not", "salaries", "--as-user", "ada", "--as-group", "staff")
    said = json.loads(rag("probe", "add", "private", "salaries", *private, "--json").stdout)
    assert (said["question"]["as_user"], said["expect"]["must_not"]) == (
        {"user": "ada", "groups": ["staff"]},
        ["salaries"],
    )
    said = json.loads(rag("probe", "add", "fresh", "--max-age", "3600", "--collection", "default", "--json").stdout)
    assert (said["question"]["query"], said["expect"]["max_age_s"]) == (None, 3600)
    assert "needs documents, nothing" in rag("probe", "add", "empty", "turnips", exits=2).stderr
    for name in ("none", "private", "fresh"):
        assert "ok" in rag("probe", "run", name).stdout
        rag("probe", "remove", name)


def test_the_source_whose_news_is_watched_is_named(rag: Rag, tmp_path: Path) -> None:
    rag("source", "add", "files", "press", "--root", str(tmp_path))
    (source,) = json.loads(rag("source", "list", "--json").stdout)["data"]
    said = json.loads(rag("probe", "add", "n", "--max-age", "86400", "--source", "press", "--json").stdout)
    assert said["expect"]["source"] == source["id"]


def test_a_model_that_has_moved_is_told_and_accepted_by_its_name(rag: Rag, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hashing" in rag("admin", "fingerprints").stdout
    monkeypatch.setattr(HashingEmbedder, "_place", other_weights)
    assert "give other vectors" in rag("admin", "fingerprints", exits=1).stderr
    assert "No embedding model of this name" in rag("admin", "accept-fingerprint", "another", exits=1).stderr
    assert "Build its collections anew" in rag("admin", "accept-fingerprint", "hashing").stdout
    rag("admin", "fingerprints")
