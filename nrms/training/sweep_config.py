"""The flags of a search for hyperparameters."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from nrms.config import PositiveInt, option, required
from nrms.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Search"""

    space: Path = required("search space, a YAML file as wandb sweep takes it: configs/sweep.yaml")
    study: Path = option(
        Path("runs/sweep"),
        "local folder of the study and its results; named again, its missing trials are run",
    )
    trials: PositiveInt | None = option(
        None,
        "trials of the study at most, earlier runs' included; not set: run_cap in the space, else "
        "the whole grid",
    )


@dataclass(frozen=True, kw_only=True)
class SweepConfig(SearchConfig, TrainConfig):
    """All flags of a sweep."""

    @property
    def train_config(self) -> TrainConfig:
        """The configuration of the trainings, before a trial's values are put in."""
        own = {f.name for f in dataclasses.fields(SearchConfig)}
        names = [f.name for f in dataclasses.fields(self) if f.name not in own]
        return TrainConfig(**{name: getattr(self, name) for name in names})
