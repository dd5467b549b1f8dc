"""The command `serve`: the emulator, until SIGINT or SIGTERM, with its data on disk."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from meta_media import MediaError, Settings
from meta_media.cli.options import REPORT, Report
from meta_media.cli.output import Output, printable, sentence
from meta_media.errors import ConfigurationError
from meta_media.transfer.threads import run_in_thread

if TYPE_CHECKING:
    from meta_media.emulator import Emulator, PlannedFault

__all__ = ["serve"]

_TRUST: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")  # of OpenSSL and Python, requests, Node
_PAUSES: Final = (0.5, 1, 2, 5, 10, 30)  # seconds between two handshakes


def _data_folder() -> Path:
    """Return the folder for a program's data, by the custom of the operating system."""
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
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = 4004,
    data: Path | None = None,
    faults: Path | None = None,
    webhook: str | None = None,
    verify_token: str | None = None,
    fail_delivery: int | None = None,
    tls: bool = False,
    url: str | None = None,
    provider: Literal["meta", "360dialog"] = "meta",
    report: Report = REPORT,
) -> int:
    """
    Run the emulator of WhatsApp's media endpoints, until Ctrl-C. Number, token and media survive a restart.

    Its page, at the address that is printed, shows what is stored and what happens.

    Args:
        host: Address to listen on. Any but a loopback address can be reached from other machines.
        port: Port to listen on. 0 takes a free one. Default: 4004.
        data: Folder for the data. Default: one in your user account, which is printed.
        faults: TOML file of faults to inject, with one table [[fault]] for each.
        webhook: URL of your application. Its handshake is done first; signed webhooks are posted to it when `meta-media
            receive` plays a customer, and about each message that you send: sent, delivered, read.
        verify_token: Token of the handshake. Default: one that is made and printed.
        fail_delivery: Meta's code, such as 131053, with which each message that you send fails.
        tls: Speak https, with a certificate that is made for it. What a client must trust is printed, too.
        url: Public name that download URLs have, such as https://graph.facebook.com. It must lead to the address.
        provider: The API to emulate: Meta's own, or 360dialog's with its header, paths and limits.
        report: How to print. Requests and webhooks are lines on standard error, unless --quiet.
    """
    output = replace(report, verbose=report.verbose or not report.quiet).output()
    folder = data or _data_folder()
    planned = [] if faults is None else await run_in_thread(_read_faults, faults)
    if not _is_loopback(host):
        await output.remark(f"warning: listening on {printable(host)}, other machines can reach this emulator")
    from meta_media.emulator import Emulator, EmulatorSettings

    names: dict[str, Any] = {"webhook": webhook, "verify_token": verify_token, "url": url}
    names["settings"] = EmulatorSettings(provider=provider)
    async with Emulator(folder, host=host, port=port, tls=tls, **names) as emulator:
        emulator.plan(planned)
        if fail_delivery is not None:
            emulator.fail_delivery(fail_delivery, times=None)
        if planned:
            await output.remark(f"faults planned: {len(planned)}")
        await _announce(output, folder, emulator)
        verifying = None if webhook is None else asyncio.create_task(_verify(output, emulator))
        await emulator.serve_forever()
        if verifying is not None:
            verifying.cancel()
    if sys.stderr.isatty():
        await output.remark("\nstopped")
    return output.status


async def _verify(output: Output, emulator: Emulator) -> None:
    """Do the handshake until it succeeds, because an application may start later. A sentence is printed once."""
    said = ""
    for pause in itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1])):
        try:
            await emulator.verify_webhook()
        except MediaError as error:
            if said != (said := sentence(error)):
                await output.remark(f"{said}; the handshake is tried again")
            await asyncio.sleep(pause)
        else:
            await output.remark("the webhook has answered the handshake")
            return


def _read_faults(file: Path) -> list[PlannedFault]:
    from meta_media.emulator import read_faults

    try:
        return read_faults(file)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{printable(str(file))} cannot be used as a file of faults: {why}") from error


async def _announce(output: Output, folder: Path, emulator: Emulator) -> None:
    facts = {
        "WA_BASE_URL": emulator.base_url,
        "WA_PHONE_NUMBER_ID": emulator.phone_number_id,
        "CLOUD_API_ACCESS_TOKEN": emulator.access_token,
        "WA_APP_SECRET": emulator.app_secret,
        "WA_APP_ID": emulator.app_id,
    }
    if emulator.webhook is not None:
        facts["WEBHOOK_VERIFICATION_TOKEN"] = emulator.verify_token
    if emulator.ca_file is not None:
        facts |= dict.fromkeys(_TRUST, str(emulator.ca_file))
    elsewhere = emulator.base_url != emulator.local_url
    where = f"# It listens on {emulator.local_url}, and {emulator.base_url} must lead there.\n" * elsewhere
    version = Settings(base_url=emulator.base_url).api_version
    auth, target = "Authorization: Bearer $CLOUD_API_ACCESS_TOKEN", f"$WA_BASE_URL/{version}/$WA_PHONE_NUMBER_ID/media"
    upload = "meta-media samples . && meta-media upload photo.jpg"
    if emulator.settings.provider == "360dialog":
        facts["D360_API_KEY"] = emulator.access_token
        auth, target = "D360-API-KEY: $D360_API_KEY", "$WA_BASE_URL/media"
        upload = 'MediaApi(settings=Settings.for_360dialog(api_key=os.environ["D360_API_KEY"], base_url=…))'
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in facts.items())
    text = f"""\
# This is an emulator, not WhatsApp: nothing leaves this machine.
# Its data is kept in {printable(str(folder))}
# Its page shows what is stored and what happens, and plays customers: {emulator.local_url}/
{where}{exports}
# Paste these lines into another terminal. Then upload a file with or without the SDK:
#   {upload}
#   printf hello | curl -H "{auth}" -F messaging_product=whatsapp \
-F 'file=@-;type=text/plain;filename=hello.txt' "{target}"
# Ctrl-C ends it."""
    await output.result(exports if output.quiet else text, {**facts, "data": str(folder)})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
