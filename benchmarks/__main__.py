"""`python -m benchmarks OUTPUT_FOLDER`: measure meta_media and its peers, and write what was found into a folder."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from pathlib import Path

from .plan import Case, cases


def main() -> None:
    """Read the command line, run, report."""
    if not sys.platform.startswith("linux"):
        sys.exit("The benchmarks read processor time and memory from Linux's /proc, so they run on Linux only.")
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "output", type=Path, metavar="OUTPUT_FOLDER", help="where results.json, results.md and plots go"
    )
    parser.add_argument("--rounds", type=int, help="how often each contender is measured (default 5)")
    parser.add_argument("--only", action="append", metavar="NAME", help="a case, or the beginning of some cases' names")
    parser.add_argument("--quick", action="store_true", help="one round, smaller: shows that everything runs")
    options = parser.parse_args()
    chosen = _chosen(cases(quick=options.quick), options.only)
    if not chosen:
        parser.error(f"no such case; there are {', '.join(case.name for case in cases(quick=False))}")
    rounds = options.rounds if options.rounds is not None else (1 if options.quick else 5)
    if rounds < 1:
        parser.error("there is at least one round")
    if missing := [name for name in ("matplotlib", "psutil") if importlib.util.find_spec(name) is None]:
        sys.exit(f"{' and '.join(missing)} missing; the benchmarks need: pip install -e '.[bench]'")
    from .report import write
    from .rounds import run
    from .servers import ServerError

    options.output.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that the servers are ended, too
    try:
        results = run(chosen, rounds)
    except ServerError as error:
        sys.exit(f"The benchmarks did not run: {error}.")
    print(write(results, options.output, quick=options.quick))
    failed = sorted({row.entry.name for row in results.rows if row.errors})
    sys.exit(f"some contenders failed: {', '.join(failed)}" if failed else 0)


def _chosen(every: list[Case], names: list[str] | None) -> list[Case]:
    return [case for case in every if not names or any(case.name.startswith(name) for name in names)]


if __name__ == "__main__":
    main()
