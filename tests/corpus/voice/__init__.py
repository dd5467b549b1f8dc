"""Recordings of Opus in WebM, Matroska and MP4 by real programs, and the proof that `repackage` loses nothing of them."""
