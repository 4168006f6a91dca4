"""Search for hyperparameters: `python -m jobs.sweep --space configs/sweep.yaml --data DATA --output
MODELS`.

Every flag of jobs.train is one of this job, too: what the trials have in common. The same command
again runs the trials that are missing; a trial that was cut short goes on from its checkpoint. Exit
codes are those of training; a training that fails is a failed trial, and only when all have failed
the sweep has.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from jobs import signals
from jobs.cli import log_config, run, set_up_process
from nrms.errors import Interrupted
from nrms.training.config import TrainConfig
from nrms.training.sweep_config import SweepConfig

if TYPE_CHECKING:
    from nrms.training.run import TrainingResult

logger = logging.getLogger("nrms.training.sweep")

_SHOWN = 10  # trials in the table


def train_trial(config: TrainConfig) -> TrainingResult:
    """The training of one trial, in its process."""
    set_up_process()
    try:
        with signals.raised(quiet=True):
            from jobs.progress import StopOnSignals, TrainingProgress
            from nrms.training.run import train

            on_signals = StopOnSignals()
            return train(config, on_signals.stop, [on_signals, TrainingProgress()])
    except signals.Stopped:
        raise Interrupted("stopped by a signal while it did not train") from None


def main(config: SweepConfig) -> None:
    """Runs the trials, then prints the best of them, and where model and configuration of the best
    one lie.
    """
    log_config(config)
    from nrms.training.sweep import sweep

    trials = sweep(config, train_trial, signals.set_by_signals(threading.Event()))
    names = list(trials[0].values)
    metrics = list(trials[0].metrics)
    print(
        f"{'trial':<8}"
        + "".join(f"{name:>10}" for name in metrics)
        + "".join(f"{name:>14}" for name in names)
    )
    for trial in trials[:_SHOWN]:
        results = (
            "".join(f"{trial.metrics[name]:>10.4f}" for name in metrics)
            if trial.metrics
            else f"{'failed':>40}"
        )
        print(
            f"{trial.number:<8}"
            + results
            + "".join(f"{_shown(trial.values[name]):>14}" for name in names)
        )
    failed = sum(trial.error is not None for trial in trials)
    print(
        f"\n{len(trials)} trials, {failed} of them failed; all are in {config.study / 'trials.csv'}"
    )
    print(f"best model: {trials[0].model_uri}")
    print(f"to train it again: python -m jobs.train --config {config.study / 'best.toml'}")


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def command(argv: Sequence[str] | None = None, prog: str = "python -m jobs.sweep") -> NoReturn:
    """The job as a command, see `jobs.cli.run`."""
    run(main, SweepConfig, prog, __doc__, argv)


if __name__ == "__main__":
    command()
