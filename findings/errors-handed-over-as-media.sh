#!/usr/bin/env bash
# Two WhatsApp clients hand the body of an error over as the media that was asked for. Nothing is raised.
#   - @kapso/whatsapp-cloud-api 0.3.0: `media.download()` sends no token unless the host ends in kapso.ai, or `auth: "always"` is
#     given. Meta's download URLs need the token: what comes back, as an ArrayBuffer, is the JSON of the 401.
#   - The same with `auth: "always"` and a URL that has expired (they live five minutes), and heyoo 0.1.2's `download_media`, which
#     writes it to a file and returns the path: neither looks at the HTTP status.
# The server below stands for Meta: GET /v23.0/7 gives a URL, which needs the token. The size and hash that Meta gives tell them apart.
# Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"; "$folder/env/bin/pip" install -q heyoo==0.1.2
npm install --silent --no-save --prefix "$folder" @kapso/whatsapp-cloud-api@0.3.0
cat >"$folder/kapso.cjs" <<'JAVASCRIPT'
const { WhatsAppClient } = require("@kapso/whatsapp-cloud-api");
const api = new WhatsAppClient({ accessToken: "token", baseUrl: process.argv[2] });
(async () => {
  for (const [title, input] of [
    ["kapso", { mediaId: "7" }],
    ["kapso, always", { mediaId: "7", auth: "always" }],
    ["kapso, always, expired", { mediaId: "8", auth: "always" }],
  ]) console.log(`${title}: ${Buffer.from(await api.media.download(input))}`);
})();
JAVASCRIPT
cat >"$folder/try.py" <<'PYTHON'
import json
import logging
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from heyoo import WhatsApp

class Meta(BaseHTTPRequestHandler):
    def do_GET(self):
        if not self.path.startswith("/media"):
            media_id = self.path.partition("?")[0].rpartition("/")[2]
            self.respond(200, json.dumps({"id": media_id, "url": f"{base}/media/{media_id}", "mime_type": "image/jpeg"}))
        elif self.headers["Authorization"] != "Bearer token":
            self.respond(401, '{"title":"Authentication Error","status":401}')
        elif self.path == "/media/8":
            self.respond(404, '{"title":"Not Found","status":404}')
        else:
            self.respond(200, "the photo")

    def respond(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if body.startswith("{") else "image/jpeg")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Meta)
base = f"http://127.0.0.1:{server.server_port}"
threading.Thread(target=server.serve_forever, daemon=True).start()
here = Path(__file__).parent
subprocess.run(["node", here / "kapso.cjs", base], check=True, cwd=here)
client = WhatsApp("token", phone_number_id="1")
for title, media_id in (("heyoo", 7), ("heyoo, expired", 8)):
    path = client.download_media(f"{base}/media/{media_id}", "image/jpeg", str(here / "copy"))
    print(f"{title}: {Path(path).name}: {Path(path).read_text()}")
server.shutdown()
PYTHON
cat >"$folder/expected" <<'EXPECTED'
kapso: {"title":"Authentication Error","status":401}
kapso, always: the photo
kapso, always, expired: {"title":"Not Found","status":404}
heyoo: copy.jpeg: the photo
heyoo, expired: copy.jpeg: {"title":"Not Found","status":404}
EXPECTED
"$folder/env/bin/python" "$folder/try.py" 2>/dev/null | tee "$folder/seen"
diff "$folder/expected" "$folder/seen"
