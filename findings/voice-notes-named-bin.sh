#!/usr/bin/env bash
# The name that clients of WhatsApp's API give to a voice note that they download. Meta's type for one has a parameter: it is
# "audio/ogg; codecs=opus", in the webhook and in the answer to GET /MEDIA_ID.
#   - python-whatsapp-bot 2.0.3 has .opus for audio/ogg, and for this type .bin: it looks up the whole text, and so does
#     Python's mimetypes.guess_extension, which knows no type that has a parameter.
#   - whatsapp-python 4.3.0 and pygwan 0.3.6 take all that follows the slash: "temp.ogg; codecs=opus".
#   - For a Word document these two write "temp.vnd.openxmlformats-officedocument.wordprocessingml.document".
# Sent on by its name, such a file is no sound any more: mimetypes.guess_type says application/octet-stream or None.
# The server below stands for Meta. whatsapp-python asks Meta's pages and PyPI when its client is made: so none is made here.
# Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env; env/bin/pip install -q python-whatsapp-bot==2.0.3 whatsapp-python==4.3.0 pygwan==0.3.6
cat >try.py <<'PYTHON'
import http.server
import json
import mimetypes
import os
import threading
import types

import pygwan
import python_whatsapp_bot.message
import whatsapp

VOICE = "audio/ogg; codecs=opus"
WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

class Meta(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        kind = WORD if self.path.endswith("word") else VOICE
        url = f"http://127.0.0.1:{self.server.server_port}/file"
        content = b"content" if self.path == "/file" else json.dumps({"url": url, "mime_type": kind}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Meta)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}"
for label, kind in {"voice": VOICE, "word": WORD}.items():
    names = {
        "python-whatsapp-bot": python_whatsapp_bot.message.download_media(base, label, "token", "media").name,
        "whatsapp-python": whatsapp.WhatsApp.download_media(types.SimpleNamespace(headers={}), f"{base}/file", kind),
        "pygwan": pygwan.WhatsApp("token", "1").download_media(f"{base}/file", kind),
    }
    for client, name in names.items():
        print(f"{client}: {os.path.basename(name)} ({mimetypes.guess_type(name)[0]})")
PYTHON
cat >expected <<'EXPECTED'
python-whatsapp-bot: voice.bin (application/octet-stream)
whatsapp-python: temp.ogg; codecs=opus (None)
pygwan: temp.ogg; codecs=opus (None)
python-whatsapp-bot: word.docx (application/vnd.openxmlformats-officedocument.wordprocessingml.document)
whatsapp-python: temp.vnd.openxmlformats-officedocument.wordprocessingml.document (None)
pygwan: temp.vnd.openxmlformats-officedocument.wordprocessingml.document (None)
EXPECTED
env/bin/python try.py 2>log | tee seen || { cat log; exit 1; }
diff expected seen
