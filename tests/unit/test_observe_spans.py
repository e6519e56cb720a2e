"""Traces: nothing while they are off, and one connected tree while they are on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from rag_service.errors import ConfigError, RetryableError
from rag_service.observe import spans


@dataclass
class Store:
    """A port of a test."""

    name: str = "shelf"

    def put(self, what: str, *, twice: bool = False) -> str:
        return what * (1 + twice)

    def get(self) -> str:
        return "got"


@pytest.fixture
def finished() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    spans.start_with(SimpleSpanProcessor(exporter))
    yield exporter
    spans.stop()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def own_id(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def test_while_tracing_is_off_nothing_is_made_and_nothing_is_carried() -> None:
    store = Store()
    assert not spans.is_on()
    assert spans.span("a") is spans.span("b", job="j")
    with spans.span("a") as opened:
        assert opened is None
    assert spans.carried() == {}
    assert spans.current_ids() == {}
    assert spans.traced(store, "store", "put") is store


def test_while_tracing_is_off_opentelemetry_is_not_even_imported() -> None:
    script = (
        "import sys; from rag_service.observe import spans, context, logs, metrics\n"
        "with spans.span('a'): context.carried()\n"
        "sys.exit('opentelemetry' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_no_collector_named_means_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    assert not spans.start(None)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not spans.start("http://127.0.0.1:1")
    assert not spans.is_on()


def test_the_standard_variables_turn_it_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    try:
        assert spans.start(None)
        assert spans.is_on()
    finally:
        spans.stop()


def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(ConfigError, match=r"rag-service\[otel\]"):
        spans.start("http://127.0.0.1:1")


def test_blocks_inside_each_other_are_spans_under_each_other(finished: InMemorySpanExporter) -> None:
    with spans.span("outer", kind="server", job="job_1", texts=3), spans.span("inner"):
        ids = spans.current_ids()
    spans_made = by_name(finished)
    outer, inner = spans_made["outer"], spans_made["inner"]
    assert parent_of(inner) == own_id(outer)
    assert outer.kind == SpanKind.SERVER
    assert outer.attributes == {"rag.job": "job_1", "rag.texts": 3}
    assert ids["span_id"] == f"{own_id(inner):016x}"


def test_what_is_carried_away_becomes_a_parent_elsewhere(finished: InMemorySpanExporter) -> None:
    with spans.span("request"):
        carried = spans.carried()
    with spans.span("unrelated"), spans.span("job", kind="consumer", parent=carried):
        pass
    request, job = by_name(finished)["request"], by_name(finished)["job"]
    assert set(carried) == {"traceparent"}
    assert parent_of(job) == own_id(request)


@pytest.mark.parametrize("carried", [{}, {"traceparent": "nonsense"}, {"traceparent": "00-0-0-01"}])
def test_without_a_parent_that_can_be_read_a_trace_begins(
    finished: InMemorySpanExporter, carried: dict[str, str]
) -> None:
    with spans.span("job", parent=carried):
        pass
    assert parent_of(by_name(finished)["job"]) is None


def test_a_failure_is_told_by_its_code_or_type_never_by_what_it_says(finished: InMemorySpanExporter) -> None:
    for name, error in (("ours", RetryableError("the text", code="busy")), ("theirs", ValueError("the text"))):
        with pytest.raises(type(error)), spans.span(name):
            raise error
    made = by_name(finished)
    assert made["ours"].attributes == {"error.type": "busy"}
    assert made["theirs"].attributes == {"error.type": "ValueError"}
    for span in made.values():
        assert span.status.status_code == StatusCode.ERROR
        assert "the text" not in span.to_json()


def test_a_request_is_named_by_its_template_and_fails_from_500_up(finished: InMemorySpanExporter) -> None:
    for status in (404, 503):
        with spans.span("GET") as opened:
            spans.request_ended(opened, "GET", f"/v1/things/{{id}}/{status}", status)
    made = by_name(finished)
    assert made["GET /v1/things/{id}/404"].status.status_code == StatusCode.UNSET
    assert made["GET /v1/things/{id}/503"].status.status_code == StatusCode.ERROR


def test_a_traced_port_has_a_span_around_the_methods_named_and_is_else_as_it_was(
    finished: InMemorySpanExporter,
) -> None:
    store = spans.traced(Store(), "store", "put")
    assert store.put("x", twice=True) == "xx"
    assert store.get() == "got"
    assert store.name == "shelf"
    assert list(by_name(finished)) == ["store.put"]


def test_the_service_names_itself_unless_the_environment_does(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for wanted in (None, "search-eu"):
        if wanted:
            monkeypatch.setenv("OTEL_SERVICE_NAME", wanted)
        exporter = InMemorySpanExporter()
        spans.start_with(SimpleSpanProcessor(exporter))
        with spans.span("a"):
            pass
        names.append(by_name(exporter)["a"].resource.attributes["service.name"])
    spans.stop()
    assert names == ["rag-service", "search-eu"]
