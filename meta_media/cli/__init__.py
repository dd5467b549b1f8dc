"""
The command line, `meta-media`: the SDK's verbs, a check without a network, an emulator, and a demonstration of them all.

```
app        the commands, and from their arguments to an exit status
transfers  upload, download, delete: of one, and of many
media      info, send
check      would WhatsApp take these files?
serve      the emulator, until it is told to stop
demo       the whole round trip, against an emulator
neighbour  that emulator, as a process of its own
options    the options that commands share
lists      what to work on: arguments, folders, lists
many       outcomes as they are told, one after the other
summaries  and all together
output     results, errors and tables
bars       progress, for a terminal
running    signals; exit statuses
```

Results go to standard output, everything else to standard error. The exit status is 0, 1 when something failed, 2 for wrong
usage, and 130 after Ctrl-C.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRAS = frozenset({"cyclopts", "python_multipart", "rich", "starlette", "uvicorn"})


def main() -> int:
    """Run the command that this process was started with, and return its exit status."""
    try:
        from meta_media.cli.app import run

        return run(sys.argv[1:])
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRAS:
            raise
        sys.stderr.write('meta-media: the command line needs more packages: pip install "meta-media[cli]"\n')
        return 2
    except KeyboardInterrupt:  # so early that nothing has begun
        return 130
