"""Upload once, reuse the media id: the library, its entries and its stores."""

from meta_media.library.check_store import check_store
from meta_media.library.entry import LibraryEntry
from meta_media.library.library import MediaLibrary
from meta_media.library.memory_store import MemoryStore
from meta_media.library.redis_store import RedisStore
from meta_media.library.sqlite_store import SQLiteStore
from meta_media.library.store import Store

__all__ = ["LibraryEntry", "MediaLibrary", "MemoryStore", "RedisStore", "SQLiteStore", "Store", "check_store"]
