"""Train a recommender: `python -m jobs.train --data DATA --output MODELS`."""

from __future__ import annotations

import signal
import threading

from jobs.cli import run
from nrms.config import TrainConfig


def main(config: TrainConfig) -> None:
    """Trains, then prints the metrics beside the baselines', and where the model lies."""
    # TensorFlow takes seconds to import: not for `--help`, not before the flags are known to be right.
    import keras

    from nrms.training import train

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    result = train(config, stop, [keras.callbacks.ProgbarLogger()])
    names = ("auc", "mrr", "ndcg@5", "ndcg@10")
    rankings = {config.model: result.metrics, **result.metrics.get("baselines", {})}
    print(f"\n{'validation':<14}" + "".join(f"{name:>10}" for name in names))
    for ranking, metrics in rankings.items():
        print(f"{ranking:<14}" + "".join(f"{metrics[name]:>10.4f}" for name in names))
    print(f"\nmodel: {result.model_uri}")


if __name__ == "__main__":
    run(main, TrainConfig, prog="python -m jobs.train", description=__doc__)
