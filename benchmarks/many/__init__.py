"""Many files: runs of a hundred thousand items, judged by what the emulator has seen; and what a run costs for each of them."""
