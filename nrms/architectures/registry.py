"""The models that `--model` can name.

What a command line must know of them is here, without Keras, which takes seconds to import.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Sampler = Literal["clicks", "lists"]

DEFAULT = "nrms"  # of --model


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What a model can be told: the base of each model's own group, whose docstring is its title in
    `--help`.

    Attributes:
        free: fields that may differ between a model and the one that it starts from (--init-from):
            no weight's shape depends on them.
    """

    free: ClassVar[frozenset[str]] = frozenset()


@dataclass(frozen=True, eq=False)
class Architecture:
    """A model as it was registered.

    Attributes:
        name: what `--model` calls it.
        config_class: its own flags.
        sampler: what a training sample is: `clicks`, one click and the non-clicks drawn for it;
            `lists`, an impression.
        defaults: of flags that all models share, where this model's are others.
    """

    name: str
    config_class: type[ModelConfig]
    sampler: Sampler
    defaults: Mapping[str, Any]
    _build: Callable[..., Any] | str
    _inputs: Callable[..., Any] | str

    @property
    def build(self) -> Callable[..., Any]:
        """Makes the Keras model, see `nrms.models.registry.build_model`; imports its module."""
        return _found(self._build)

    @property
    def inputs(self) -> Callable[..., Any]:
        """What the model reads, `nrms.features.inputs.Inputs` that are not fitted, of the
        configuration of a training.
        """
        return _found(self._inputs)


def _found(function: Callable[..., Any] | str) -> Callable[..., Any]:
    if not isinstance(function, str):
        return function
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)


_ARCHITECTURES: dict[str, Architecture] = {}


def register(
    name: str,
    config_class: type[ModelConfig],
    build: Callable[..., Any] | str,
    *,
    inputs: Callable[..., Any] | str = "nrms.features.title:titles_and_histories",
    sampler: Sampler = "clicks",
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Makes a model known: `--model`, `--help`, trainings and their bundles then have it.

    Args:
        name: what `--model` calls it.
        config_class: a frozen dataclass of its own, derived from `ModelConfig`.
        build: see `nrms.models.registry.build_model`; or where it is, as `module:function`, so that
            Keras is imported when a model is built and not before.
        inputs: see `Architecture.inputs`; or where that is.
        sampler: see `Architecture`.
        defaults: see `Architecture`, by the names of the fields.

    Raises:
        ValueError: another model has this name or this class.
    """
    if not (dataclasses.is_dataclass(config_class) and issubclass(config_class, ModelConfig)):
        raise ValueError(f"a model's options must be a dataclass of ModelConfig: {config_class}")
    for other in _ARCHITECTURES.values():
        if (other.name == name) != (other.config_class is config_class):
            raise ValueError(
                f"a model must have a name and a class of options of its own. Received: {name} and "
                f"{config_class.__name__}; {other.name} has {other.config_class.__name__}."
            )
    _ARCHITECTURES[name] = Architecture(
        name, config_class, sampler, dict(defaults or {}), build, inputs
    )


def architectures() -> dict[str, Architecture]:
    """All that are registered, by name."""
    return dict(_ARCHITECTURES)


def architecture_of(config: ModelConfig) -> Architecture:
    """The one whose options these are."""
    return next(one for one in _ARCHITECTURES.values() if one.config_class is type(config))
