"""Measure speed and memory against naive forms of the same work, and models beside each other:
`python -m jobs.bench train`, `score`, `api`, `context` or `models`.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from typing import NoReturn

from jobs.cli import end_with
from nrms.config import parse

# modules of this package, each with `Options` and `run_benchmark`
BENCHMARKS = ("train", "score", "api", "context", "models")


def command(argv: Sequence[str] | None = None, prog: str = "python -m jobs.bench") -> NoReturn:
    """The benchmarks as a command, see `jobs.cli.end_with`."""
    name, *flags = (sys.argv[1:] if argv is None else argv) or [""]
    if name not in BENCHMARKS:
        usage = f"usage: {prog} {{{','.join(BENCHMARKS)}}} [--help]"
        if name in ("-h", "--help"):
            print(usage)
            sys.exit(0)
        print(f"error: {usage}", file=sys.stderr)
        sys.exit(2)

    def main() -> None:
        """Measures, prints, and writes the figures to `--json`."""
        benchmark = importlib.import_module(f"jobs.bench.{name}")
        options = parse(benchmark.Options, flags, f"{prog} {name}", benchmark.__doc__ or "")
        rows = benchmark.run_benchmark(options)
        if options.json is not None:
            options.json.write_text(json.dumps(rows, indent=2) + "\n")

    end_with(main)


if __name__ == "__main__":
    command()
