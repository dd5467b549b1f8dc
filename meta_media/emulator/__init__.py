"""
An emulator of WhatsApp Cloud API's media endpoints, on a real socket, with its data on disk.

```
emulator       Emulator: the public face; starts and stops everything
server         the socket: uvicorn in the caller's event loop, and faults acted out on it, byte by byte
tls            the certificate authority of the data folder, and the handshake of a connection
app            the routes, the permissions, and the parts that all requests and responses share
upload         POST /{version}/{phone}/media: a streamed form, read no further than needed
download       the signed URLs and the bytes behind them
customer       a customer who sends media, in this process or from another one
messages       POST /{version}/{phone}/messages
webhooks       the bodies of webhooks: a customer's media in each place, and the statuses of messages
delivery       webhooks on their way to an application: the handshake, posts and repeats
feed           what has happened lately, for the page
page           the page for browsers: its routes, and who may use it
dialog360      360dialog in front of the Graph API
responses      every error response and its text
faults         faults: their fields, their queue, their TOML file
state          tokens and metadata in SQLite, bytes in files
folder         whether a data folder is the emulator's, and its database is whole; what is swept away at the start
arguments      the checks that several arguments share
settings       a switch for each behaviour of Meta's that is unknown, and the clock
pytest_plugin  the fixtures
```

The names below are imported at first use, because the pytest plugin loads this package also where the packages of the extra
`emulator` are missing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from meta_media.emulator.emulator import Emulator
    from meta_media.emulator.faults import Fault, PlannedFault, read_faults
    from meta_media.emulator.settings import Clock, EmulatorSettings

__all__ = ["Clock", "Emulator", "EmulatorSettings", "Fault", "PlannedFault", "read_faults"]

_MODULES: Final = {"Clock": "settings", "Emulator": "emulator", "EmulatorSettings": "settings"}  # the others: faults
_EXTRA: Final = frozenset({"python_multipart", "starlette", "uvicorn"})


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_MODULES.get(name, 'faults')}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise ImportError("meta_media.emulator needs packages: pip install '.[emulator]' in a checkout") from error
    return getattr(module, name)
