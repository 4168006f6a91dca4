"""Measure speed and memory against naive forms of the same work: `python -m jobs.bench train`,
`score` or `api`.
"""

from __future__ import annotations

import importlib
import json
import sys

from jobs.cli import end_with
from nrms.config import parse

# modules of this package, each with `Options` and `run_benchmark`
BENCHMARKS = ("train", "score", "api")

if __name__ == "__main__":
    name, *flags = sys.argv[1:] or [""]
    if name not in BENCHMARKS:
        print(
            f"error: usage: python -m jobs.bench {{{','.join(BENCHMARKS)}}} [--help]",
            file=sys.stderr,
        )
        sys.exit(2)

    def main() -> None:
        """Measures, prints, and writes the figures to `--json`."""
        benchmark = importlib.import_module(f"jobs.bench.{name}")
        options = parse(benchmark.Options, flags, f"python -m jobs.bench {name}", __doc__)
        rows = benchmark.run_benchmark(options)
        if options.json is not None:
            options.json.write_text(json.dumps(rows, indent=2) + "\n")

    end_with(main)
