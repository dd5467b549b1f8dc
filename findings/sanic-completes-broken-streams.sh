#!/usr/bin/env bash
# What a client sees of a streaming response whose generator raises after the first chunk.
#   - sanic 25.12.1, both ResponseStream and request.respond(): the last chunk of a complete response ("0"), after status 200.
#     The client cannot see that the rest is missing.
#   - For comparison, starlette 1.10.0 under uvicorn 0.54.0: the connection closes without the last chunk. The client sees an incomplete response.
# A Content-Length, or transport.abort() in the handler, makes the loss visible under Sanic.
# Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"; "$folder/env/bin/pip" install -q sanic==25.12.1 starlette==1.10.0 uvicorn==0.54.0
cat >"$folder/apps.py" <<'PYTHON'
import sys

import uvicorn
from sanic import Sanic
from sanic.response import ResponseStream
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

async def write(response):
    await response.write("half")
    raise ValueError("the other half is lost")

async def chunks():
    yield b"half"
    raise ValueError("the other half is lost")

sanic = Sanic("finding", configure_logging=False)

@sanic.get("/stream")
async def stream(request):
    return ResponseStream(write)

@sanic.get("/respond")
async def respond(request):
    response = await request.respond()
    await response.send("half")
    raise ValueError("the other half is lost")

async def view(request):
    return StreamingResponse(chunks())

if __name__ == "__main__":
    port = int(sys.argv[2])
    if sys.argv[1] == "sanic":
        sanic.run("127.0.0.1", port, single_process=True, motd=False, access_log=False)
    else:
        uvicorn.run(Starlette(routes=[Route("/stream", view)]), port=port, log_level="critical")
PYTHON
cat >"$folder/try.py" <<'PYTHON'
import socket
import subprocess
import sys
import time
from pathlib import Path

def get(port, path):
    for _ in range(600):
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    connection.sendall(b"GET %s HTTP/1.1\r\nHost: host\r\nConnection: close\r\n\r\n" % path.encode())
    received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"chunked" in head.lower()
    return head.split()[1].decode(), "complete" if body.endswith(b"0\r\n\r\n") else "incomplete"

for name, paths in {"sanic": ("/stream", "/respond"), "starlette": ("/stream",)}.items():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, Path(__file__).with_name("apps.py"), name, str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for path in paths:
            print(name, path, *get(port, path))
    finally:
        server.kill()
        server.wait()
PYTHON
cat >"$folder/expected" <<'EXPECTED'
sanic /stream 200 complete
sanic /respond 200 complete
starlette /stream 200 incomplete
EXPECTED
"$folder/env/bin/python" "$folder/try.py" | tee "$folder/seen"
diff "$folder/expected" "$folder/seen"
