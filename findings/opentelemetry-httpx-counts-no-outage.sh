#!/usr/bin/env bash
# opentelemetry-instrumentation-httpx measures no request that fails, and takes a download that breaks off for a success.
#   - A request without a response has a span with an error, and adds nothing to http.client.request.duration: in the metrics an
#     outage looks like silence, although the conventions have `error.type` for it.
#   - A span ends with the headers. A body that breaks off leaves it without an error, and one success in the metrics.
# Output seen: see EXPECTED below (opentelemetry-instrumentation-httpx 0.66b2, opentelemetry-sdk 1.45.2, httpx 0.28.1).
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cat >"$folder/try.py" <<'PYTHON'
import asyncio

import httpx
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans, reader, provider = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
HTTPXClientInstrumentor().instrument(tracer_provider=provider, meter_provider=MeterProvider([reader]))


async def converse(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    size = 9 if b"/broken" in head else 4
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\ntext" % size)
    writer.close()


async def attempt(client, url):
    try:
        await client.get(url)
    except httpx.HTTPError as error:
        return type(error).__name__
    return "a response"


def counted():
    data = reader.get_metrics_data()
    metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else []
    return sum(point.count for metric in metrics for point in metric.data.data_points)


async def main():
    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with httpx.AsyncClient() as client:
        for name, url in {"whole body": base, "broken body": f"{base}/broken", "no server": "http://127.0.0.1:1/"}.items():
            before = counted()
            raised, span = await attempt(client, url), None
            span = spans.get_finished_spans()[-1]
            kind = span.attributes.get("error.type")
            print(f"{name}: {raised}, span {span.status.status_code.name}, error.type {kind}, metrics {counted() - before}")
    server.close()

asyncio.run(main())
PYTHON
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q opentelemetry-instrumentation-httpx==0.66b2 opentelemetry-sdk==1.45.2 httpx==0.28.1
OTEL_SEMCONV_STABILITY_OPT_IN=http "$folder/venv/bin/python" "$folder/try.py" | tee "$folder/seen"
diff - "$folder/seen" <<EXPECTED
whole body: a response, span UNSET, error.type None, metrics 1
broken body: RemoteProtocolError, span UNSET, error.type None, metrics 1
no server: ConnectError, span ERROR, error.type ConnectError, metrics 0
EXPECTED
