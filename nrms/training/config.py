"""What a training can be told."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nrms.config import (
    LearningRate,
    ModelConfig,
    PositiveFloat,
    PositiveInt,
    Seed,
    Text,
    option,
    required,
)
from nrms.data.config import WarningsConfig
from nrms.tracking import TrackingConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Data"""

    data: Text = required("data set in the Parquet contract: a folder or gs:// URI")
    train_split: Text = option("train", "sub-folder of --data to train on")
    validation_split: Text = option(
        "validation", "sub-folder of --data to validate on, later than the other"
    )
    history_size: PositiveInt = option(50, "clicks of a user that the model sees, the latest ones")
    title_size: PositiveInt = option(30, "words of a title that the model sees, the first ones")
    npratio: PositiveInt = option(
        4, "non-clicked candidates drawn for each click, of the same impression"
    )
    min_word_count: PositiveInt = option(
        1, "occurrences in the training titles that a word needs for an id"
    )
    word_vectors: Path | None = option(
        None, "file of pre-trained word vectors, .vec or .txt as of fastText or GloVe"
    )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Training"""

    output: Text = required("where models and checkpoints go: a folder or gs:// URI")
    lr: LearningRate = option(1e-4, "learning rate of Adam")
    batch_size: PositiveInt = option(64, "samples in a step, over all GPUs; a sample is a click")
    epochs: PositiveInt = option(10, "passes over the training split, at most")
    patience: PositiveInt = option(
        3, "epochs without a better validation AUC before training stops"
    )
    seed: Seed = option(42, "seed of weights, data order and drawn non-clicks")
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = option(
        "float32", "numbers of the computation; weights are float32 in each"
    )
    checkpoint_seconds: PositiveFloat = option(
        300.0, "seconds between two checkpoints inside an epoch"
    )
    promote: Literal["auto", "always", "never"] = option(
        "auto",
        "when latest.json moves to the new version: auto: "
        "where its AUC is above chance, else exit code 3",
    )
    resume: bool = option(False, "go on from the checkpoint in --output")
    init_from: Text | None = option(
        None,
        "model to start from, a version's folder or a model "
        "root: its weights, and the vectors of shared words",
    )
    profile: Path | None = option(None, "folder for a TensorBoard trace of a few steps")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DataConfig, ModelConfig, TrainingConfig, WarningsConfig, TrackingConfig):
    """Everything that a training depends on."""

    @property
    def model_config(self) -> ModelConfig:
        """The part that says how the model is built."""
        return ModelConfig(
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(ModelConfig)}
        )
