"""Upload once, reuse the media id: entries, stores, and the same verbs as tasks of a queue."""
