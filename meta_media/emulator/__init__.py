"""
An emulator of WhatsApp Cloud API's media endpoints, on a real socket, with its data on disk.

```
emulator  Emulator: the public face; starts and stops everything
server    the socket: uvicorn in the caller's event loop
app       the routes, who may do what, and what every request and reply has in common
upload    POST /{version}/{phone}/media: a streamed form, read no further than needed
download  the signed URLs and the bytes behind them
messages  POST /{version}/{phone}/messages: what is checked before a message is accepted
inbound   media that "a customer sent", and the signed webhook about it
replies   every refusal and its text, in one table
faults    what may go wrong: the description of a fault
schedule  when it does: the queue of the faults that have not happened yet
fault_file both, read from TOML
misbehave acting a fault out: byte by byte, below ASGI
checks    validators that refuse in a sentence
accounts  phone numbers and access tokens
incoming  a file that is arriving: written and hashed off the event loop
store     metadata in SQLite, bytes in files named by us
settings  a switch for each thing nobody outside Meta knows, and the clock
```
"""

from __future__ import annotations

from meta_media.emulator.emulator import Emulator
from meta_media.emulator.fault_file import read_faults
from meta_media.emulator.fault_queue import PlannedFault
from meta_media.emulator.faults import Fault
from meta_media.emulator.settings import Clock, EmulatorSettings

__all__ = ["Clock", "Emulator", "EmulatorSettings", "Fault", "PlannedFault", "read_faults"]
