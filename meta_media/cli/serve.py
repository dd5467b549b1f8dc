"""The command `serve`: the emulator, until SIGINT or SIGTERM, with its data on disk."""

from __future__ import annotations

import ipaddress
import os
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import anyio.to_thread
from cyclopts import Parameter
from cyclopts.validators import Number

from meta_media.cli.options import Report
from meta_media.cli.output import Output, printable
from meta_media.errors import ConfigurationError, StorageError
from meta_media.protocol.settings import Settings

if TYPE_CHECKING:
    from meta_media.emulator import PlannedFault

__all__ = ["data_folder", "serve"]

_PORT: Final = 4004
_REPORT = Report()


def data_folder() -> Path:
    """Return where this user's programs keep their data, by the custom of the operating system."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "meta-media" / "emulator"


async def serve(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = _PORT,
    data: Path | None = None,
    faults: Path | None = None,
    report: Report = _REPORT,
) -> int:
    """
    Run the emulator of WhatsApp's media endpoints, until Ctrl-C. Number, token and media survive a restart.

    Args:
        host: Where to listen. Anything but a loopback address lets other machines in.
        port: Which port to listen on; 0 for a free one.
        data: The folder for its data. Default: a folder of your user account's, which is printed.
        faults: A TOML file of what is to go wrong, with a table [[fault]] for each.
        report: How to say it.
    """
    from meta_media.emulator import Emulator

    output = report.output()
    folder = data or data_folder()
    planned = [] if faults is None else await _faults_of(faults)
    if not _is_loopback(host):
        await output.remark(f"warning: listening on {printable(host)}, other machines can reach this emulator")
    try:
        async with Emulator(folder, host=host, port=port) as emulator:
            emulator.plan(planned)
            if planned:
                await output.remark(f"faults planned: {len(planned)}")
            await _announce(output, folder, emulator.base_url, emulator.phone_number_id, emulator.access_token)
            await emulator.serve_forever()
        if sys.stderr.isatty():
            await output.remark("\nstopped")
    except OSError as error:
        doing = f"listen on {host}, port {port}" if error.filename is None else f"keep data in {os.fspath(folder)!r}"
        why = error.strerror or str(error)
        raise StorageError(f"the emulator could not {doing}: {why}", errno=error.errno) from error
    except (RuntimeError, sqlite3.Error) as error:
        raise StorageError(f"the emulator could not keep data in {os.fspath(folder)!r}: {error}") from error
    return output.status


async def _faults_of(file: Path) -> list[PlannedFault]:
    from meta_media.emulator import read_faults

    try:
        return await anyio.to_thread.run_sync(read_faults, file)
    except (OSError, ValueError) as error:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"{printable(str(file))} cannot be used as a file of faults: {why}") from error


async def _announce(output: Output, folder: Path, base_url: str, phone_number_id: str, access_token: str) -> None:
    facts = {"WA_BASE_URL": base_url, "WA_PHONE_NUMBER_ID": phone_number_id, "CLOUD_API_ACCESS_TOKEN": access_token}
    endpoint = f'"$WA_BASE_URL/{Settings(base_url=base_url).api_version}/$WA_PHONE_NUMBER_ID/media"'
    curl = (
        'printf hello | curl -H "Authorization: Bearer $CLOUD_API_ACCESS_TOKEN" -F messaging_product=whatsapp'
        f" -F 'file=@-;type=text/plain;filename=hello.txt' {endpoint}"
    )
    lines = [
        "# This is an emulator, not WhatsApp: nothing leaves this machine.",
        f"# Its data is kept in {printable(str(folder))}",
        *(f"export {name}={value}" for name, value in facts.items()),
        "# Paste these lines into another terminal; then, with or without the SDK:",
        "#   meta-media upload photo.jpg",
        f"#   {curl}",
        "# Ctrl-C ends it.",
    ]
    await output.result("\n".join(lines), {**facts, "data": str(folder)})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
