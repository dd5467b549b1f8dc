"""`python -m benchmarks.many WORK`: runs over many files, watched and judged, or measured beside what one would write instead."""

from __future__ import annotations

import argparse
import signal
import sys

from . import compared
from .deletes import run as run_deletes
from .uploads import run as run_uploads


def main() -> None:
    """Read the command line, and do it; the exit status is 1 if something was wrong."""
    if not sys.platform.startswith("linux"):
        sys.exit("The benchmarks read processor time and memory from Linux's /proc, so they run on Linux only.")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many", description=__doc__)
    works = parser.add_subparsers(required=True, metavar="WORK")
    deletes = works.add_parser("deletes", help="delete many media; memory, and nothing lost or doubled")
    deletes.add_argument("--items", type=int, default=100_000)
    deletes.add_argument("--concurrency", type=int, default=64)
    deletes.set_defaults(run=lambda it: run_deletes(it.items, it.concurrency))
    uploads = works.add_parser(
        "uploads", help="upload many files while a part of the requests fails; every outcome is judged"
    )
    uploads.add_argument("--items", type=int, default=10_000)
    uploads.add_argument("--size", type=int, default=65_536, help="bytes, on average: each has a length of its own")
    uploads.add_argument("--faults", type=float, default=0.01, help="of the requests meet each kind (default 0.01)")
    uploads.add_argument("--concurrency", type=int, default=64)
    uploads.set_defaults(run=lambda it: run_uploads(it.items, it.size, it.faults, it.concurrency))
    peers = works.add_parser("peers", help="upload_many beside a semaphore over stock httpx, aiohttp and pywa")
    peers.add_argument("--items", type=int, default=2000)
    peers.add_argument("--concurrency", type=int, default=64)
    peers.add_argument("--rounds", type=int, default=5)
    peers.set_defaults(run=lambda it: compared.peers(it.items, it.concurrency, it.rounds))
    overheads = works.add_parser("overheads", help="what a journal and a library add to an item")
    overheads.add_argument("--items", type=int, default=2000)
    overheads.add_argument("--concurrency", type=int, default=64)
    overheads.add_argument("--rounds", type=int, default=5)
    overheads.set_defaults(run=lambda it: compared.overheads(it.items, it.concurrency, it.rounds))
    growth = works.add_parser("growth", help="what an item costs in runs of 1,000, 10,000 and 100,000")
    growth.add_argument("--most", type=int, default=100_000, help="leave out the longer runs")
    growth.add_argument("--concurrency", type=int, default=64)
    growth.add_argument("--rounds", type=int, default=3)
    growth.set_defaults(run=lambda it: compared.growth(max(it.most, 1000), it.concurrency, it.rounds))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that the servers are ended, too
    sys.exit(options.run(options))


if __name__ == "__main__":
    main()
