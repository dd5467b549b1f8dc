"""The media endpoints of WhatsApp's Cloud API, for asyncio: upload, look up, stream, verify, delete, send."""

from ._version import __version__
from .api import MediaApi
from .bulk import BulkRun
from .downloads import MediaStream
from .drafts import clean_stale
from .entries import LibraryEntry
from .errors import MediaError
from .library import MediaLibrary
from .models import DeletedMedia, DownloadedMedia, InboundMedia, MediaInfo, Progress, SentMessage, UploadedMedia
from .outcomes import BulkReport, Outcome
from .settings import Settings
from .sources import Source
from .stores import MemoryStore, RedisStore, SQLiteStore
from .webhooks import inbound_media, verify_signature, verify_subscription

__all__ = [
    "BulkReport",
    "BulkRun",
    "DeletedMedia",
    "DownloadedMedia",
    "InboundMedia",
    "LibraryEntry",
    "MediaApi",
    "MediaError",
    "MediaInfo",
    "MediaLibrary",
    "MediaStream",
    "MemoryStore",
    "Outcome",
    "Progress",
    "RedisStore",
    "SQLiteStore",
    "SentMessage",
    "Settings",
    "Source",
    "UploadedMedia",
    "__version__",
    "clean_stale",
    "inbound_media",
    "verify_signature",
    "verify_subscription",
]
