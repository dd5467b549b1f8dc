#!/usr/bin/env bash
# What paths of object stores do where any os.PathLike is taken for a local file: open(path), shutil.copy(path, …).
#   - s3path 0.6.5: S3Path is a subclass of pathlib.Path, so os.fspath gives "/bucket/key": a LOCAL file is read or written.
#   - cloudpathlib 0.26.0: os.fspath downloads the object, on the caller's thread. open(path, "wb") succeeds, but only the copy
#     in the local cache is written: the store keeps the old object, and the next read through this path raises.
#   - universal-pathlib 0.3.10: open() raises TypeError at once, because its remote paths have no __fspath__.
# Each path's own .open() does what is meant. Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"; "$folder/env/bin/pip" install -q s3path==0.6.5 cloudpathlib==0.26.0 universal-pathlib==0.3.10
cat >"$folder/try.py" <<'PYTHON'
import os
from pathlib import Path

from cloudpathlib.local import LocalS3Client  # its own stand-in for S3: a folder
from s3path import S3Path
from upath import UPath

print("s3path:", isinstance(S3Path("/bucket/key"), Path), os.fspath(S3Path("/bucket/key")))

path = LocalS3Client().CloudPath("s3://bucket/key")
path.write_bytes(b"old")
print("cloudpathlib, os.fspath holds a copy:", Path(os.fspath(path)).read_bytes())
with open(path, "wb") as file:
    file.write(b"new bytes")
print("cloudpathlib, size in the store:", path.stat().st_size)
try:
    path.read_bytes()
except Exception as error:
    print("cloudpathlib, read:", type(error).__name__)

try:
    open(UPath("memory://key"), "wb")
except TypeError as error:
    print("universal-pathlib:", error)
PYTHON
cat >"$folder/expected" <<'EXPECTED'
s3path: True /bucket/key
cloudpathlib, os.fspath holds a copy: b'old'
cloudpathlib, size in the store: 3
cloudpathlib, read: OverwriteNewerLocalError
universal-pathlib: expected str, bytes or os.PathLike object, not MemoryPath
EXPECTED
"$folder/env/bin/python" "$folder/try.py" | tee "$folder/seen"
diff "$folder/expected" "$folder/seen"
