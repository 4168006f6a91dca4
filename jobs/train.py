"""Train a recommender: `python -m jobs.train --data DATA --output MODELS`."""

from __future__ import annotations

import logging
import signal
import threading

from jobs.cli import print_rankings, run
from nrms.config import TrainConfig, config_lines

logger = logging.getLogger("nrms.train")


def main(config: TrainConfig) -> None:
    """Trains, then prints the metrics beside the baselines', and where the model lies."""
    for line in config_lines(config):
        logger.info("%s", line)
    # TensorFlow takes seconds to import: not for `--help`, not before the flags are known to be right.
    from jobs.progress import TrainingProgress
    from nrms.training import train

    stop = threading.Event()

    def ask_to_stop(number: int, frame: object) -> None:
        logger.info("stopping after this batch with a checkpoint; a second signal stops at once")
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    result = train(config, stop, [TrainingProgress()])
    print_rankings("validation", {config.model: result.metrics, **result.metrics["baselines"]})
    print(f"\nmodel: {result.model_uri}")


if __name__ == "__main__":
    run(main, TrainConfig, prog="python -m jobs.train", description=__doc__)
