"""asyncio client for the media of WhatsApp's Cloud API: upload, look up, download, delete and send."""

from meta_media._version import __version__
from meta_media.api import MediaApi
from meta_media.bulk.outcomes import BulkReport, Outcome
from meta_media.bulk.run import BulkRun
from meta_media.errors import MediaError
from meta_media.integrations.storage import ObjectDestination
from meta_media.library import LibraryEntry, MediaLibrary, MemoryStore, RedisStore, SQLiteStore
from meta_media.protocol.handles import UploadHandle
from meta_media.protocol.models import (
    DeletedMedia,
    DownloadedMedia,
    InboundFailure,
    InboundMedia,
    MediaInfo,
    MessageStatus,
    Progress,
    SentMessage,
    UploadedMedia,
    Webhook,
)
from meta_media.protocol.recipient import Recipient
from meta_media.protocol.settings import Settings
from meta_media.protocol.webhooks import inbound_media, parse_webhook, verify_signature, verify_subscription
from meta_media.transfer.atomic_file import clean_stale
from meta_media.transfer.media_stream import MediaStream
from meta_media.transfer.repackaging import repackage
from meta_media.transfer.sources import Source

__all__ = [
    "BulkReport",
    "BulkRun",
    "DeletedMedia",
    "DownloadedMedia",
    "InboundFailure",
    "InboundMedia",
    "LibraryEntry",
    "MediaApi",
    "MediaError",
    "MediaInfo",
    "MediaLibrary",
    "MediaStream",
    "MemoryStore",
    "MessageStatus",
    "ObjectDestination",
    "Outcome",
    "Progress",
    "Recipient",
    "RedisStore",
    "SQLiteStore",
    "SentMessage",
    "Settings",
    "Source",
    "UploadHandle",
    "UploadedMedia",
    "Webhook",
    "__version__",
    "clean_stale",
    "inbound_media",
    "parse_webhook",
    "repackage",
    "verify_signature",
    "verify_subscription",
]
