#!/usr/bin/env bash
# What `.name` of an open file is, where its bytes are those of photo.jpg. Code that sends it on as a file name sends these.
#   - tarfile: the archive's name, for each of its members; since Python 3.12 the member's. zipfile: the member's.
#   - gzip, and smart_open 9.0.2 and fsspec 2026.9.0 that decompress: the compressed file's name, although the bytes are not.
#   - werkzeug 3.1.9 (Flask, Quart) and aiohttp 3.14.5: the name of the form's field. The file's name is `.filename`.
#   - fsspec's memory, and aiofile 3.12.3: there is none. tempfile: None or a number.
# Output seen: see EXPECTED below (Python 3.11, 3.12 and 3.13).
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q smart-open==9.0.2 fsspec==2026.9.0 werkzeug==3.1.9 aiohttp==3.14.5 aiofile==3.12.3
cat >"$folder/try.py" <<'PYTHON'
import asyncio
import gzip
import io
import os
import tarfile
import tempfile
import zipfile
from pathlib import Path

import fsspec
import smart_open
from aiofile import async_open
from aiohttp import web
from werkzeug.datastructures import FileStorage

os.chdir(os.path.dirname(os.path.abspath(__file__)))
Path("photo.jpg").write_bytes(b"photo")
Path("photo.jpg.gz").write_bytes(gzip.compress(b"photo"))
with tarfile.open("n.tar.gz", "w:gz") as archive:
    archive.add("photo.jpg")
with zipfile.ZipFile("n.zip", "w") as archive:
    archive.write("photo.jpg")
fsspec.filesystem("memory").pipe("/photo.jpg", b"photo")

def show(label, file):
    name = getattr(file, "name", "(none)")
    print(f"{label}:", os.path.basename(name) if isinstance(name, str) else type(name).__name__)

show("tarfile", tarfile.open("n.tar.gz").extractfile("photo.jpg"))
show("zipfile", zipfile.ZipFile("n.zip").open("photo.jpg"))
show("gzip", gzip.open("photo.jpg.gz"))
show("smart_open", smart_open.open("photo.jpg.gz", "rb"))
show("fsspec, compression", fsspec.open("file://photo.jpg.gz", "rb", compression="gzip").open())
show("fsspec, memory", fsspec.open("memory://photo.jpg", "rb").open())
show("werkzeug", FileStorage(io.BytesIO(b"photo"), filename="photo.jpg", name="field"))
show("SpooledTemporaryFile", tempfile.SpooledTemporaryFile())
show("TemporaryFile", tempfile.TemporaryFile())

async def aio():
    async with async_open("photo.jpg", "rb") as file:
        show("aiofile", file)

    async def view(request):
        show("aiohttp", (await request.post())["field"])
        return web.Response()

    from aiohttp import ClientSession, FormData, test_utils
    app = web.Application()
    app.router.add_post("/", view)
    async with test_utils.TestServer(app) as server, ClientSession() as client:
        form = FormData()
        form.add_field("field", b"photo", filename="photo.jpg")
        await client.post(server.make_url("/"), data=form)

asyncio.run(aio())
PYTHON
member=$(python3 -c 'import sys; print("photo.jpg" if sys.version_info >= (3, 12) else "n.tar.gz")')
cat >"$folder/expected" <<EXPECTED
tarfile: $member
zipfile: photo.jpg
gzip: photo.jpg.gz
smart_open: photo.jpg.gz
fsspec, compression: photo.jpg.gz
fsspec, memory: (none)
werkzeug: field
SpooledTemporaryFile: NoneType
TemporaryFile: int
aiofile: (none)
aiohttp: field
EXPECTED
"$folder/env/bin/python" "$folder/try.py" | tee "$folder/seen"
diff "$folder/expected" "$folder/seen"
