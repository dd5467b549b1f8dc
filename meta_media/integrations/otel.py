"""
OpenTelemetry: a span for each call and each request, and the metrics of both. Needs the extra `[otel]`.

Names are those of the semantic conventions for HTTP clients, which are stable since version 1.23. For dashboards of before,
`OTEL_SEMCONV_STABILITY_OPT_IN=http/dup` adds those of version 1.20; see the conventions' page "HTTP semantic convention
stability migration".
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

try:
    from opentelemetry import context, metrics, trace
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "meta_media.integrations.otel needs a package: pip install '.[otel]' in a checkout", name=error.name
    ) from error

from meta_media._version import __version__
from meta_media.errors import MediaError, Operation
from meta_media.http.client import Client
from meta_media.http.observer import ObservedRequest, error_type

__all__ = ["MediaInstrumentor"]

_SCHEMA: Final = "https://opentelemetry.io/schemas/1.23.1"
_PORTS: Final = {"https": 443, "http": 80}
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)  # as the conventions say
_BYTES: Final = (10**3, 10**4, 10**5, 10**6, 10**7, 10**8)

# A block that no other instrumentation sees
_suppressed: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
_is_enabled: Callable[[], bool] = functools.partial(bool, 1)  # true, while nothing can disable it
with contextlib.suppress(ModuleNotFoundError):  # a package that all other instrumentations bring
    from opentelemetry.instrumentation import utils

    _suppressed, _is_enabled = utils.suppress_http_instrumentation, utils.is_instrumentation_enabled


# What is known of a request, by its name as an attribute since version 1.23, and in version 1.20; None where it has none.
_ATTRIBUTES: Final[Mapping[str, tuple[str | None, str | None]]] = {
    "method": ("http.request.method", "http.method"),
    "url": ("url.full", "http.url"),
    "address": ("server.address", "net.peer.name"),
    "port": ("server.port", None),
    "unusual_port": (None, "net.peer.port"),
    "resends": ("http.request.resend_count", "http.resend_count"),
    "status": ("http.response.status_code", "http.status_code"),
    "version": ("network.protocol.version", "net.protocol.version"),
    "error": ("error.type", None),
    "sent": (None, "http.request_content_length"),
    "received": (None, "http.response_content_length"),
}


@attrs.frozen
class _Convention:
    """The names of what is known of a request: of the attributes, and of its metrics."""

    column: int  # of the table above
    duration: str
    unit: str  # of the duration
    per_second: int  # of these units
    size: str  # of the metrics of bodies

    def named(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return facts under the names of attributes; those without a name are left out, and so is None."""
        given = ((_ATTRIBUTES[fact][self.column], value) for fact, value in facts.items())
        return {name: value for name, value in given if name is not None and value is not None}


_STABLE: Final = _Convention(0, "http.client.request.duration", "s", 1, "http.client.{}.body.size")
_OLD: Final = _Convention(1, "http.client.duration", "ms", 1000, "http.client.{}.size")


class MediaInstrumentor:
    """
    Turns spans and metrics on and off for the whole process, like the instrumentors of OpenTelemetry.

    `opentelemetry-instrument` finds it.
    """

    def instrument(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        **_: object,
    ) -> None:
        """
        Turn them on for all calls that begin from now on.

        No header is added to a request, so that Meta learns no id of a trace. No span and no metric has a token, or the query
        of a URL.

        Args:
            tracer_provider: Default: the global one.
            meter_provider: Default: the global one.
        """
        tracer = trace.get_tracer("meta_media", __version__, tracer_provider, schema_url=_SCHEMA)
        meter = metrics.get_meter("meta_media", __version__, meter_provider, schema_url=_SCHEMA)
        Client.observer = _Observer(tracer, meter)

    def uninstrument(self, **_: object) -> None:
        """Turn them off. Calls in progress keep their spans."""
        Client.observer = None


