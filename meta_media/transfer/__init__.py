"""Bytes in and out: sources, upload, download, resume, destinations, threads, progress."""
