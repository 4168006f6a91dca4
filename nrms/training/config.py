"""The flags of a training."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from nrms.architectures import DEFAULT, Architecture, ModelConfig, architectures
from nrms.config import (
    Count,
    LearningRate,
    PositiveFloat,
    PositiveInt,
    Seed,
    Share,
    Text,
    Variants,
    option,
    parse_values,
    required,
)
from nrms.data.config import WarningsConfig
from nrms.errors import ConfigError
from nrms.features.context.config import ContextConfig
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
    lr: LearningRate = option(1e-4, "learning rate, the highest one where it changes")
    optimizer: Literal["adam", "adamw"] = option(
        "adam", "what moves the weights; adamw shrinks them as well, see --weight-decay"
    )
    schedule: Literal["constant", "cosine"] = option(
        "constant", "course of the learning rate; cosine: down to 0 at the end of the last epoch"
    )
    warmup: Count = option(0, "steps in which the learning rate rises to --lr, the first ones")
    weight_decay: Share | None = option(
        None,
        "share of each weight that adamw takes away in a step, times the learning rate; not set: "
        "0.01",
    )
    clip_norm: PositiveFloat | None = option(
        None, "norm of a step's gradient over all weights, at most; not set: any"
    )
    label_smoothing: Share = option(
        0.0, "share of the target that is spread evenly over a sample's candidates"
    )
    batch_size: PositiveInt = option(64, "samples in a step, over all GPUs; a sample is a click")
    epochs: PositiveInt = option(10, "passes over the training split, at most")
    patience: PositiveInt = option(
        3, "epochs without a better validation AUC before training stops"
    )
    seed: Seed = option(42, "seed of weights, data order and drawn non-clicks")
    seeds: PositiveInt = option(
        1,
        "trainings with as many seeds, from --seed on; the mean and spread of metrics are printed",
    )
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
    beside: Text | None = option(
        None, "published models, with commas, whose metrics on the same data are printed as well"
    )
    resume: bool = option(False, "go on from the checkpoint in --output")
    init_from: Text | None = option(
        None,
        "model to start from, a version's folder or a model "
        "root: its weights, and the vectors of shared words",
    )
    profile: Path | None = option(None, "folder for a TensorBoard trace of a few steps")


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Model"""

    model: Text = option(DEFAULT, "architecture, which has flags of its own: --model NAME --help")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    DataConfig,
    ModelChoice,
    ModelConfig,
    ContextConfig,
    TrainingConfig,
    WarningsConfig,
    TrackingConfig,
    Variants,
):
    """All flags of a training: those that all models share, and those of the model. For each model
    there is a derived class, and `TrainConfig(model=..., ...)` gives an instance of it.
    """

    choice: ClassVar[str] = "model"
    shared: ClassVar[type]  # set in a model's class: the class without that model's flags

    def __new__(cls, **values: Any) -> Self:
        """An instance of the class for the model that `values` name. Raises ConfigError: there is
        no such model.
        """
        if "shared" in vars(cls):
            return super().__new__(cls)
        name = values.get("model", DEFAULT)
        if name not in architectures():
            raise ConfigError(
                f"--model must be one of {', '.join(architectures())}. Received: {name!r}."
            )
        return cls.variants()[name].__new__(cls.variants()[name])

    def __post_init__(self) -> None:
        if self.context and architectures()[self.model].sampler == "lists":
            raise ConfigError(
                "--context true must be given with a model that scores each candidate alone. "
                f"Received: --model {self.model}, which ranks whole lists. Leave --context out."
            )
        if self.weight_decay is not None and self.optimizer != "adamw":
            raise ConfigError(
                f"--weight-decay must be given with --optimizer adamw. Received: --optimizer "
                f"{self.optimizer}. Leave it out, or give --optimizer adamw."
            )

    def __reduce__(self) -> tuple:
        # A model's class is made at run time, so another process cannot import it by name.
        return _again, (self.shared, type(self.model_config), vars(self))

    @classmethod
    def variants(cls) -> Mapping[str, Any]:
        """The class for each model, by the model's name."""
        shared = vars(cls).get("shared", cls)
        return {name: _of_model(shared, one) for name, one in architectures().items()}

    @property
    def model_config(self) -> ModelConfig:
        """The values of the model's own flags."""
        config_class = architectures()[self.model].config_class
        return config_class(
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(config_class)}
        )


@functools.cache
def _of_model(shared: type[TrainConfig], model: Architecture) -> type[TrainConfig]:
    """The class with a model's own flags, and with its defaults of the shared ones."""
    fields = {f.name: f for f in dataclasses.fields(shared)}
    own = {f.name for f in dataclasses.fields(model.config_class)}
    if own & fields.keys() or not model.defaults.keys() <= fields.keys():
        raise ValueError(
            f"a model must have flags of its own, and defaults of shared ones. Received: "
            f"{model.name}, with the flags {', '.join(sorted(own))} and defaults of "
            f"{', '.join(model.defaults)}."
        )
    types = typing.get_type_hints(shared)
    changed = [
        (name, types[name], dataclasses.field(default=value, metadata=fields[name].metadata))
        for name, value in model.defaults.items()
    ]
    return dataclasses.make_dataclass(
        shared.__name__,
        changed,
        bases=(shared, model.config_class),
        namespace={"shared": shared},
        frozen=True,
        kw_only=True,
    )


def ranker_config(config: TrainConfig) -> TrainConfig:
    """The flags of the ranker above a text model: those of --model context, as they are by default
    or in the file of --context-config; and the shared ones that both have in common.
    """
    name = "context"
    shared = {f.name: getattr(config, f.name) for f in dataclasses.fields(TrainConfig)}
    defaults = {f.name: f.default for f in dataclasses.fields(TrainConfig)}
    apart = {"npratio", "label_smoothing", "word_vectors", "init_from", "context", "profile"}
    values = shared | {each: defaults[each] for each in apart} | {"model": name}
    values |= architectures()[name].defaults
    if config.context_config is not None:
        argv = ["--config", str(config.context_config), "--model", name]
        given = parse_values(TrainConfig, argv, "python -m jobs.train", "", "--context-config")[1]
        own = {f.name for f in dataclasses.fields(architectures()[name].config_class)}
        if config.joint and (shared_ones := given.keys() - own - {"model"}):
            raise ConfigError(
                "--context-config must hold the ranker's own flags alone where both models are "
                f"trained at once. Received: {', '.join(sorted(shared_ones))} in "
                f"{config.context_config}. Leave it out, or give --context-training stages."
            )
        values |= given
    return TrainConfig(**values)


def _again(
    shared: type[TrainConfig], config_class: type[ModelConfig], values: dict[str, Any]
) -> TrainConfig:
    """Builds the configuration in another process. `config_class` is not used, but passing it makes
    that process import its module, which registers the model.
    """
    return shared(**values)
