"""Measure speed and memory against naive forms of the same work: `python -m jobs.bench train`, `score` or `api`."""

from __future__ import annotations

import importlib
import json
import sys

from jobs.cli import run, set_up_process

BENCHMARKS = ("train", "score", "api")  # modules of this package, each with `Options` and `run_benchmark`

if __name__ == "__main__":
    name, *flags = sys.argv[1:] or [""]
    if name not in BENCHMARKS:
        print(f"error: usage: python -m jobs.bench {{{','.join(BENCHMARKS)}}} [--help]", file=sys.stderr)
        sys.exit(2)
    set_up_process()
    benchmark = importlib.import_module(f"jobs.bench.{name}")

    def main(options: benchmark.Options) -> None:
        """Measures, prints, and writes the figures to `--json`."""
        rows = benchmark.run_benchmark(options)
        if options.json is not None:
            options.json.write_text(json.dumps(rows, indent=2) + "\n")

    run(main, benchmark.Options, prog=f"python -m jobs.bench {name}", description=__doc__, argv=flags)
