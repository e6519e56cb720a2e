"""rag webhook and rag feedback against a running service."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rag_service.cli import app
from rag_service.cli.serving import serving
from rag_service.settings import Settings
from rag_service.webhooks.signing import verify
from tests.receiver import Receiver, receiving

ADMIN_KEY = "webhooks-admin-key-0123456789"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        admin_key=ADMIN_KEY,
        embedder="hashing",
        sweep_s=0.5,
        webhook_private_addresses=True,
    )
    with serving(settings, "127.0.0.1", 0) as running:
        for team in ("red", "blue"):
            rag(running.url, "team", "create", team)
        yield running.url


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def rag(url: str, *arguments: str, exits: int = 0, **more: str) -> Result:
    env: dict[str, str | None] = dict.fromkeys(("RAG_API_KEY", "RAG_TEAM", "RAG_DATA_DIR"))
    result = CliRunner().invoke(app, arguments, env=env | {"RAG_URL": url, "RAG_ADMIN_KEY": ADMIN_KEY} | more)
    assert result.exit_code == exits, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def red(url: str, *arguments: str, exits: int = 0) -> str:
    return rag(url, *arguments, "--team", "red", exits=exits).stdout


def said(url: str, *arguments: str) -> Any:
    return json.loads(red(url, *arguments, "--json"))


def put(url: str, tmp_path: Any, text: str) -> None:
    (tmp_path / "a.md").write_text(text)
    red(url, "document", "add", str(tmp_path / "a.md"), "--public")


def test_a_webhook_is_made_tried_told_and_told_again(url: str, receiver: Receiver, tmp_path: Any) -> None:
    events = ("--event", "document.ready", "--event", "document.failed")
    shown = red(url, "webhook", "add", receiver.url(), *events, "--description", "The pager")
    webhook, secret = shown.split()[1], shown.split()[-1]
    assert "shown this once" in shown
    assert "accepted with status 204" in red(url, "webhook", "test", webhook)
    put(url, tmp_path, "Turnips.")
    ready = receiver.wait_for(2)[1]
    assert verify(secret, ready.headers, ready.body, now=time.time()) == ready.id
    listed = red(url, "webhook", "list")
    assert webhook in listed
    assert "document.ready, document.failed" in listed
    assert "The pager" in listed
    assert secret not in listed
    assert "There is no webhook" in rag(url, "webhook", "list", "--team", "blue").stdout
    while not said(url, "webhook", "deliveries", webhook, "--state", "delivered")["data"]:
        time.sleep(0.05)
    assert "delivered 204" in red(url, "webhook", "deliveries", webhook)
    since = ("--since", "2026-01-01T00:00:00Z")
    assert "0 messages" in red(url, "webhook", "recover", webhook, *since)
    assert "1 messages" in red(url, "webhook", "recover", webhook, *since, "--delivered")
    assert receiver.wait_for(3)[2].id == ready.id
    second = said(url, "webhook", "rotate", webhook, "--overlap", "0")["secret"]
    red(url, "webhook", "test", webhook)
    last = receiver.messages[-1]
    verify(second, last.headers, last.body, now=time.time())
    assert "disabled (manual)" in red(url, "webhook", "disable", webhook)
    rag(url, "webhook", "recover", webhook, *since, "--team", "red", exits=1)
    assert "enabled" in red(url, "webhook", "enable", webhook)
    red(url, "webhook", "remove", webhook)
    rag(url, "webhook", "test", webhook, "--team", "red", exits=1)


def test_one_that_is_not_accepted_ends_with_the_reason(url: str, receiver: Receiver) -> None:
    receiver.answer = lambda _: 500
    webhook = said(url, "webhook", "add", receiver.url(), "--event", "probe.failed")["id"]
    result = rag(url, "webhook", "test", webhook, "--team", "red", exits=1)
    assert "refused with status 500" in result.stderr
    red(url, "webhook", "remove", webhook)


def test_one_of_all_teams_needs_no_team(url: str, receiver: Receiver) -> None:
    made = rag(url, "webhook", "add", receiver.url(), "--event", "probe.failed", "--all-teams", "--json")
    webhook = json.loads(made.stdout)["id"]
    assert webhook in rag(url, "webhook", "list", "--all-teams").stdout
    assert webhook not in red(url, "webhook", "list")
    rag(url, "webhook", "add", receiver.url(), "--event", "probe.failed", exits=2)  # which of the two teams?
    red(url, "webhook", "remove", webhook)


def test_feedback_is_listed_counted_and_exported(url: str, tmp_path: Any) -> None:
    from httpx import post

    headers = {"Authorization": f"Bearer {ADMIN_KEY}", "X-Rag-Team": "red"}
    assert "Nothing was said." in red(url, "feedback", "list")
    assert "Nothing was said." in red(url, "feedback", "summary")
    put(url, tmp_path, "Annual leave is thirty days.")
    answer = post(f"{url}/v1/retrieve", headers=headers, json={"query": "annual leave"}).json()
    hit = answer["results"][0]
    for body in (
        {"document_id": hit["document_id"], "rating": "dislike", "reasons": ["outdated"], "comment": "It is 28."},
        {"rating": "like", "signals": ["copied"]},
    ):
        given = post(f"{url}/v1/feedback", headers=headers, json={"query_id": answer["query_id"], **body})
        assert given.status_code == 201, given.text
    shown = red(url, "feedback", "list")
    assert "It is 28." in shown
    assert "outdated" in shown
    assert len(said(url, "feedback", "list", "--rating", "like")["data"]) == 1
    assert len(said(url, "feedback", "list", "--reason", "outdated", "--limit", "1")["data"]) == 1
    (tmp_path / "later").mkdir()
    red(url, "source", "add", "files", "later", "--root", str(tmp_path / "later"))
    for command in ("list", "summary"):
        assert len(said(url, "feedback", command, "--collection", "default")["data"]) > 0
        assert said(url, "feedback", command, "--source", "later")["data"] == []
        assert "There is: later." in rag(url, "feedback", command, "--source", "x", "--team", "red", exits=1).stderr
    shown = red(url, "feedback", "summary")
    assert "default" in shown
    assert "outdated=1" in shown
    assert "copied=1" in shown
    lines = red(url, "feedback", "export").splitlines()
    assert [json.loads(line)["rating"] for line in lines] == ["dislike", "like"]
    assert red(url, "feedback", "export", "--format", "csv", "--rating", "like").count("\n") == 2
    rag(url, "feedback", "export", "--format", "xml", "--team", "red", exits=2)
    rag("http://127.0.0.1:1", "feedback", "export", "--team", "red", exits=1)