class _Observer:
    """Makes the spans of calls, and records all metrics."""

    def __init__(self, tracer: trace.Tracer, meter: metrics.Meter) -> None:
        asked = {name.strip() for name in os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")}
        self.tracer = tracer
        self._calls = _histogram(meter, "meta_media.client.operation.duration", "s", _SECONDS)
        self.metrics = [_Metrics(meter, each) for each in ((_STABLE, _OLD) if "http/dup" in asked else (_STABLE,))]

    def call(self, operation: Operation) -> _CallSpan | None:
        """See `Observer`."""
        return _CallSpan(self, operation) if _is_enabled() else None

    def request(self, request: ObservedRequest) -> _RequestSpan | None:
        """See `Observer`. Its parent is what is current: the call that reads the source, if there is one."""
        return _RequestSpan(self, request, None) if _is_enabled() else None

    def attributes(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is known of a request as attributes of a span, under all names in force."""
        return {name: value for each in self.metrics for name, value in each.convention.named(facts).items()}

    def record_request(self, request: ObservedRequest, facts: Mapping[str, Any]) -> None:
        """Record the metrics of a request. The facts have few values each."""
        for each in self.metrics:
            each.record(request, facts)

    def record_call(self, operation: Operation, seconds: float, failure: Mapping[str, Any]) -> None:
        """Record the metric of a call."""
        self._calls.record(seconds, {"meta_media.operation": operation, **failure})


class _Metrics:
    """The metrics of requests under the names of one convention."""

    def __init__(self, meter: metrics.Meter, convention: _Convention) -> None:
        self.convention = convention
        buckets = [seconds * convention.per_second for seconds in _SECONDS]
        self._duration = _histogram(meter, convention.duration, convention.unit, buckets)
        self._sent = _histogram(meter, convention.size.format("request"), "By", _BYTES)
        self._received = _histogram(meter, convention.size.format("response"), "By", _BYTES)

    def record(self, request: ObservedRequest, facts: Mapping[str, Any]) -> None:
        """Record a request; the sizes of bodies only if there is a response."""
        attributes = self.convention.named(facts)
        self._duration.record(request.seconds * self.convention.per_second, attributes)
        if request.status is not None:
            self._sent.record(request.bytes_sent, attributes)
            self._received.record(request.bytes_received, attributes)


class _CallSpan:
    """The span of a call. It is current until the call ends, or gives way to the caller's own code."""

    def __init__(self, observer: _Observer, operation: Operation) -> None:
        self._observer = observer
        self._operation: Operation = operation
        self._started = time.monotonic()
        attributes = {"meta_media.operation": operation}
        self._span = observer.tracer.start_span(f"meta_media.{operation}", attributes=attributes)
        self._context = trace.set_span_in_context(self._span)
        self._token: Any = context.attach(self._context)  # restores the caller's context; None once that is done

    def request(self, request: ObservedRequest) -> _RequestSpan:
        """See `CallObserver`."""
        return _RequestSpan(self._observer, request, self._context)

    def leave_context(self) -> None:
        """See `CallObserver`."""
        if self._token is not None:
            context.detach(self._token)
            self._token = None

    def end(self, error: BaseException | None, attempts: int) -> None:
        """See `CallObserver`."""
        self.leave_context()
        failure = _failure(error, error_type(error))
        _end(self._span, {"meta_media.attempts": attempts}, failure, error)
        self._observer.record_call(self._operation, time.monotonic() - self._started, failure)


class _RequestSpan:
    """The span of a request. It is current while the request is sent."""

    def __init__(self, observer: _Observer, request: ObservedRequest, parent: context.Context | None) -> None:
        parts = urlsplit(request.url)
        usual = _PORTS[parts.scheme]
        self._observer = observer
        self._injected = request.injected
        self._facts = {"method": request.method, "address": parts.hostname, "port": parts.port or usual}
        if parts.port not in {None, usual}:
            self._facts["unusual_port"] = parts.port
        attributes = observer.attributes({**self._facts, "url": request.url, "resends": request.attempt - 1 or None})
        self._span = observer.tracer.start_span(request.method, parent, trace.SpanKind.CLIENT, attributes)
        self._sending = contextlib.ExitStack()

    def __enter__(self) -> None:
        """Make it current. Another instrumentation of an injected client would count the request once more."""
        token = context.attach(trace.set_span_in_context(self._span))
        self._sending.callback(context.detach, token)
        if self._injected:
            self._sending.enter_context(_suppressed())

    def __exit__(self, *_: object) -> None:
        self._sending.close()

    def end(self, request: ObservedRequest) -> None:
        """See `RequestObserver`."""
        status = request.status or 0
        if status:
            self._facts["status"] = status
        if not self._injected:
            self._facts["version"] = "1.1"
        failure = _failure(request.error, str(status) if status >= 400 else error_type(request.error))
        more = {"sent": request.bytes_sent, "received": request.bytes_received} if status else {}
        attributes = self._observer.attributes(self._facts | more)
        if request.fbtrace_id:
            attributes["meta_media.fbtrace_id"] = request.fbtrace_id
        _end(self._span, attributes, failure, None if status >= 400 else request.error)
        self._observer.record_request(request, self._facts | {"error": failure.get("error.type")})


def _histogram(meter: metrics.Meter, name: str, unit: str, buckets: Sequence[float]) -> metrics.Histogram:
    return meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=buckets)


def _failure(error: BaseException | None, name: str | None) -> dict[str, Any]:
    """Return the attributes of a failure. A cancellation is none: it was the caller's will, as the conventions say."""
    if isinstance(error, asyncio.CancelledError):
        return {"meta_media.cancelled": True}
    return {"error.type": name} if name else {}


def _end(span: trace.Span, attributes: dict[str, Any], failure: dict[str, Any], error: BaseException | None) -> None:
    """End a span. Only the library's own errors are described: they have no secrets."""
    span.set_attributes(attributes | failure)
    if "error.type" in failure:
        span.set_status(trace.StatusCode.ERROR, str(error) if isinstance(error, MediaError) else None)
    span.end()
