"""The benchmark of a re-index finds what it is to find: its ledger and its recall, tried on answers that are wrong."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks import second_model
from benchmarks.ledger import PUBLIC, Faults, Ledger, is_mixed
from benchmarks.recall import Exact
from rag_service.embedding.hashing import HashingEmbedder


def hit(document: str, version: int = 1, index: str = "idx_1") -> dict[str, Any]:
    return {
        "external_id": document,
        "document_id": document,
        "provenance": {"index_version": index, "version": version},
    }


def written(ledger: Ledger, name: str, reader: str | None) -> None:
    ledger.acknowledged(name, ledger.sent(name, reader))


def now(ledger: Ledger, name: str, group: str) -> bool:
    at = time.monotonic()
    return ledger.may_show(name, group, at, at)


def test_a_reader_may_be_shown_what_is_theirs_or_everybodys() -> None:
    ledger = Ledger()
    written(ledger, "a", "g1")
    written(ledger, "b", PUBLIC)
    assert [now(ledger, "a", group) for group in ("g1", "g2")] == [True, False]
    assert now(ledger, "b", "g2")
    assert not now(ledger, "never written", "g1")


def test_a_change_may_hold_from_when_it_was_sent_and_must_from_when_it_was_acknowledged() -> None:
    ledger = Ledger()
    written(ledger, "a", "g1")
    began = time.monotonic()
    state = ledger.sent("a", "g2")
    assert now(ledger, "a", "g1")
    assert now(ledger, "a", "g2")
    ledger.acknowledged("a", state)
    time.sleep(0.001)
    assert [now(ledger, "a", group) for group in ("g1", "g2")] == [False, True]
    assert ledger.may_show("a", "g1", began, time.monotonic()), "asked before it was acknowledged"


def test_a_change_whose_answer_was_lost_may_or_may_not_hold() -> None:
    ledger = Ledger()
    written(ledger, "a", "g1")
    ledger.sent("a", None)
    assert now(ledger, "a", "g1")
    written(ledger, "a", "g2")
    time.sleep(0.001)
    assert [now(ledger, "a", group) for group in ("g1", "g2")] == [False, True]


def test_a_deleted_document_is_shown_to_nobody() -> None:
    ledger = Ledger()
    written(ledger, "a", PUBLIC)
    written(ledger, "a", None)
    time.sleep(0.001)
    assert not now(ledger, "a", "g1")


def test_wrong_answers_are_counted_by_what_is_wrong_with_them() -> None:
    ledger, faults = Ledger(), Faults()
    written(ledger, "mine", "g1")
    written(ledger, "theirs", "g2")
    at = (time.monotonic(), time.monotonic())
    faults.judge([hit("mine")], ledger, "g1", at)
    assert faults.counted() == {"answers": 1, "errors": 0, "while_down": 0, "empty": 0, "mixed": 0, "forbidden": 0}
    faults.judge([], ledger, "g1", at)
    faults.judge([hit("mine"), hit("mine", index="idx_2")], ledger, "g1", at)
    faults.judge([hit("theirs")], ledger, "g1", at)
    assert faults.counted() == {"answers": 4, "errors": 0, "while_down": 0, "empty": 1, "mixed": 1, "forbidden": 1}


@pytest.mark.parametrize(
    ("results", "mixed"),
    [
        ([], False),
        ([hit("a"), hit("a"), hit("b", version=2)], False),
        ([hit("a"), hit("a", version=2)], True),
        ([hit("a"), hit("b", index="idx_2")], True),
    ],
)
def test_an_answer_is_of_one_index_version_and_one_version_of_each_document(
    results: list[dict[str, Any]], mixed: bool
) -> None:
    assert is_mixed(results) is mixed


def test_recall_is_the_share_of_the_nearest_that_was_found() -> None:
    passages = [(f"d{place}", f"word{place} word{place + 1} word{place + 2}") for place in range(40)]
    exact = Exact(passages, lambda texts: HashingEmbedder(256).embed(texts, "document"))
    near = exact._vectors @ HashingEmbedder(256).embed(["word7 word8"], "query")[0]
    best = [passages[place] for place in np.argsort(-near)[:10]]
    assert exact.share("word7 word8", best) == 1.0
    assert exact.share("word7 word8", best[:2]) == 0.2
    assert exact.share("word7 word8", [("d7", "another cut of it")]) == 0.0
    asked: list[dict[str, Any]] = []

    def nothing(body: dict[str, Any]) -> dict[str, Any]:
        asked.append(body)
        return {"results": []}

    assert exact.recall(nothing) == 0.0
    assert {body["mode"] for body in asked} == {"dense"}


@pytest.fixture
def api() -> Iterator[str]:
    server = second_model.serve(second_model.hashing(), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_second_model_speaks_as_an_embeddings_api_does(api: str) -> None:
    from rag_service.embedding.http import HttpEmbedder

    embedder = HttpEmbedder(api, "second", None, second_model.DIMENSIONS, 512)
    made = embedder.embed(["a b", "c"], "document")
    embedder.close()
    assert np.allclose(made, second_model.hashing()(["a b", "c"]))
    with httpx.Client() as client:
        assert json.loads(client.get(api).text)["status"] == "ready"
