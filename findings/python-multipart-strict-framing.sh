#!/usr/bin/env bash
# python-multipart 0.0.34 (the form parser of Starlette and FastAPI) rejects multipart bodies that RFC 2046 allows.
#   - a preamble before the first delimiter (RFC 2046, 5.1.1: "is to be ignored")         -> MultipartParseError
#   - blanks after a delimiter (RFC 2046, 5.1.1: transport-padding, "MUST" be accepted)   -> MultipartParseError
#   - a folded part header (RFC 5322, 2.2.3; obsolete in HTTP, legal in MIME)             -> MultipartParseError
#   - a part with 9 headers: its default limit is 8                                       -> MultipartParseError
# An empty line before the first delimiter and an epilogue are accepted.
# Output seen: see EXPECTED below. A server on it refuses forms that other servers take.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"; "$folder/env/bin/pip" install -q python-multipart==0.0.34
cat >"$folder/try.py" <<'PYTHON'
import logging
from python_multipart.multipart import MultipartParser

logging.disable()
FORM = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n'

def verdict(body: bytes) -> str:
    parser = MultipartParser(b"b")
    try:
        parser.write(body)
        parser.finalize()
    except Exception as error:
        return type(error).__name__
    return "accepted"

extra = b"".join(b"X-%d: 1\r\n" % number for number in range(8))
print("plain:", verdict(FORM))
print("empty line first:", verdict(b"\r\n" + FORM))
print("epilogue:", verdict(FORM + b"the end"))
print("preamble:", verdict(b"A form follows.\r\n" + FORM))
print("padding after the delimiter:", verdict(FORM.replace(b"--b\r\nC", b"--b \r\nC")))
print("folded header:", verdict(FORM.replace(b"form-data; ", b"form-data;\r\n ")))
print("nine headers:", verdict(FORM.replace(b"\r\n\r\n", b"\r\n" + extra + b"\r\n", 1)))
PYTHON
cat >"$folder/expected" <<'EXPECTED'
plain: accepted
empty line first: accepted
epilogue: accepted
preamble: MultipartParseError
padding after the delimiter: MultipartParseError
folded header: MultipartParseError
nine headers: MultipartParseError
EXPECTED
"$folder/env/bin/python" "$folder/try.py" | tee "$folder/seen"
diff "$folder/expected" "$folder/seen"
