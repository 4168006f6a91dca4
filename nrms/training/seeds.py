"""The same training with several seeds, which shows how much of a difference is luck."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from nrms.evaluation.ranking import METRICS
from nrms.training.config import TrainConfig
from nrms.training.publication import TrainingResult
from nrms.training.run import train


def train_seeds(
    config: TrainConfig,
    stop: threading.Event | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[int, TrainingResult]:
    """Trains with `config.seeds` seeds, from `config.seed` on, one after another, and publishes
    each. `latest.json` may move to the first alone, so that no model goes live because it was lucky
    on the validation split.

    Args:
        config: see `nrms.training.config.TrainConfig`.
        stop: see `nrms.training.run.train`.
        callbacks: see `nrms.training.run.train`.

    Returns:
        The results by seed.

    Raises:
        NrmsError: see `nrms.training.run.train`.
    """
    return {
        seed: train(
            replace(
                config,
                seed=seed,
                seeds=1,
                promote=config.promote if seed == config.seed else "never",
            ),
            stop,
            callbacks,
        )
        for seed in range(config.seed, config.seed + config.seeds)
    }


def spread(metrics: Iterable[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """The mean and the standard deviation of each ranking metric, of at least two trainings."""
    every = list(metrics)
    values = {name: [one[name] for one in every] for name in METRICS}
    return {name: (float(np.mean(of)), float(np.std(of, ddof=1))) for name, of in values.items()}
