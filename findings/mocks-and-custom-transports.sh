#!/usr/bin/env bash
# Which of the mocks for httpx see a client with a transport of its own: httpx.AsyncClient(transport=Custom()).
#   - respx 0.23.1 by default patches httpcore, and pytest-httpx 0.36.0 patches httpx.AsyncHTTPTransport: both are bypassed
#     without a word, and the request reaches the custom transport (in a real test: the network).
#   - respx.mock(using="httpx") patches the client's choice of a transport, so it does see the request.
# Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"; "$folder/env/bin/pip" install -q httpx==0.28.1 respx==0.23.1 pytest==9.0.2 pytest-httpx==0.36.0
cat >"$folder/test_try.py" <<'PYTHON'
import asyncio

import httpx
import respx

class Custom(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="custom transport")

async def fetch(**options: object) -> str:
    async with httpx.AsyncClient(**options) as client:
        return (await client.get("https://example.org/")).text

def with_respx(using: str | None, **options: object) -> str:
    with respx.mock(assert_all_called=False, **({"using": using} if using else {})) as router:
        router.get("https://example.org/").respond(text="mock")
        return asyncio.run(fetch(**options))

def test_pytest_httpx(httpx_mock, capsys):
    httpx_mock.add_response(text="mock", is_optional=True)
    seen = asyncio.run(fetch(transport=Custom()))
    with capsys.disabled():
        print("\npytest-httpx:", seen)

def test_respx(capsys):
    with capsys.disabled():
        print("\nrespx, stock client:", with_respx(None))
        print("respx:", with_respx(None, transport=Custom()))
        print('respx, using="httpx":', with_respx("httpx", transport=Custom()))
PYTHON
cat >"$folder/expected" <<'EXPECTED'
pytest-httpx: custom transport
respx, stock client: mock
respx: custom transport
respx, using="httpx": mock
EXPECTED
"$folder/env/bin/pytest" -q "$folder/test_try.py" | grep -E "^(pytest-httpx|respx)" | tee "$folder/seen"
diff "$folder/expected" "$folder/seen"
