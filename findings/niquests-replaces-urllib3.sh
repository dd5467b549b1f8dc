#!/usr/bin/env bash
# pip install niquests 3.21.2 replaces the installed urllib3 by a fork: its dependency urllib3-future writes into site-packages/urllib3.
# pip goes on to list urllib3 2.8.0, and `pip check` finds nothing wrong. requests, boto3 and minio then run on the fork, too.
# To keep both: URLLIB3_NO_OVERRIDE=1 pip install --no-binary urllib3-future niquests (the fork is then the package urllib3_future).
# Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"; "$folder/env/bin/pip" install -q urllib3==2.8.0
show() { "$folder/env/bin/python" -c "
import importlib.metadata, urllib3
print('$1:', 'listed', importlib.metadata.version('urllib3'), 'imported', urllib3.__version__)"; }
{
    show before
    "$folder/env/bin/pip" install -q niquests==3.21.2 urllib3-future==2.25.904
    show after
    "$folder/env/bin/pip" check
} | tee "$folder/seen"
cat >"$folder/expected" <<'EXPECTED'
before: listed 2.8.0 imported 2.8.0
after: listed 2.8.0 imported 2.25.904
No broken requirements found.
EXPECTED
diff "$folder/expected" "$folder/seen"
