"""Reads search spaces in the file format of `wandb sweep`: which flags vary between trainings, how,
and which metric to maximize.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from nrms.architectures import DEFAULT
from nrms.config import parse_values
from nrms.errors import ConfigError
from nrms.evaluation.ranking import METRICS
from nrms.training.config import TrainConfig

_METHODS = ("grid", "bayes", "random")
_OBJECTIVES = {f"val_{name}": name for name in METRICS}
_NOT_SEARCHED = {
    **dict.fromkeys(("config", "output", "resume"), "is each trial's own and"),
    "model": "is the same in all trials, given as --model, and",
}


@dataclass(frozen=True)
class SearchSpace:
    """The flags that a sweep varies, and how it searches.

    Attributes:
        method: `grid`, `bayes` or `random`.
        metric: the validation metric to maximize, for example `auc`.
        distributions: the distribution of each parameter, in the order of the file. The names are
            fields of `TrainConfig`.
        run_cap: most trials, or None.
    """

    method: str
    metric: str
    distributions: dict[str, BaseDistribution]
    run_cap: int | None

    @classmethod
    def read(cls, path: Path, model: str = DEFAULT) -> Self:
        """Reads the keys that a search needs: method, metric, parameters and run_cap. Other keys
        are for Weights & Biases and ignored.

        Args:
            path: the file.
            model: the model of the trainings, whose flags may be parameters, too.

        Raises:
            ConfigError: the file is missing or not YAML, a key has a wrong value, or a parameter is
                not a flag of `jobs.train`, has a value that the flag refuses, or a form that is not
                supported.
        """
        try:
            content = yaml.safe_load(path.read_text("utf-8"))
        except OSError as error:
            raise ConfigError(
                f"--space must name a file that can be read. Received: {path}: {error.strerror}."
            ) from None
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"--space must name a YAML file. Received: {path}: {error}") from None
        try:
            return cls._of(content, model)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def _of(cls, content: Any, model: str) -> Self:
        if not isinstance(content, dict):
            raise ConfigError(
                f"a search space has keys, method and parameters among them. Received: {content!r}."
            )
        method, cap = content.get("method"), content.get("run_cap")
        if method not in _METHODS:
            raise ConfigError(f"method must be one of {', '.join(_METHODS)}. Received: {method!r}.")
        if cap is not None and (type(cap) is not int or cap < 1):
            raise ConfigError(f"run_cap must be a whole number >= 1. Received: {cap!r}.")
        metric = content.get("metric", {"name": "val_auc", "goal": "maximize"})
        name = metric.get("name") if isinstance(metric, dict) else None
        if name not in _OBJECTIVES or metric.get("goal") != "maximize":
            raise ConfigError(
                f"metric must have the goal maximize and a name among {', '.join(_OBJECTIVES)}. "
                f"Received: {metric!r}."
            )
        parameters = content.get("parameters")
        if not isinstance(parameters, dict) or not parameters:
            raise ConfigError(f"parameters must name what varies. Received: {parameters!r}.")
        distributions = {
            str(name).replace("-", "_"): _distribution(name, form, method == "grid", model)
            for name, form in parameters.items()
        }
        return cls(method, _OBJECTIVES[name], distributions, cap)

    @property
    def logarithmic(self) -> list[str]:
        """The parameters that suit a logarithmic scale, for example lr. They are those with a
        logarithmic range, and those with a list of numbers > 0 of very different size.
        """

        def suits(distribution: BaseDistribution) -> bool:
            if isinstance(distribution, FloatDistribution | IntDistribution):
                return distribution.log
            choices = _choices(distribution)
            numbers = [choice for choice in choices if type(choice) is float and choice > 0]
            return len(numbers) == len(choices) and max(numbers) >= 50 * min(numbers)

        return [name for name, distribution in self.distributions.items() if suits(distribution)]

    def grid(self, seed: int) -> list[dict[str, Any]]:
        """All points of a grid. They are shuffled, so that even few of them cover the range of
        every parameter.
        """
        choices = [_choices(distribution) for distribution in self.distributions.values()]
        points = [
            dict(zip(self.distributions, values, strict=True))
            for values in itertools.product(*choices)
        ]
        random.Random(seed).shuffle(points)
        return points


def with_values(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """The configuration with the values of a trial. Raises ConfigError: a flag refuses one."""
    legal = {name: _legal(name, value, config.model) for name, value in values.items()}
    return replace(config, **legal)


def _choices(distribution: BaseDistribution) -> Sequence[Any]:
    """The values of a parameter that is given as a list."""
    assert isinstance(distribution, CategoricalDistribution)
    return distribution.choices


def _distribution(name: Any, form: Any, grid: bool, model: str) -> BaseDistribution:
    if name in _NOT_SEARCHED:
        raise ConfigError(f"{name} {_NOT_SEARCHED[name]} cannot be searched. Received: {form!r}.")
    given = dict(form) if isinstance(form, dict) else {}
    kind = given.pop("distribution", None)
    match given:
        case {"value": value, **rest} if not rest and kind in (None, "constant"):
            return CategoricalDistribution([_plain(_legal(name, value, model))])
        case {"values": [_, *_] as values, **rest} if not rest and kind in (None, "categorical"):
            return CategoricalDistribution(
                list(dict.fromkeys(_plain(_legal(name, value, model)) for value in values))
            )
        case {"min": low, "max": high, **rest} if not rest and not grid:
            return _range(name, low, high, kind, model)
    forms = "value, or values: a list"
    if not grid:
        forms += ", or min and max with distribution uniform, int_uniform or log_uniform_values"
    raise ConfigError(f"{name} must be given by {forms}. Received: {form!r}.")


def _range(name: Any, low: Any, high: Any, kind: str | None, model: str) -> BaseDistribution:
    for bound in (low, high):
        if type(bound) not in (int, float):
            raise ConfigError(
                f"{name}: min and max must be numbers, 1e-4 written as 0.0001. Received: {bound!r}."
            )
    legal = [_legal(name, bound, model) for bound in (low, high)]
    whole = type(low) is type(high) is int
    kind = kind or ("int_uniform" if whole else "uniform")  # as W&B does
    if low > high:
        raise ConfigError(f"{name}: min must be at most max. Received: {low} and {high}.")
    if kind == "int_uniform" and whole:
        return IntDistribution(low, high)
    if kind in ("uniform", "log_uniform_values") and type(legal[0]) is float:
        log = kind == "log_uniform_values"
        if log and not low > 0:
            raise ConfigError(f"{name}: min must be > 0 on a logarithmic scale. Received: {low}.")
        return FloatDistribution(low, high, log=log)
    raise ConfigError(
        f"{name}: distribution must be int_uniform between whole "
        "numbers, or uniform or log_uniform_values for a parameter that "
        f"is no whole number. Received: {kind} between {low} and {high}."
    )


def _legal(name: Any, value: Any, model: str) -> Any:
    """The value as `jobs.train` would read it from a flag, which is how W&B's agent passes it."""
    flags = [f"--model={model}", f"--{name}={value}"]
    _, values = parse_values(TrainConfig, flags, "python -m jobs.train", "")
    return values[str(name).replace("-", "_")]


def _plain(value: Any) -> Any:
    """The value in a type that a study can keep."""
    return str(value) if isinstance(value, Path) else value
