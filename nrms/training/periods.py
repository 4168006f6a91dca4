"""Which part of the training split each fit of a training takes its samples from."""

from __future__ import annotations

import numpy as np

from nrms.data.split import Split
from nrms.errors import ConfigError
from nrms.training.config import TrainConfig
from nrms.training.samplers import Sampler, Within, sampler_of


class Periods:
    """The samplers of a training's fits.

    The ranker above a text model learns from clicks after those of the text model: on its own
    clicks a text model ranks better than it will later, and the ranker would trust it too much.

    Args:
        config: the flags of the training.
        sampler: makes the samples of the first fit.
    """

    def __init__(self, config: TrainConfig, sampler: Sampler) -> None:
        self._config, self._sampler = config, sampler

    def first(self, split: Split) -> Sampler:
        """The sampler of the first fit. Raises ConfigError: --context-days leaves nothing."""
        since, until = self._bounds(split)
        return self._within(self._sampler, since, until if self._config.staged else None)

    def later(self, split: Split) -> Sampler:
        """The sampler of the second fit."""
        return self._within(sampler_of("lists", 1), self._bounds(split)[1], None)

    def _within(
        self, sampler: Sampler, since: np.datetime64 | None, until: np.datetime64 | None
    ) -> Sampler:
        return sampler if since is None and until is None else Within(sampler, since, until)

    def _bounds(self, split: Split) -> tuple[np.datetime64 | None, np.datetime64 | None]:
        if split.time_range is None:
            return None, None
        start, end = split.time_range
        days = self._config.context_days
        since = start + np.timedelta64(days, "D")
        if since >= end:
            raise ConfigError(
                f"--context-days must leave a part of the training split to train on. Received: "
                f"{days}, of a split from {start} to {end}. Give fewer."
            )
        return since if days else None, since + (end - since) * self._config.text_share
