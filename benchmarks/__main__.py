"""`python -m benchmarks OUTPUT_FOLDER`: measure meta_media beside other libraries, or beside another checkout of itself."""

from __future__ import annotations

import argparse
import importlib.util
import runpy
import signal
import sys
from pathlib import Path

from .plan import Case, against, cases, many_cases


def _parser(program: str, description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("output", type=Path, metavar="OUTPUT_FOLDER", help="receives results.md and results.json")
    parser.add_argument("--rounds", type=int, help="measurements of each contender (default 5)")
    parser.add_argument("--only", action="append", metavar="NAME", help="a case, or the beginning of case names")
    parser.add_argument("--quick", action="store_true", help="one small round, to see that everything runs")
    return parser


def main(program: str = "benchmarks", description: str | None = __doc__, *, many: bool = False) -> None:
    """Read the command line, run the cases, write the report."""
    if not sys.platform.startswith("linux"):
        sys.exit("The benchmarks read processor time and memory from /proc, so they run on Linux only.")
    parser = _parser(program, description)
    if not many:
        parser.add_argument("--against", metavar="CHECKOUT", help="compare with the meta_media package of this folder")
    options = parser.parse_args()
    every: list[Case] = many_cases(quick=options.quick) if many else cases(quick=options.quick)
    if not many and options.against:
        if not Path(options.against, "meta_media", "__init__.py").is_file():
            parser.error(f"there is no meta_media package in {options.against}")
        every = against(options.against, quick=options.quick)
    chosen = [case for case in every if not options.only or any(map(case.name.startswith, options.only))]
    if not chosen:
        parser.error(f"no such case; the cases are {', '.join(case.name for case in every)}")
    rounds = options.rounds if options.rounds is not None else (1 if options.quick else 5)
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    if missing := [name for name in ("psutil", "trustme") if importlib.util.find_spec(name) is None]:
        sys.exit(f"{' and '.join(missing)} missing; install them with: pip install -e '.[bench]'")
    from .processes import ProcessError
    from .report import write
    from .rounds import run

    options.output.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that the servers end, too
    try:
        results = run(chosen, rounds)
    except ProcessError as error:
        sys.exit(f"The benchmarks did not run: {error}.")
    print(write(results, options.output, quick=options.quick))
    failed = sorted({row.entry.name for row in results.rows if row.errors})
    sys.exit(f"some contenders failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in {"many", "storm", "soak"}:
        runpy.run_module(f"benchmarks.{sys.argv.pop(1)}", run_name="__main__", alter_sys=True)
    else:
        main()
