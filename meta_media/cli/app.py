"""The commands, and the way from their arguments to an exit status."""

from __future__ import annotations

import inspect
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError, Parameter

from meta_media._version import __version__
from meta_media.cli import check, demo, media, serve, transfers
from meta_media.cli.output import as_json, described, printable, sentence, status_of
from meta_media.cli.running import (
    FAILED,
    FINE,
    USAGE,
    InterruptedBySignalError,
    LeftReadingError,
    run_until_signal,
)
from meta_media.errors import MediaError

__all__ = ["make_app", "run"]

_HELP = """
Upload, look up, download, delete and send media with WhatsApp's Cloud API; or try all of that without an account.

Token and number are read from CLOUD_API_ACCESS_TOKEN and WA_PHONE_NUMBER_ID. Begin with `meta-media demo`.
"""
_EPILOGUE = "Exit status: 0 fine, 1 something failed, 2 wrong usage, 130 after Ctrl-C."


def make_app() -> App:
    """Assemble the commands."""
    app = App(
        name="meta-media",
        help=_HELP,
        help_epilogue=_EPILOGUE,
        version=f"meta-media {__version__}",
        default_parameter=Parameter(show_default=False, json_list=False, json_dict=False),
        exit_on_error=False,
        print_error=False,
    )
    commands: tuple[tuple[Callable[..., Any], str], ...] = (
        (demo.demo, "[FILE...]"),
        (serve.serve, ""),
        (check.check, "FILE..."),
        (transfers.upload, "FILE..."),
        (media.info, "ID..."),
        (transfers.download, "ID [DESTINATION] | ID... --to FOLDER"),
        (transfers.delete, "ID..."),
        (media.send, "TO... --id ID"),
    )
    for order, (command, arguments) in enumerate(commands):
        usage = f"Usage: meta-media {command.__name__} {arguments} [OPTIONS]"
        app.command(App(name=command.__name__, usage=usage, sort_key=order)).default(command)
    app.register_install_completion_command(help="Install completion for your shell.")
    return app


def run(tokens: Sequence[str]) -> int:
    """Run one command to its exit status, whatever happens."""
    _open_missing_streams()
    status = _status(tokens)
    try:
        sys.stdout.flush()
    except OSError:  # what belongs to that was said when it was first tried
        _discard_output()
        return status or FAILED
    return status


def _status(tokens: Sequence[str]) -> int:
    try:
        return _run(tokens)
    except CycloptsError as error:
        words = re.sub(r"(--[\w-]+)=[^\s\"]+", r"\1", " ".join(str(error).split()))  # the value may be a token
        usage = f"{printable(words)} See meta-media --help."
        return _failed(tokens, USAGE, usage, {"type": "UsageError", "message": usage})
    except MediaError as error:
        return _failed(tokens, status_of(error), sentence(error), described(error))
    except BrokenPipeError:
        _discard_output()
        return FAILED
    except OSError as error:
        why = f"could not write the results: {error.strerror}"
        _discard_output()
        return _failed((), FAILED, why, {})
    except InterruptedBySignalError as interrupted:
        sys.stderr.write("meta-media: interrupted\n")
        sys.stderr.flush()
        # A thread may be reading a terminal that stays silent, and leaving the usual way would wait for it.
        os._exit(interrupted.status)
    except LeftReadingError as left:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(left.status)  # likewise
    except Exception as error:
        # Its message may hold anything, even a secret, so only its place is told.
        place = traceback.extract_tb(error.__traceback__)[-1]
        why = f"this is a defect of meta-media: {type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        raise SystemExit(_failed(tokens, FAILED, why, {"type": type(error).__name__, "message": why})) from error


def _run(tokens: Sequence[str]) -> int:
    command, bound, _ = make_app().parse_args(list(tokens))
    _refuse_unknown_options(tokens, bound)
    result = command(*bound.args, **bound.kwargs)
    return run_until_signal(result) if inspect.iscoroutine(result) else FINE


def _refuse_unknown_options(tokens: Sequence[str], bound: inspect.BoundArguments) -> None:
    """A file may be called "-", which is why cyclopts lets every hyphen pass; but not before "--"."""
    options = tokens[: tokens.index("--")] if "--" in tokens else tokens
    kinds = {name: parameter.kind for name, parameter in bound.signature.parameters.items()}
    values = [value for name, value in bound.arguments.items() if kinds[name] is inspect.Parameter.POSITIONAL_ONLY]
    for name in (os.fspath(file) for value in values for file in (value if isinstance(value, list) else [value])):
        if name.startswith("-") and name != "-" and name in options:
            raise CycloptsError(msg=f'Unknown option: "{name}".')


def _failed(tokens: Sequence[str], status: int, text: str, error: dict[str, Any]) -> int:
    if "--json" in tokens:
        sys.stdout.write(as_json({"error": error}) + "\n")
        sys.stdout.flush()
    sys.stderr.write(f"meta-media: {text}\n")
    return status


def _open_missing_streams() -> None:
    """Make sure of three streams that can be written to: a parent may have closed them, or chosen ASCII."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Nobody reads any more: let the interpreter's last flush go nowhere instead of complaining."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
