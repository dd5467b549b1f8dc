"""
The command line, `meta-media`: the SDK's verbs, a check without a network, an emulator, and a demonstration of all of them.

```
app       the commands; from arguments to an exit status; signals
verbs     upload, info, download, delete, send
check     would WhatsApp accept these files?
serve     the emulator
receive   a customer, played against `serve`
demo      a round trip of every type, against an emulator in a process of its own; and the samples alone
options   the options that commands share
log       the records of the logger, as lines; and waits that Meta asks for
reporter  outcomes, and their summary
items     arguments, folders, lists
output    results, errors, and bars on a terminal
table     tables on a terminal and elsewhere
```
"""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRAS = frozenset({"cyclopts", "python_multipart", "rich", "starlette", "uvicorn"})


def main() -> int:
    """Run the command in `sys.argv`, and return its exit status."""
    try:
        from meta_media.cli.app import run

        return run(sys.argv[1:])
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRAS:
            raise
        sys.stderr.write("meta-media: the command line needs more packages: pip install '.[cli]' in a checkout\n")
        return 2
    except KeyboardInterrupt:  # during the imports
        return 130
