"""`python -m benchmarks OUTPUT_FOLDER`: measure meta_media beside other libraries, or beside another build of itself."""

from __future__ import annotations

import argparse
import importlib.util
import runpy
import signal
import sys
from pathlib import Path

from .plan import LOOPS, cases, narrowed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("output", type=Path, metavar="OUTPUT_FOLDER", help="receives results.md and results.json")
    parser.add_argument("--rounds", type=int, help="measurements of each contender (default 5)")
    parser.add_argument("--only", action="append", metavar="CASE", help="a case, or the beginning of case names")
    parser.add_argument("--beside", action="append", metavar="LIBRARY", help="a contender, or the beginning of names")
    parser.add_argument(
        "--against",
        metavar="BUILD",
        help="a commit, or a folder with a meta_media package: measure it, too, and other libraries only with --beside",
    )
    parser.add_argument("--loop", action="append", choices=LOOPS, help="an event loop (default asyncio)")
    parser.add_argument("--quick", action="store_true", help="one small round, to see that everything runs")
    return parser


def main() -> None:
    """Read the command line, run the cases, write the report."""
    if not sys.platform.startswith("linux"):
        sys.exit("The benchmarks read processor time and memory from /proc, so they run on Linux only.")
    parser = _parser()
    options = parser.parse_args()
    every = cases(quick=options.quick)
    chosen = [case for case in every if not options.only or case.name.startswith(tuple(options.only))]
    if not chosen:
        parser.error(f"no such case; the cases are {', '.join(case.name for case in every)}")
    loops = options.loop or LOOPS[:1]
    rounds = options.rounds if options.rounds is not None else (1 if options.quick else 5)
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    if missing := [name for name in ("psutil", "trustme", *loops) if importlib.util.find_spec(name) is None]:
        sys.exit(f"{' and '.join(missing)} missing; install them with: pip install -e '.[bench]'")
    from .processes import ProcessError, build_of
    from .report import write
    from .rounds import run

    options.output.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that the servers end, too
    try:
        with build_of(options.against) as build:
            beside = options.beside or ([] if build else None)
            results = run([narrowed(case, beside, build, loop) for loop in loops for case in chosen], rounds)
    except ProcessError as error:
        sys.exit(f"The benchmarks did not run: {error}.")
    print(write(results, options.output, quick=options.quick))
    failed = sorted({row.entry.name for row in results.rows if row.errors})
    sys.exit(f"some contenders failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in {"storm", "soak"}:
        runpy.run_module(f"benchmarks.{sys.argv.pop(1)}", run_name="__main__", alter_sys=True)
    else:
        main()
