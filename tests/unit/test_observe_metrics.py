"""Numbers of one process: what moves them, and that their labels stay few."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from rag_service.embedding.batching import Batcher
from rag_service.errors import ConfigError, RetryableError
from rag_service.observe import metrics, state
from rag_service.observe.metrics import Few
from rag_service.observe.state import Cached, State, exposition
from rag_service.queue import Sender, depths, make_broker


def samples(read: object = None) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = exposition(read).decode()  # type: ignore[arg-type] # a test's callable
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(name: str, read: object = None, **labels: str) -> float:
    return samples(read).get((name, frozenset(labels.items())), 0.0)


def test_a_request_is_counted_by_method_template_and_status_and_timed() -> None:
    labels = {"method": "GET", "route": "/v1/things/{id}"}
    before = value("rag_http_requests_total", **labels, status="200")
    metrics.request_began()
    under_way = value("rag_http_requests_in_progress")
    metrics.request_ended("GET", "/v1/things/{id}", 200, 0.02)
    assert value("rag_http_requests_total", **labels, status="200") == before + 1
    assert value("rag_http_requests_in_progress") == under_way - 1
    assert value("rag_http_request_seconds_bucket", **labels, le="0.025") >= 1
    assert value("rag_http_request_seconds_bucket", **labels, le="0.01") == 0


def test_an_answer_is_timed_by_stage_and_counted_when_empty_or_degraded() -> None:
    empty = value("rag_retrieval_empty_total")
    degraded = value("rag_retrieval_degraded_total", part="dense leg unavailable")
    metrics.answered("hybrid", {"embed": 7.0, "search": 1.0}, 9.0, 0, ["dense leg unavailable: it does not answer"])
    metrics.answered("hybrid", {"embed": 7.0}, 8.0, 2, [])
    assert value("rag_retrieval_empty_total") == empty + 1
    assert value("rag_retrieval_degraded_total", part="dense leg unavailable") == degraded + 1
    assert value("rag_retrieval_stage_seconds_count", stage="embed") >= 2
    assert value("rag_retrieval_seconds_sum", mode="hybrid") >= 0.017


def test_a_run_of_a_job_is_counted_by_outcome_and_its_failure_by_code() -> None:
    metrics.job_ran("index", "failed", 1.5, "encrypted")
    metrics.document_indexed({"parse": 1_400.0, "embed": 90.0})
    assert value("rag_job_runs_total", kind="index", outcome="failed") >= 1
    assert value("rag_job_errors_total", kind="index", code="encrypted") >= 1
    assert value("rag_ingest_stage_seconds_sum", stage="parse") >= 1.4


def test_a_run_of_a_probe_is_counted_and_each_check_that_it_did_not_pass() -> None:
    before = value("rag_probe_runs_total", outcome="failing"), value("rag_probe_runs_total", outcome="ok")
    team = value("rag_probe_failures_total", check="team")
    metrics.probe_ran(["team", "recall"])
    metrics.probe_ran([])
    assert value("rag_probe_runs_total", outcome="failing") == before[0] + 1
    assert value("rag_probe_runs_total", outcome="ok") == before[1] + 1
    assert value("rag_probe_failures_total", check="team") == team + 1


def test_the_build_and_the_process_are_described() -> None:
    named = {name for name, _ in samples()}
    assert {"rag_build_info", "process_resident_memory_bytes", "process_open_fds"} <= named
    assert not [name for name in named if name.endswith("_created")]


def test_only_so_many_values_of_a_label_are_told_apart() -> None:
    few = Few(3)
    assert [few(value) for value in "abcdabe"] == ["a", "b", "c", "other", "a", "b", "other"]


@pytest.fixture
def _nothing_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood uses up what other tests of this process want to see told apart."""
    for name, most in (("_codes", 64), ("_routes", 200), ("_parts", 8)):
        monkeypatch.setattr(metrics, name, Few(most))


