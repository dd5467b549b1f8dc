"""`python -m benchmarks many OUTPUT_FOLDER`: runs over many items, beside a semaphore, in longer runs, with a journal or library."""

from .__main__ import main

if __name__ == "__main__":
    main("benchmarks many", __doc__, many=True)
