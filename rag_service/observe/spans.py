"""Traces by OpenTelemetry: off unless an exporter is started, and then one trace from request to queue to store.

OpenTelemetry is imported only once tracing is on. While it is off, `span` hands out one and the same empty block.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from rag_service.errors import ConfigError, RagError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Span, Tracer

Kind = Literal["internal", "server", "consumer"]
Port = TypeVar("Port")

OFF: AbstractContextManager[None] = nullcontext()
_CALLER = "traceparent"  # of the W3C's Trace Context, as is the value
_ADDRESSES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


@dataclass(frozen=True, slots=True)
class _Tracing:
    provider: TracerProvider
    tracer: Tracer


class _State:
    """A process has one exporter, as it has one standard error."""

    tracing: _Tracing | None = None


def start(endpoint: str | None) -> bool:
    """Export to the collector at `endpoint`, or where the standard OTEL_ variables say; False: neither names one.

    The other OTEL_ variables hold too: headers, sampler, resource. Raises ConfigError when the extra is missing.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if endpoint is None and not any(os.environ.get(name) for name in _ADDRESSES):
        return False
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigError(
            "Tracing needs the OpenTelemetry SDK: pip install 'rag-service[otel]', or unset RAG_OTLP_ENDPOINT."
        ) from None
    address = None if endpoint is None else f"{endpoint.rstrip('/')}/v1/traces"
    start_with(BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))
    return True


def start_with(processor: SpanProcessor) -> None:
    """Hand every span to `processor` until `stop`; what was started before is stopped."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from rag_service import __version__

    stop()
    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "rag-service"), "service.version": __version__}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(processor)
    _State.tracing = _Tracing(provider, provider.get_tracer("rag_service", __version__))


def stop() -> None:
    """Export what waits and trace no more."""
    tracing, _State.tracing = _State.tracing, None
    if tracing is not None:
        tracing.provider.shutdown()


def is_on() -> bool:
    return _State.tracing is not None


def span(
    name: str, *, kind: Kind = "internal", parent: Mapping[str, str] | None = None, **attributes: str | int | float
) -> AbstractContextManager[Span | None]:
    """A span over the block, under `parent` (headers or what `carried` gave) or else under the present one.

    Attributes are ids, counts and names of ours: never text.
    """
    if _State.tracing is None:
        return OFF
    return _recorded(_State.tracing.tracer, name, kind, parent, attributes)


@contextmanager
def _recorded(
    tracer: Tracer, name: str, kind: Kind, parent: Mapping[str, str] | None, attributes: Mapping[str, str | int | float]
) -> Iterator[Span]:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    above = None if parent is None else TraceContextTextMapPropagator().extract(parent)
    with tracer.start_as_current_span(
        name,
        context=above,
        kind=trace.SpanKind[kind.upper()],
        attributes={f"rag.{key}": value for key, value in attributes.items()},
        # An exception's message may quote what it was given: its type says enough.
        record_exception=False,
        set_status_on_exception=False,
    ) as opened:
        try:
            yield opened
        except BaseException as error:
            mark_failed(opened, error.code if isinstance(error, RagError) else type(error).__name__)
            raise


def request_ended(opened: Span | None, method: str, route: str, status: int) -> None:
    """Name a request's span by what was known of it only at the end; of no effect while tracing is off."""
    if opened is not None:
        opened.update_name(f"{method} {route}")
        opened.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
        if status >= 500:
            mark_failed(opened, str(status))


def mark_failed(opened: Span, why: str) -> None:
    """`why` is a code or the name of a type."""
    from opentelemetry.trace import StatusCode

    opened.set_attribute("error.type", why)
    opened.set_status(StatusCode.ERROR)


def carried() -> dict[str, str]:
    """The present span, to be a parent elsewhere; nothing while there is none."""
    carrier: dict[str, str] = {}
    if _State.tracing is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(carrier)
    return {name: value for name, value in carrier.items() if name == _CALLER}


def current_ids() -> dict[str, str]:
    """The ids of the present trace and span, for log lines."""
    if _State.tracing is None:
        return {}
    from opentelemetry import trace

    here = trace.get_current_span().get_span_context()
    return {"trace_id": f"{here.trace_id:032x}", "span_id": f"{here.span_id:016x}"} if here.is_valid else {}


def traced(port: Port, name: str, *methods: str) -> Port:
    """`port` with a span `<name>.<method>` around each of these methods; `port` itself while tracing is off."""
    return port if _State.tracing is None else cast(Port, _Traced(port, name, methods))


class _Traced:
    def __init__(self, port: object, name: str, methods: tuple[str, ...]) -> None:
        self._port = port
        for method in methods:
            setattr(self, method, _around(getattr(port, method), f"{name}.{method}"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)


def _around(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    @wraps(call)
    def with_span(*arguments: Any, **named: Any) -> Any:
        with span(name):
            return call(*arguments, **named)

    return with_span
