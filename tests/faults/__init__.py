"""The fault matrix: what goes wrong, what must come of it, and a server that makes it go wrong."""
