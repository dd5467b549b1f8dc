"""What the SDK of OpenTelemetry would export, kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from meta_media.integrations.otel import MediaInstrumentor

Tree = list[tuple[str, str, list[Any]]]  # of calls: name, status, and the method and status of each request


class Telemetry:
    """Providers for an instrumentor, and what they were given."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meter_provider = MeterProvider([self._metrics])
        self.tracer = self.tracer_provider.get_tracer("test")

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in the order in which they began."""
        return sorted(self._spans.get_finished_spans(), key=lambda span: span.start_time or 0)

    @property
    def calls(self) -> list[ReadableSpan]:
        """The spans of calls."""
        return [span for span in self.spans if span.name.startswith("meta_media.")]

    def children(self, parent: ReadableSpan) -> list[ReadableSpan]:
        """The spans that a span is the parent of."""
        context = parent.get_span_context()
        return [span for span in self.spans if span.parent and context and span.parent.span_id == context.span_id]

    def requests(self, *calls: ReadableSpan) -> list[ReadableSpan]:
        """The spans of requests: of some calls, or all."""
        spans = [span for call in calls for span in self.children(call)] if calls else self.spans
        return [span for span in spans if span.kind is SpanKind.CLIENT]

    @property
    def tree(self) -> Tree:
        """The calls, and in each its requests."""
        return [
            (each.name.partition(".")[2], _status(each), [_request(r) for r in self.requests(each)])
            for each in self.calls
        ]

    def points(self, name: str) -> list[tuple[dict[str, Any], int]]:
        """The attributes of a histogram's points, with the number of values in each."""
        return [(dict(point.attributes or {}), point.count) for point in self._points(name)]

    def sum(self, name: str) -> float:
        """The sum of all values of a histogram."""
        return float(sum(point.sum for point in self._points(name)))

    def metrics(self) -> dict[str, str]:
        """The units of the metrics that have values, by their names."""
        return {metric.name: metric.unit for metric in self._all()}

    def shown(self) -> str:
        """All that is exported, as text."""
        data = self._metrics.get_metrics_data()
        return "\n".join([*(span.to_json() for span in self.spans), "" if data is None else data.to_json()])

    def _points(self, name: str) -> list[Any]:
        return [point for metric in self._all() if metric.name == name for point in metric.data.data_points]

    def _all(self) -> list[Any]:
        data = self._metrics.get_metrics_data()
        resources = [] if data is None else data.resource_metrics
        return [metric for resource in resources for scope in resource.scope_metrics for metric in scope.metrics]


def _status(span: ReadableSpan) -> str:
    error = (span.attributes or {}).get("error.type")
    assert bool(error) == (span.status.status_code.name == "ERROR")
    return str(error or "")


def _request(span: ReadableSpan) -> tuple[str, Any]:
    return span.name, (span.attributes or {}).get("http.response.status_code")


@contextmanager
def instrumented() -> Iterator[Telemetry]:
    """Turn spans and metrics on, for a block."""
    telemetry, instrumentor = Telemetry(), MediaInstrumentor()
    instrumentor.instrument(
        tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider, skip_dep_check=True
    )
    try:
        yield telemetry
    finally:
        instrumentor.uninstrument()
