"""Score the nights that are due: `python -m jobs.nightly --model M --data D/{date} --output
O/date={date}`.

A night of the last --days days is due when its data is there and its predictions are not complete.
So the next run does what was missed or failed: run it as often as you like. Exit codes: 0 every
night that has data is complete; 1 one of them failed, or storage or Pushgateway did; 2 the
configuration is wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NoReturn

from jobs.cli import log_config, run, warn
from jobs.score import Progress
from nrms.errors import NrmsError
from nrms.evaluation.comparison import auc_text
from nrms.nights.config import NightlyConfig, ScoreConfig
from nrms.nights.schedule import look_after, push

logger = logging.getLogger("nrms.nights.schedule")


def main(config: NightlyConfig) -> None:
    """Scores, says how each night stands, here and to the Pushgateway."""
    log_config(config)
    nights = look_after(config, _score)
    for night in nights:
        if night.metrics is not None:
            auc = f"AUC {auc_text(night.metrics)}, " if "auc" in night.metrics else ""
            said = (
                f", {len(night.metrics['warnings'])} warnings"
                if night.metrics.get("warnings")
                else ""
            )
            print(
                f"{night.date}  complete: {auc}{night.metrics['impressions']:,} impressions{said}"
            )
        else:
            print(
                f"{night.date}  "
                f"{'failed: ' + night.error if night.error is not None else 'no data yet'}"
            )
    if all(night.metrics is None and night.error is None for night in nights):
        logger.warning(
            "none of %d nights has data: is --data right? Received: %s", len(nights), config.data
        )
    if config.pushgateway is not None:
        push(nights, config.pushgateway)
    failed = [night for night in nights if night.error is not None]
    if failed:
        dates = ", ".join(night.date for night in failed)
        raise NrmsError(
            f"{len(failed)} of {len(nights)} nights failed: {dates}. First: {failed[0].error}"
        )


def _score(config: ScoreConfig) -> None:
    # Imported only when a night is due: it takes seconds, and most runs find nothing to do.
    from nrms.nights.scoring import score

    warn(score(config, Progress()).metrics or {})


def command(argv: Sequence[str] | None = None, prog: str = "python -m jobs.nightly") -> NoReturn:
    """The job as a command, see `jobs.cli.run`."""
    run(main, NightlyConfig, prog, __doc__, argv)


if __name__ == "__main__":
    command()
