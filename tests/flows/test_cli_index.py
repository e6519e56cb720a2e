"""An operator with `rag index` alone: plan, build, watch, compare, switch, go back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from rag_service.cli import app
from rag_service.cli.serving import serving
from tests.churn import text_of
from tests.conftest import settings_for

ADMIN_KEY = "index-admin-key-0123456789"
HASHING = ("--embedder", "hashing", "--dimensions", "96", "--priority", "high")
DOCUMENTS = 6


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = settings_for(tmp_path_factory.mktemp("data"), admin_key=ADMIN_KEY, sweep_s=0.2)
    with serving(settings, "127.0.0.1", 0) as running:
        rag(running.url, "team", "create", "red")
        client = httpx.Client(
            base_url=running.url, headers={"Authorization": f"Bearer {ADMIN_KEY}", "X-Rag-Team": "red"}, timeout=30
        )
        texts = [{"text": text_of(n), "external_id": f"d{n}"} for n in range(DOCUMENTS)]
        client.post("/v1/documents:batch", json={"documents": texts}).raise_for_status()
        queries = [{"query": f"Number {n}", "expected": [{"external_id": f"d{n}"}]} for n in range(DOCUMENTS)]
        while client.get("/v1/documents", params={"status": "ready"}).json()["data"][DOCUMENTS - 1 :] == []:
            time.sleep(0.05)
        client.post("/v1/query-sets", json={"name": "numbers", "queries": queries}).raise_for_status()
        yield running.url
        client.close()


def rag(url: str, *arguments: str, exits: int = 0) -> Result:
    env: dict[str, str | None] = dict.fromkeys(("RAG_API_KEY", "RAG_TEAM", "RAG_DATA_DIR"))
    result = CliRunner().invoke(app, arguments, env=env | {"RAG_URL": url, "RAG_ADMIN_KEY": ADMIN_KEY})
    assert result.exit_code == exits, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def index(url: str, *arguments: str, exits: int = 0) -> Result:
    return rag(url, "index", *arguments, exits=exits)


def told(url: str, *arguments: str) -> Any:
    return json.loads(index(url, *arguments, "--json").stdout)


@pytest.fixture
def built(url: str) -> Iterator[str]:
    """A build that is ready; dropped in the end if it does not answer then."""
    made = str(told(url, "build", *HASHING, "--watch")["id"])
    yield made
    if told(url, "show", made)["state"] == "ready":
        index(url, "cancel", made)


def test_a_plan_is_shown_and_nothing_is_built(url: str) -> None:
    before = len(told(url, "list")["data"])
    shown = index(url, "plan", "--chunk-tokens", "60", "--context", "none").stdout
    assert "structure-1(max=60, bare)" in shown
    assert f"documents       {DOCUMENTS}\n" in shown
    assert "seconds" in shown
    assert len(told(url, "list")["data"]) == before


def test_a_build_is_watched_until_it_is_ready(url: str) -> None:
    begun = told(url, "build", *HASHING, "--note", "wider", "--max-concurrency", "2")
    assert (begun["state"], begun["note"], begun["max_concurrency"]) == ("building", "wider", 2)
    shown = index(url, "watch", begun["id"]).stdout
    assert "ready" in shown
    assert f"{DOCUMENTS}/{DOCUMENTS}" in shown
    listed = index(url, "list", "--state", "ready").stdout
    assert begun["id"] in listed
    assert "wider" in listed
    assert "96 dimensions" in index(url, "show", begun["id"]).stdout
    assert "retired" in index(url, "cancel", begun["id"]).stdout


def test_it_is_compared_promoted_and_taken_back(url: str, built: str) -> None:
    compared = index(url, "evaluate", built, "--query-set", "numbers").stdout
    assert all(word in compared for word in ("ndcg@10", "rank-biased overlap", "Question, worst first", "Number 1"))
    former = told(url, "list", "--state", "active")["data"][0]["id"]
    promoted = index(url, "promote", built, "--metric", "recall@10", "--min-delta=-0.5", "--query-set", "numbers")
    assert f"answers from {built}" in promoted.stdout
    assert "The gate is passed." in promoted.stdout
    assert "soaking" in index(url, "show", former).stdout
    assert f"answers from {former}" in index(url, "rollback").stdout


def test_what_does_not_pass_the_gate_is_refused_with_the_numbers(url: str, built: str) -> None:
    gate = ("--metric", "recall@10", "--min-delta", "0.9", "--query-set", "numbers")
    refused = index(url, "promote", built, *gate, exits=1)
    assert "The gate is not passed" in refused.stderr
    assert "at least +0.9000 is asked" in refused.stderr
    problem = json.loads(index(url, "promote", built, *gate, "--json", exits=1).stdout)
    assert problem["numbers"]["verdict"]["passed"] is False


def test_a_build_is_paused_hastened_and_resumed(url: str, built: str) -> None:
    assert "paused" in index(url, "pause", built).stdout
    assert "priority low, 3 at a time" in index(url, "set", built, "--priority", "low", "--max-concurrency", "3").stdout
    assert index(url, "resume", built).stdout.strip() == f"{built} is ready."


def test_following_what_is_paused_or_cancelled_says_what_to_do(url: str) -> None:
    begun = told(url, "build", "--embedder", "hashing", "--dimensions", "32", "--priority", "low")["id"]
    index(url, "pause", begun)
    if told(url, "show", begun)["state"] != "ready":  # it may have been faster
        assert f"rag index resume {begun}" in index(url, "watch", begun, exits=1).stderr
    index(url, "cancel", begun)
    assert "is retired" in index(url, "watch", begun, exits=1).stderr


def test_a_pipeline_that_cannot_work_is_refused(url: str) -> None:
    refused = index(url, "build", "--chunk-tokens", "9000", exits=2)
    assert "tokens" in refused.stderr
