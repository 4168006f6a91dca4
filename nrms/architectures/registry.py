"""The registry of the models that `--model` can name.

It holds what a command line must know of a model, without Keras, which takes seconds to import.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Sampler = Literal["clicks", "lists"]

DEFAULT = "nrms"  # the default of --model


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The base of each model's own flags. The docstring of a derived class is the title of its
    group in `--help`.

    Attributes:
        free: names of the fields that may differ between a model and the one that it starts from
            (--init-from), because the shapes of weights do not depend on them.
    """

    free: ClassVar[frozenset[str]] = frozenset()


@dataclass(frozen=True, eq=False)
class Architecture:
    """A model as it was registered.

    Attributes:
        name: the value of `--model`.
        config_class: the class of its own flags.
        sampler: what a training sample is: a click and the non-clicks drawn for it (`clicks`), or a
            whole impression (`lists`).
        defaults: values, by field, that replace the defaults of shared flags for this model.
    """

    name: str
    config_class: type[ModelConfig]
    sampler: Sampler
    defaults: Mapping[str, Any]
    _build: Callable[..., Any] | str
    _inputs: Callable[..., Any] | str

    @property
    def build(self) -> Callable[..., Any]:
        """The function of options, fitted inputs and dtype policy that makes the Keras model, see
        `nrms.models.build.build_model`. Reading it imports its module.
        """
        return _found(self._build)

    @property
    def inputs(self) -> Callable[..., Any]:
        """The function of a training's configuration that makes what the model reads,
        `nrms.features.inputs.Inputs` that are not fitted.
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
    """Registers a model, so that it can be trained, saved and loaded by its name.

    Args:
        name: the value of `--model`.
        config_class: a frozen dataclass of its own, derived from `ModelConfig`.
        build: see `Architecture.build`. It may be given as `module:function`, so that Keras is
            imported when a model is built and not before.
        inputs: see `Architecture.inputs`; it may be given as `module:function`, too.
        sampler: see `Architecture`.
        defaults: see `Architecture`.

    Raises:
        ValueError: `config_class` is not such a class, or another model has this name or class.
    """
    if not (dataclasses.is_dataclass(config_class) and issubclass(config_class, ModelConfig)):
        raise ValueError(f"a model's options must be a dataclass of ModelConfig: {config_class}")
    for other in _ARCHITECTURES.values():
        if (other.name == name) != (other.config_class is config_class):
            raise ValueError(
                f"a model must have a name and a class of options of its own. Received: {name} and "
                f"{config_class.__name__}; {other.name} with {other.config_class.__name__} is "
                "registered. Rename one of them."
            )
    _ARCHITECTURES[name] = Architecture(
        name, config_class, sampler, dict(defaults or {}), build, inputs
    )


def architectures() -> dict[str, Architecture]:
    """All registered models, by name."""
    return dict(_ARCHITECTURES)


def architecture_of(config: ModelConfig) -> Architecture:
    """The model whose flags these are. Raises ValueError where none is registered with them."""
    for architecture in _ARCHITECTURES.values():
        if architecture.config_class is type(config):
            return architecture
    raise ValueError(f"a model must be registered with its flags: {type(config).__name__}")
