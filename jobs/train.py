"""Train a recommender: `python -m jobs.train --data DATA --output MODELS`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NoReturn

from jobs.cli import log_config, print_rankings, run, warn
from nrms.config import as_dict
from nrms.errors import NotPromoted
from nrms.evaluation.comparison import auc_text
from nrms.training.config import TrainConfig

logger = logging.getLogger("nrms.train")


def main(config: TrainConfig) -> None:
    """Trains, then prints the metrics beside the baselines', and where the model lies."""
    log_config(config)
    # TensorFlow takes seconds to import, so `--help` and wrong flags must not wait for it.
    from jobs.progress import StopOnSignals, TrainingProgress
    from nrms.training.beside import model_name
    from nrms.training.seeds import spread, train_seeds

    signals = StopOnSignals()
    results = train_seeds(config, signals.stop, [signals, TrainingProgress()])
    result, name = results[config.seed], model_name(as_dict(config))
    rankings = {name: result.metrics}
    if len(results) > 1:
        rankings = {f"{name} {seed}": one.metrics for seed, one in results.items()}
    print_rankings("validation", {**rankings, **result.beside, **result.metrics["baselines"]})
    if len(results) > 1:
        print(f"\n{len(results)} seeds: mean ± standard deviation")
        for metric, (mean, deviation) in spread(rankings.values()).items():
            print(f"{metric:<16}{mean:.4f} ± {deviation:.4f}")
    print(f"\nmodel: {result.model_uri}")
    warn(result.metrics)
    if not result.promoted and config.promote == "auto":
        raise NotPromoted(
            "a model must rank better than chance for latest.json to name it. Received: validation "
            f"AUC {auc_text(result.metrics)}, in {result.model_uri}, which is written; latest.json "
            "stays where it is. See the warnings above, or give --promote always."
        )


def command(argv: Sequence[str] | None = None, prog: str = "python -m jobs.train") -> NoReturn:
    """The job as a command, see `jobs.cli.run`."""
    run(main, TrainConfig, prog, __doc__, argv)


if __name__ == "__main__":
    command()