@pytest.mark.usefixtures("_nothing_seen")
def test_floods_of_routes_codes_methods_and_parts_leave_the_series_few() -> None:
    before = len(samples())
    for number in range(2_000):
        metrics.request_began()
        metrics.request_ended(f"M{number}", f"/v1/{number}", 404, 0.001)
        metrics.job_ran("sync", "failed", 0.1, f"code-{number}")
        metrics.parser_died(f"reason-{number}")
        metrics.answered("hybrid", {"embed": 1.0}, 1.0, 1, [f"part {number}: why"])
    assert len(samples()) - before < 6_000
    assert value("rag_job_errors_total", kind="sync", code="other") > 1_900
    assert value("rag_http_requests_total", method="other", route="other", status="404") > 1_700


STATE = State(
    jobs={("index", "queued"): 4, ("sync", "failed"): 1},
    oldest_s={"index": 12.5},
    failed={"unauthorized": 1},
    documents={"ready": 7},
    messages={"rag": 3},
    probes={"failing": 2, "ok": 5},
    alarms={"scores": 1},
)


def test_shared_state_is_told_as_gauges() -> None:
    def read() -> State:
        return STATE

    assert value("rag_state_readable", read) == 1
    assert value("rag_jobs", read, kind="index", state="queued") == 4
    assert value("rag_oldest_open_job_seconds", read, kind="index") == 12.5
    assert value("rag_dead_letters", read, reason="unauthorized") == 1
    assert value("rag_documents", read, status="ready") == 7
    assert value("rag_queue_messages", read, queue="rag") == 3
    assert value("rag_probes", read, state="failing") == 2
    assert value("rag_alarms", read, kind="scores") == 1


def test_a_database_that_is_down_takes_none_of_the_processs_own_numbers_away() -> None:
    def read() -> State:
        raise RetryableError

    assert value("rag_state_readable", read) == 0
    assert ("rag_state_readable", frozenset()) in samples(read)
    assert value("rag_build_info", read, **_build()) == 1
    assert not [name for name, _ in samples(read) if name == "rag_jobs"]


def _build() -> dict[str, str]:
    return next(dict(labels) for name, labels in samples() if name == "rag_build_info")


def test_state_is_read_once_however_many_ask_and_again_when_it_is_old() -> None:
    reads = []

    def read() -> State:
        reads.append(1)
        return STATE

    fresh, stale = Cached(read, 60.0), Cached(read, 0.0)
    assert [fresh(), fresh(), fresh()] == [STATE] * 3
    assert len(reads) == 1
    assert stale() is stale()
    assert len(reads) == 3


def test_what_could_not_be_read_is_tried_again_at_once() -> None:
    answers: list[RetryableError | State] = [RetryableError(), STATE]

    def read() -> State:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cached = Cached(read, 60.0)
    with pytest.raises(RetryableError):
        cached()
    assert cached() == STATE


def test_a_port_of_their_own_gives_them_out_and_is_free_again_afterwards() -> None:
    with state.serving(0, "127.0.0.1", lambda: STATE) as port:
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        with pytest.raises(ConfigError, match="RAG_METRICS_PORT"), state.serving(port, "127.0.0.1", None):
            pass
    assert 'rag_documents{status="ready"} 7.0' in text
    with state.serving(port, "127.0.0.1", None):
        pass


def test_every_metric_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    families = text_string_to_metric_families(exposition(lambda: STATE).decode())
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    ours = {name for name in names if name.startswith("rag_")}
    assert len(ours) > 20
    assert not [name for name in ours if f"`{name}`" not in page]


def test_the_model_is_counted_by_its_runs_and_their_texts() -> None:
    def forward(texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        return np.ones((len(texts), 2), dtype=np.float32)

    before = value("rag_embedder_batches_total"), value("rag_embedder_texts_total")
    Batcher(forward, slice_tokens=4).embed([[1, 2], [3, 4], [5, 6]], "document")
    assert value("rag_embedder_batches_total") == before[0] + 2
    assert value("rag_embedder_texts_total") == before[1] + 3


def test_messages_are_counted_in_process_and_a_broker_that_is_down_says_so() -> None:
    broker = make_broker(None, ["uploads", "bulk"])
    Sender(broker).send("uploads", "index", "job_1")
    assert depths(broker) == {"uploads": 1, "bulk": 0}
    broker.close()
    unreachable = make_broker("redis://127.0.0.1:1/0", ["uploads"])
    with pytest.raises(RetryableError):
        depths(unreachable)
