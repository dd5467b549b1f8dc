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
from meta_media.cli import check, demo, receive, serve, verbs
from meta_media.cli.log import close_log
from meta_media.cli.output import FAILED, FINE, USAGE, ExitNowError, as_json, described, printable, sentence, status_of
from meta_media.errors import ConfigurationError

__all__ = ["make_app", "run"]

_HELP: Final = """
Upload, look up, download, delete and send media with WhatsApp's Cloud API. Try it without an account: `meta-media demo`.

The access token is read from CLOUD_API_ACCESS_TOKEN, the phone number id from WA_PHONE_NUMBER_ID.
"""
_EPILOGUE: Final = "Exit status: 0 success, 1 something failed, 2 wrong usage, 130 Ctrl-C."
_COMMANDS: Final[tuple[tuple[Callable[..., Any], str, str], ...]] = (  # each with its arguments and an example
    (demo.demo, "[FILE...]", "photo.jpg"),
    (demo.samples, "FOLDER", "."),
    (serve.serve, "", "--webhook http://127.0.0.1:8000/webhook"),
    (receive.receive, "FILE", "photo.jpg --caption hello --twice"),
    (check.check, "FILE...", "photo.jpg report.pdf"),
    (verbs.upload, "FILE...", "--recursive photos --journal run.sqlite"),
    (verbs.info, "ID...", "1045500012345678"),
    (verbs.download, "ID [DESTINATION] | ID... --to FOLDER", "1045500012345678 copy.jpg"),
    (verbs.delete, "ID...", "--from ids.txt --missing-ok"),
    (verbs.send, "ID|FILE --to TO...", "photo.jpg --to +15550001111 --caption hello"),
)
_RESULTS_ARE_IDS: Final = (verbs.upload, verbs.send)  # which are lost if they are not written
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
    for order, (command, arguments, example) in enumerate(_COMMANDS):
        app.command(
            App(
                name=command.__name__,
                usage=" ".join(f"Usage: meta-media {command.__name__} {arguments} [OPTIONS]".split()),
                help_epilogue=f"Example: `meta-media {command.__name__} {example}`\n\n{_EPILOGUE}",
                sort_key=order,
            )
        ).default(command)
    app.register_install_completion_command(
        add_to_startup=False,
        help="Write a completion script for your shell, and print what to do with it. No start-up file is edited.",
    )
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
        words = re.sub(r"^Unused Tokens: \[(.*)\]", r"unexpected argument: \1", words)
        words = re.sub(r"(^|\. )([A-Z])", lambda start: start[1].replace(".", ":") + start[2].lower(), words)  # as ours
        usage = f"{printable(words.removesuffix('.'))} (see meta-media --help)"
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
    except Exception as error:  # a defect; its message may hold a secret, so only the place is printed
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
    if command in _RESULTS_ARE_IDS and sys.__stdout__ is None:
        raise ConfigurationError("standard output is closed, and the ids would be lost: redirect it to a file")
    try:
        result = command(*bound.args, **bound.kwargs)
        return _run_until_signal(result) if inspect.iscoroutine(result) else FINE
    finally:
        close_log()


def _refuse_unknown_options(tokens: Sequence[str], bound: inspect.BoundArguments) -> None:
    """Refuse a mistyped option. cyclopts takes it for a file, because a file may be called "-"."""
    end = tokens.index("--") if "--" in tokens else len(tokens)
    options, files = tokens[:end], tokens[end + 1 :]
    kinds = {name: parameter.kind for name, parameter in bound.signature.parameters.items()}
    values = [value for name, value in bound.arguments.items() if kinds[name] is inspect.Parameter.POSITIONAL_ONLY]
    for name in (os.fspath(file) for value in values for file in (value if isinstance(value, list) else [value])):
        if name.startswith("-") and name != "-" and name not in files:
            # "-rf.txt" is split into "-r", "-f" and so on, and all but the first one arrive here.
            short = [option for option in options if option[:1] == "-" != option[1:2] and name[1:] in option[2:]]
            raise CycloptsError(msg=f'unknown option: "{name if name in options else (short or [name])[0]}"')


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
