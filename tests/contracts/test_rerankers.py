"""What every reranker promises: one finite score per passage, or a clear word that there is none."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rag_service.errors import RetryableError
from rag_service.reranking.base import NullReranker, Reranker
from rag_service.reranking.cross_encoder import CrossEncoderReranker
from rag_service.reranking.http import HttpReranker

QUERY = "how long is annual leave"
PASSAGES = ["lunch is at noon", "annual leave is thirty days long", "annual leave"]


@dataclass
class RerankApi:
    """A real server in the shape of Cohere's and Jina's: scores by shared words, best first."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], tuple[int, Any]] | None = None

    def respond(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.answer is not None:
            return self.answer(body)
        words = set(body["query"].split())
        shares = [len(words & set(document.split())) / len(words) for document in body["documents"]]
        results = [{"index": place, "relevance_score": share} for place, share in enumerate(shares)]
        return 200, {"results": sorted(results, key=lambda one: -one["relevance_score"])[: body["top_n"]]}


@pytest.fixture
def api() -> Iterator[RerankApi]:
    served = RerankApi()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append(body)
            served.keys.append(self.headers.get("Authorization"))
            status, answer = served.respond(body)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/v1/rerank"
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT with random weights that gives one score."""
    import torch
    import transformers

    bert: Any = transformers  # its classes are made when they are asked for
    folder = tmp_path_factory.mktemp("cross-encoder")
    words = sorted({word for text in (QUERY, *PASSAGES) for word in text.split()})
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    torch.manual_seed(1)
    config: Any = bert.BertConfig(
        vocab_size=5 + len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=1,
    )
    bert.BertForSequenceClassification(config).save_pretrained(folder)
    bert.BertTokenizerFast(vocab_file=str(vocabulary), model_max_length=64).save_pretrained(folder)
    return folder


@pytest.fixture(params=["none", "cross-encoder", "http"])
def reranker(request: pytest.FixtureRequest) -> Iterator[Reranker]:
    if request.param == "none":
        yield NullReranker()
    elif request.param == "http":
        made = HttpReranker(request.getfixturevalue("api").url, "any", None)
        yield made
        made.close()
    else:
        local = CrossEncoderReranker(str(request.getfixturevalue("cross_encoder")), timeout_s=60)
        yield local
        local.close()


def test_every_passage_has_one_finite_score_or_none_has(reranker: Reranker) -> None:
    scores = reranker.rerank(QUERY, PASSAGES)
    if isinstance(reranker, NullReranker):
        assert scores is None
    else:
        assert scores is not None
        assert len(scores) == len(PASSAGES)
        assert all(math.isfinite(score) for score in scores)


def test_scores_belong_to_their_passages_whatever_the_order(reranker: Reranker) -> None:
    forth, back = reranker.rerank(QUERY, PASSAGES), reranker.rerank(QUERY, PASSAGES[::-1])
    if forth is None or back is None:
        assert forth is back
    else:
        assert forth == pytest.approx(back[::-1], abs=1e-5)
        assert len(set(forth)) == len(PASSAGES)


def test_nothing_to_rerank_and_odd_texts_are_no_trouble(reranker: Reranker) -> None:
    assert reranker.rerank(QUERY, []) in ([], None)
    scores = reranker.rerank(QUERY, ["", " ", "\ud800 \x00", "word " * 2_000])
    assert scores is None or len(scores) == 4


def test_several_threads_may_ask_at_once(reranker: Reranker) -> None:
    expected, wrong = reranker.rerank(QUERY, PASSAGES), []

    def ask() -> None:
        for _ in range(5):
            got = reranker.rerank(QUERY, PASSAGES)
            if got != (None if expected is None else pytest.approx(expected, abs=1e-5)):
                wrong.append(got)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- over HTTP ----------------------------------------------------------------------------


def test_the_request_has_the_shape_that_cohere_and_jina_share(api: RerankApi) -> None:
    reranker = HttpReranker(api.url, "rerank-3", "s3cret")
    scores = reranker.rerank(QUERY, PASSAGES)
    assert api.asked == [{"model": "rerank-3", "query": QUERY, "documents": PASSAGES, "top_n": 3}]
    assert api.keys == ["Bearer s3cret"]
    assert scores == pytest.approx([0.2, 0.8, 0.4])
    reranker.close()


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}),
        (401, {}),
        (429, {}),
        (200, b"not json"),
        (200, {}),
        (200, []),
        (200, {"results": [{"index": 0, "relevance_score": 1}]}),
        (200, {"results": [{"index": n, "relevance_score": 1} for n in (0, 1, 7)]}),
        (200, {"results": [{"index": n, "relevance_score": float("nan")} for n in range(3)]}),
        (200, {"results": [{"index": n, "relevance_score": "high"} for n in range(3)]}),
    ],
    ids=lambda answer: str(answer)[:60],
)
def test_an_answer_that_cannot_be_used_is_said_so_without_text_or_key(api: RerankApi, answer: tuple[int, Any]) -> None:
    api.answer = lambda body: answer
    reranker = HttpReranker(api.url, "any", "s3cret")
    with pytest.raises(RetryableError) as refused:
        reranker.rerank(QUERY, PASSAGES)
    assert not any(secret in refused.value.message for secret in ("s3cret", QUERY, *PASSAGES))
    reranker.close()


def test_a_server_that_is_silent_or_gone_is_given_up(api: RerankApi) -> None:
    given_up = threading.Event()

    def stay_silent(body: dict[str, Any]) -> tuple[int, Any]:
        given_up.wait(60)
        return 200, {}

    api.answer = stay_silent
    slow, gone = (
        HttpReranker(api.url, "any", None, timeout_s=0.1),
        HttpReranker("http://127.0.0.1:9/rerank", "any", None),
    )
    for reranker in (slow, gone):
        began = time.monotonic()
        with pytest.raises(RetryableError, match="does not answer"):
            reranker.rerank(QUERY, PASSAGES)
        assert time.monotonic() - began < 20
        reranker.close()
    given_up.set()


# --- by a model ---------------------------------------------------------------------------


def test_the_scores_are_those_of_sentence_transformers(cross_encoder: Path) -> None:
    from sentence_transformers import CrossEncoder

    reranker = CrossEncoderReranker(str(cross_encoder), timeout_s=60)
    expected = CrossEncoder(str(cross_encoder), device="cpu").predict([(QUERY, passage) for passage in PASSAGES])
    assert reranker.rerank(QUERY, PASSAGES) == pytest.approx(list(expected), abs=1e-5)
    reranker.close()


def test_a_model_that_is_not_there_or_no_cross_encoder_is_said_so(tmp_path: Path, cross_encoder: Path) -> None:
    reranker = CrossEncoderReranker(str(tmp_path / "nothing"), timeout_s=60)
    with pytest.raises(RetryableError, match="RAG_RERANKER_MODEL"):
        reranker.rerank(QUERY, PASSAGES)
    reranker.close()


def test_a_model_that_takes_too_long_is_not_waited_for_nor_asked_again_meanwhile(cross_encoder: Path) -> None:
    class Slow(CrossEncoderReranker):
        computed = 0

        def _scores(self, query: str, passages: list[str]) -> list[float]:
            Slow.computed += 1
            time.sleep(0.5)
            return super()._scores(query, passages)

    reranker = Slow(str(cross_encoder), timeout_s=0.05)
    for message in ("longer than", "busy", "busy"):
        with pytest.raises(RetryableError, match=message):
            reranker.rerank(QUERY, PASSAGES)
    reranker.close()
    assert Slow.computed == 1
