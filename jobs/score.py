"""Score the impressions of a data set with a trained model: `python -m jobs.score --model M --data
D --output O`.

Running the same command again does what is missing, and nothing where all is done. Exit codes: 0
done; 1 data, storage or model failed, a bad behaviours file among them; 2 the configuration is
wrong, or --output holds something else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import NoReturn

from tqdm import tqdm

from jobs.cli import log_config, print_beyond_accuracy, print_rankings, run, warn
from nrms.nights.config import ScoreConfig

logger = logging.getLogger("nrms.score")


class Progress:
    """A bar on a terminal, elsewhere a line for each behaviours file: impressions, their rate, the
    time left.
    """

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def __call__(self, done: int, total: int) -> None:
        """Moves it; see `nrms.nights.scoring.score`."""
        if self._bar is None:
            self._start = time.monotonic()
            self._bar = tqdm(total=total, unit=" impressions", unit_scale=True, disable=None)
        elif self._bar.disable:
            rate = done / max(1e-9, time.monotonic() - self._start)
            left = (total - done) / max(1e-9, rate)
            logger.info(
                "%s of %s impressions, %s/s, %.0f s left",
                f"{done:,}",
                f"{total:,}",
                f"{rate:,.0f}",
                left,
            )
        else:
            self._bar.update(done - self._bar.n)
        if done == total:
            self._bar.close()


def main(config: ScoreConfig) -> None:
    """Scores, then prints the metrics beside the baselines', and where the predictions lie."""
    log_config(config)
    from nrms.nights.scoring import score

    result = score(config, Progress())
    if result.metrics is None:
        print("complete already, nothing to do")
    else:
        if "auc" in result.metrics:
            rankings = {"model": result.metrics, **result.metrics.get("baselines", {})}
            print_rankings(config.split, rankings)
            print_beyond_accuracy(rankings)
        parts = "part" if result.written == 1 else "parts"
        print(
            f"\n{result.metrics['impressions']:,} impressions, "
            f"{result.written:,} {parts} written now"
        )
    print(f"model: {result.model_uri}")
    print(f"predictions: {result.output}")
    warn(result.metrics or {})


def command(argv: Sequence[str] | None = None, prog: str = "python -m jobs.score") -> NoReturn:
    """The job as a command, see `jobs.cli.run`."""
    run(main, ScoreConfig, prog, __doc__, argv)


if __name__ == "__main__":
    command()
