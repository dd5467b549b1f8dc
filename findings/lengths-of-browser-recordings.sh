#!/usr/bin/env bash
# How long a voice recording of Chromium is: MediaRecorder, "audio/mp4;codecs=opus", which it writes in fragments.
#   - The packets say how long they are: the Opus in each is 60 ms. The duration that Chromium writes for the last one of a
#     fragment is 21 ms: with `start(1000)` their sum is 4 % short. The fragments themselves begin at the right times.
#   - The header has no length. mutagen 1.48.1 and tinytag 2.3.2 say 0.02 and 0 seconds for any recording, and raise nothing.
#   - FFmpeg (PyAV 18.1.0) adds the short duration to the last packet's time: 39 ms too few. A copy that it makes (`-c copy`) has
#     a length in its header, which mutagen and tinytag find.
# Chromium 147 is that of the package @sparticuz/chromium 153.0.0. Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"; "$folder/env/bin/pip" install -q av==18.1.0 mutagen==1.48.1 tinytag==2.3.2
npm install --silent --no-save --ignore-scripts --prefix "$folder" @sparticuz/chromium@153.0.0
node -e 'const fs = require("fs"), [source, target] = process.argv.slice(1)
fs.writeFileSync(target, require("zlib").brotliDecompressSync(fs.readFileSync(source)), { mode: 0o755 })' \
    "$folder/node_modules/@sparticuz/chromium/bin/chromium.br" "$folder/chromium"
cat >"$folder/try.py" <<'PYTHON'
import http.server
import subprocess
import sys
import threading

import av
import mutagen
import tinytag

PAGE = b"""<!doctype html><script>
const context = new AudioContext(), tone = new OscillatorNode(context), target = new MediaStreamAudioDestinationNode(context)
tone.connect(target)
tone.start()
const recorder = new MediaRecorder(target.stream, { mimeType: 'audio/mp4;codecs=opus' }), parts = []
recorder.ondataavailable = ({ data }) => parts.push(data)
recorder.onstop = () => fetch('/', { method: 'POST', body: new Blob(parts) })
recorder.start(1000)
setTimeout(() => recorder.stop(), 4500)
</script>"""
folder = sys.argv[1]
recorded = threading.Event()

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def do_POST(self):
        with open(f"{folder}/recording.mp4", "wb") as file:
            file.write(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        recorded.set()

    def log_message(self, *args):
        pass

def record():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
    options += [f"--user-data-dir={folder}/profile", f"http://127.0.0.1:{server.server_port}/"]
    browser = subprocess.Popen([f"{folder}/chromium", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert recorded.wait(60)
    finally:
        browser.terminate()
        browser.wait()

def copy(source, target):
    with av.open(source) as read, av.open(target, "w") as written:
        stream = written.add_stream_from_template(read.streams.audio[0])
        for packet in read.demux(audio=0):
            if packet.size:
                packet.stream = stream
                written.mux(packet)

def lengths(path):  # in seconds, by those who do not decode
    with av.open(path) as file:
        return {"FFmpeg": file.duration / 1e6, "mutagen": mutagen.File(path).info.length, "tinytag": tinytag.TinyTag.get(path).duration}

record()
path = f"{folder}/recording.mp4"
with av.open(path) as file:
    packets = [packet for packet in file.demux(audio=0) if packet.size]
    durations = [packet.duration / 48 for packet in packets]  # ms
    sounds = [sum(frame.samples for frame in packet.decode()) / 48 for packet in packets]
with open(path, "rb") as file:
    fragments = file.read().count(b"moof")
real = len(packets) * 60
print("sound in a packet, ms:", *set(sounds[2:]))
short = [round(one) for one in durations if one < 40]
print(f"shorter durations, ms: {set(short)}; one in each fragment: {len(short) == fragments}; in the last packet: {durations[-1] < 40}")
print("the durations are short by about 39 ms a fragment:", abs((real - sum(durations)) / fragments - 39) < 5)
copy(path, f"{folder}/copy.mp4")
for name in ("recording.mp4", "copy.mp4"):
    print(f"{name}:", ", ".join(f"{reader} {'about right' if length * 1000 / real > 0.95 else 'nothing'}" for reader, length in lengths(f"{folder}/{name}").items()))
PYTHON
cat >"$folder/expected" <<'EXPECTED'
sound in a packet, ms: 60.0
shorter durations, ms: {21}; one in each fragment: True; in the last packet: True
the durations are short by about 39 ms a fragment: True
recording.mp4: FFmpeg about right, mutagen nothing, tinytag nothing
copy.mp4: FFmpeg about right, mutagen about right, tinytag about right
EXPECTED
"$folder/env/bin/python" "$folder/try.py" "$folder" | tee "$folder/seen"
diff "$folder/expected" "$folder/seen"
