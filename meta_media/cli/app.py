"""The commands, and the way from their arguments to an exit status."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from cyclopts import App, CycloptsError, Parameter

from meta_media import MediaError, __version__
from meta_media.cli import check, demo, serve, verbs
from meta_media.cli.output import FAILED, FINE, USAGE, ExitNowError, as_json, described, printable, sentence, status_of

__all__ = ["make_app", "run"]

_HELP: Final = """
Upload, look up, download, delete and send media with WhatsApp's Cloud API. Try it without an account: `meta-media demo`.

The access token is read from CLOUD_API_ACCESS_TOKEN, the phone number id from WA_PHONE_NUMBER_ID.
"""
_EPILOGUE: Final = "Exit status: 0 success, 1 something failed, 2 wrong usage, 130 Ctrl-C."
_SIGNALS: Final = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


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
        (verbs.upload, "FILE..."),
        (verbs.info, "ID..."),
        (verbs.download, "ID [DESTINATION] | ID... --to FOLDER"),
        (verbs.delete, "ID..."),
        (verbs.send, "TO... --id ID"),
    )
    for order, (command, arguments) in enumerate(commands):
        usage = " ".join(f"Usage: meta-media {command.__name__} {arguments} [OPTIONS]".split())
        app.command(App(name=command.__name__, usage=usage, sort_key=order)).default(command)
    app.register_install_completion_command(help="Install completion for your shell.")
    return app


def run(tokens: Sequence[str]) -> int:
    """Run one command and return its exit status, also where it fails."""
    _open_missing_streams()
    status = _status(tokens)
    try:
        sys.stdout.flush()
    except OSError:  # reported when it first happened
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
        _discard_output()
        return _failed((), FAILED, f"could not write the results: {error.strerror}", {})
    except ExitNowError as leaving:
        _exit_now(leaving.status)
    except Exception as error:
        # The message may hold a secret, so only the place is printed.
        place = traceback.extract_tb(error.__traceback__)[-1]
        why = f"this is a defect of meta-media: {type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        raise SystemExit(_failed(tokens, FAILED, why, {"type": type(error).__name__, "message": why})) from error


def _exit_now(status: int) -> NoReturn:
    """Exit without waiting for threads."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run(tokens: Sequence[str]) -> int:
    command, bound, _ = make_app().parse_args(list(tokens))
    _refuse_unknown_options(tokens, bound)
    result = command(*bound.args, **bound.kwargs)
    return _run_until_signal(result) if inspect.iscoroutine(result) else FINE


def _refuse_unknown_options(tokens: Sequence[str], bound: inspect.BoundArguments) -> None:
    """Refuse a mistyped option. cyclopts takes it for a file, because a file may be called "-"."""
    options = tokens[: tokens.index("--")] if "--" in tokens else tokens
    kinds = {name: parameter.kind for name, parameter in bound.signature.parameters.items()}
    values = [value for name, value in bound.arguments.items() if kinds[name] is inspect.Parameter.POSITIONAL_ONLY]
    for name in (os.fspath(file) for value in values for file in (value if isinstance(value, list) else [value])):
        if name.startswith("-") and name != "-" and name in options:
            raise CycloptsError(msg=f'Unknown option: "{name}".')


def _run_until_signal(work: Coroutine[Any, Any, int]) -> int:
    """Run a command. The first signal cancels it, so that it cleans up; a second one ends the process."""
    received: list[int] = []
    try:
        return asyncio.run(_cancelled_by_signals(work, received))
    except (asyncio.CancelledError, KeyboardInterrupt):
        sys.stderr.write("meta-media: interrupted\n")
        raise ExitNowError(128 + (received[0] if received else signal.SIGINT)) from None


async def _cancelled_by_signals(work: Coroutine[Any, Any, int], received: list[int]) -> int:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    # A shell or nohup may have set a signal to be ignored. It stays so.
    handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]

    def stop(number: int) -> None:
        received.append(number)
        for each in handled:
            loop.remove_signal_handler(each)
        task.cancel()

    with contextlib.suppress(NotImplementedError):  # Windows, where asyncio itself cancels at Ctrl-C
        for number in handled:
            loop.add_signal_handler(number, stop, number)
    return await task


def _failed(tokens: Sequence[str], status: int, text: str, error: dict[str, Any]) -> int:
    if "--json" in tokens:
        sys.stdout.write(as_json({"error": error}) + "\n")
        sys.stdout.flush()
    sys.stderr.write(f"meta-media: {text}\n")
    return status


def _open_missing_streams() -> None:
    """Open the standard streams that the parent process closed, and make output safe for any encoding."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Send what is still buffered to nowhere: otherwise the interpreter complains at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
