"""Compare two predictions of the same impressions: `python -m jobs.compare A B --output O`.

A and B are folders of jobs.score. For each metric it gives B less A, the 95% interval of the
difference and p, over all impressions and by slice. The same command again shows what it wrote.
Exit codes: 0 done; 1 A and B are not of the same impressions with clicks, or cannot be read; 2 the
configuration is wrong, or --output holds something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jobs.cli import log_config, run
from nrms.evaluation.paired import p_text, span_text
from nrms.evaluation.ranking import METRICS
from nrms.evaluation.slices import SLICES
from nrms.nights.config import CompareConfig


def main(config: CompareConfig) -> None:
    """Compares, then prints the differences: of all metrics over all impressions, and of the AUC by
    slice.
    """
    log_config(config)
    from nrms.nights.compare import compare

    done = compare(config)
    found = done.metrics
    print(f"A: {found['a']}\nB: {found['b']}\n{found['measured']:,} impressions")
    print_differences("", {name: found[name] for name in METRICS})
    for name, part in SLICES.items():
        if groups := found.get(f"by_{name}"):
            shown = {part.shown(group): metrics["auc"] for group, metrics in groups.items()}
            counts = [metrics["impressions"] for metrics in groups.values()]
            print_differences(f"auc by {part.title}", shown, counts)
    print(f"\ncomparison: {done.output}" + ("" if done.is_new else ", complete already"))


def print_differences(
    title: str, rows: Mapping[str, Mapping[str, Any]], counts: Sequence[int] | None = None
) -> None:
    """Prints a table of differences, with the impressions of each row where they are given."""
    head = f"{'A':>10}{'B':>10}{'B less A':>12}    {'95% interval':<18}{'p':>8}"
    print(f"\n{title:<34}{head}" + ("" if counts is None else "   impressions"))
    for place, (name, found) in enumerate(rows.items()):
        means = f"{found['a']:>10.4f}{found['b']:>10.4f}{found['difference']:>+12.4f}"
        count = "" if counts is None else f"{counts[place]:>14,}"
        print(f"{name:<34}{means}    {span_text(found):<18}{p_text(found):>8}{count}".rstrip())


def command(argv: Sequence[str] | None = None, prog: str = "python -m jobs.compare") -> NoReturn:
    """The job as a command, see `jobs.cli.run`."""
    run(main, CompareConfig, prog, __doc__, argv)


if __name__ == "__main__":
    command()
