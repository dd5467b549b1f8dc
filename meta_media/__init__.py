"""The media endpoints of WhatsApp's Cloud API, for asyncio: upload, look up, stream, verify, delete, send."""

from ._version import __version__
from .api import MediaApi
from .downloads import MediaStream
from .drafts import clean_stale
from .errors import MediaError
from .models import DeletedMedia, DownloadedMedia, InboundMedia, MediaInfo, Progress, SentMessage, UploadedMedia
from .settings import Settings
from .sources import Source
from .webhooks import inbound_media, verify_signature, verify_subscription

__all__ = [
    "DeletedMedia",
    "DownloadedMedia",
    "InboundMedia",
    "MediaApi",
    "MediaError",
    "MediaInfo",
    "MediaStream",
    "Progress",
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
