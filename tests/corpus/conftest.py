"""What makes the files is no test: it needs libraries that only the corpus installs."""

from __future__ import annotations

collect_ignore_glob = ["makers/*"]
