"""Searches for hyperparameters without a server. Each trial is a training, and a study that can be
resumed keeps the results.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.distributions import distribution_to_json
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from nrms import storage
from nrms.config import as_dict, config_lines
from nrms.errors import ArtifactError, ConfigError, Interrupted, StorageError, TrainingError
from nrms.evaluation import plots
from nrms.evaluation.ranking import METRICS
from nrms.training.cluster import refuse_cluster
from nrms.training.config import TrainConfig
from nrms.training.search_space import SearchSpace, with_values
from nrms.training.sweep_config import SweepConfig
from nrms.training.trial_process import Train, train_apart

logger = logging.getLogger(__name__)

_NAME = "sweep"
# Flags that may change between two runs of one sweep, because results stay comparable.
_NOT_IDENTITY = {
    *("output", "promote", "resume", "checkpoint_seconds", "profile"),
    *("wandb_mode", "wandb_project", "run_name", "run_group"),
}


@dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes:
        number: the trial's number, from 0.
        values: the values of the parameters.
        metrics: validation metrics of the best epoch; empty if the training failed.
        model_uri: the published version, or None.
        error: why the training failed, or None.
    """

    number: int
    values: dict[str, Any]
    metrics: dict[str, float]
    model_uri: str | None = None
    error: str | None = None


def sweep(config: SweepConfig, train: Train, stop: threading.Event | None = None) -> list[Trial]:
    """Runs the trials that a study lacks, one after another, each in a process of its own.

    The study is in `study.db`, a SQLite file in the folder `config.study`. After each trial
    `trials.csv`, `best.toml` and `parallel_coordinates.png` are written beside it. The model roots
    of the trials are `trial-0000`, ... in `config.output`. A trial that was stopped goes on from
    its checkpoint.

    Args:
        config: see `nrms.training.sweep_config.SweepConfig`.
        train: trains in the process of a trial. It must be importable, and end with a checkpoint
            after SIGTERM.
        stop: set it to stop the trial with a checkpoint.

    Returns:
        All trials of the study, the best first, and failed ones last.

    Raises:
        ConfigError: the search space is wrong, the number of trials is missing, or the study is of
            another sweep or in use.
        StorageError: the study cannot be read or written.
        TrainingError: every trial failed; `Interrupted` where `stop` was set.
        NrmsError: what else a training raises, of data, storage and configuration. The next run
            repeats this trial.
    """
    stop = stop or threading.Event()
    refuse_cluster(os.environ)
    space = SearchSpace.read(config.space, config.model)
    points = space.grid(config.seed) if space.method == "grid" else []
    total = config.trials or space.run_cap or len(points)
    if not total:
        raise ConfigError(
            f"--trials, or run_cap in {config.space}, must be given where the method is "
            f"{space.method}."
        )
    total = min(total, len(points) or total)
    base = replace(config.train_config, resume=False)
    with _opened(config.study, space, base) as study:
        while (work := _next(study, space, points, total, base.seed)) is not None:
            if stop.is_set():
                raise Interrupted(
                    "stopped by a signal between two trials. Run the same command to go on."
                )
            trial, begun = work
            shown = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items())
            logger.info(
                "trial %d, %d of %d ended: %s", trial.number, len(_ended(study)), total, shown
            )
            output = storage.join(base.output, f"trial-{trial.number:04}")
            settings = replace(
                with_values(base, trial.params), output=output, resume=begun, promote="never"
            )
            settings = replace(settings, run_group=base.run_group or study.user_attrs.get("group"))
            try:
                metrics, model_uri = train_apart(train, settings, stop)
            except Interrupted:
                raise Interrupted(
                    f"stopped by a signal in trial {trial.number}. "
                    "Run the same command to go on with it."
                ) from None
            except (TrainingError, ArtifactError) as error:
                logger.warning("trial %d failed: %s", trial.number, error)
                for checkpoint in storage.list_files(storage.join(output, "checkpoints")):
                    # It remains where the process died, and no training goes on from it.
                    storage.delete(checkpoint.uri)
                _end(study, Trial(trial.number, trial.params, {}, error=str(error)), None)
            else:
                logger.info("trial %d: %s %.4f", trial.number, space.metric, metrics[space.metric])
                _end(
                    study,
                    Trial(trial.number, trial.params, metrics, model_uri),
                    metrics[space.metric],
                )
            _write_results(config.study, space, base, _ended(study))
        trials = _ended(study)
        _write_results(config.study, space, base, trials)
    trials.sort(key=lambda trial: -trial.metrics.get(space.metric, -1.0))
    if trials[0].error is not None:
        raise TrainingError(
            f"all {len(trials)} trials failed, the first with: {trials[0].error} "
            "To try them again, name another --study."
        )
    return trials


@contextlib.contextmanager
def _opened(folder: Path, space: SearchSpace, base: TrainConfig) -> Iterator[optuna.Study]:
    """Opens the folder's study for this process alone. So the process of a trial that is marked as
    running has ended.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    identity = {
        "method": space.method,
        "metric": space.metric,
        "parameters": {name: distribution_to_json(d) for name, d in space.distributions.items()},
        **{
            name: value
            for name, value in as_dict(base).items()
            if name not in {*_NOT_IDENTITY, *space.distributions}
        },
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / "study.lock", blocking=False):
            study = optuna.create_study(
                storage=f"sqlite:///{folder.absolute() / 'study.db'}",
                study_name=_NAME,
                direction="maximize",
                load_if_exists=True,
            )
            known = study.user_attrs.get("identity")
            if known is None:
                study.set_user_attr("group", f"{folder.name}-{secrets.token_hex(4)}")
                study.set_user_attr("identity", identity)
            elif different := list(_differences(known, identity)):
                raise ConfigError(
                    f"--study must name a folder of this sweep, or a new one. Received: {folder}, "
                    f"whose study differs: {'; '.join(different)}."
                )
            yield study
    except filelock.Timeout:
        raise ConfigError(
            f"--study must not be in use. Received: {folder}, where another sweep is running."
        ) from None
    except (OSError, SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise StorageError(
            f"the study in {folder} could not be read or written: {cause}."
        ) from error


def _differences(known: dict[str, Any], identity: dict[str, Any]) -> Iterator[str]:
    """Says in words in what the identity of a study differs from that of this sweep."""
    for name, value in identity.items():
        if name == "parameters":
            before = known.get(name, {})
            for parameter in [
                *before,
                *(parameter for parameter in value if parameter not in before),
            ]:
                if before.get(parameter) != value.get(parameter):
                    kinds = [_in_words(found.get(parameter)) for found in (before, value)]
                    yield f"the parameter {parameter} is {kinds[0]} there and {kinds[1]} here"
        elif known.get(name, value) != value:
            yield f"{name} is {known[name]} there and {value} here"


def _in_words(distribution: str | None) -> str:
    if distribution is None:
        return "not searched"
    content = json.loads(distribution)["attributes"]
    if "choices" in content:
        return " or ".join(map(_short, content["choices"]))
    return f"{_short(content['low'])} to {_short(content['high'])}" + (
        ", logarithmic" if content["log"] else ""
    )


def _next(
    study: optuna.Study, space: SearchSpace, points: list[dict[str, Any]], total: int, seed: int
) -> tuple[optuna.trial.FrozenTrial, bool] | None:
    """The next trial, and whether it was begun before; None when there are enough trials."""
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        if trial.params.keys() == space.distributions.keys():
            return trial, True
        study.tell(trial.number, state=TrialState.FAIL)  # killed before it had all its values
    ended = len(_ended(study))
    if ended >= total:
        return None
    if points and not study.get_trials(states=[TrialState.WAITING]):
        tried = [trial.params for trial in study.get_trials(deepcopy=False)]
        study.enqueue_trial(next(point for point in points if point not in tried))
    # Each trial has its own seed, so that a resumed sweep draws the same as an unbroken one.
    sampler = (
        optuna.samplers.TPESampler if space.method == "bayes" else optuna.samplers.RandomSampler
    )
    study.sampler = sampler(seed=(seed + ended) % 2**32)
    number = study.ask(space.distributions).number
    return study.get_trials(deepcopy=False)[number], False


def _end(study: optuna.Study, trial: Trial, value: float | None) -> None:
    # The record comes first, because a trial without one has not ended.
    study.set_user_attr(f"trial-{trial.number}", asdict(trial))
    study.tell(trial.number, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)


def _ended(study: optuna.Study) -> list[Trial]:
    records = study.user_attrs
    return [
        Trial(**records[f"trial-{trial.number}"])
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and f"trial-{trial.number}" in records
    ]


def _write_results(
    folder: Path, space: SearchSpace, base: TrainConfig, trials: list[Trial]
) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["trial", *space.distributions, *METRICS, "model", "error"])
    for trial in trials:
        values = [trial.values[name] for name in space.distributions]
        metrics = [trial.metrics.get(name) for name in METRICS]
        writer.writerow([trial.number, *values, *metrics, trial.model_uri, trial.error])
    storage.write_bytes(table.getvalue().encode(), folder / "trials.csv")

    good = [trial for trial in trials if trial.error is None]
    if not good:
        return
    best = max(good, key=lambda trial: trial.metrics[space.metric])
    lines = [
        f"# Trial {best.number} of {len(trials)}: validation {space.metric} "
        f"{best.metrics[space.metric]:.4f}",
        f"# Its model: {json.dumps(best.model_uri, ensure_ascii=False)}",
        *config_lines(with_values(base, best.values)),
    ]
    storage.write_bytes("".join(f"{line}\n" for line in lines).encode(), folder / "best.toml")
    varied = [
        name for name, distribution in space.distributions.items() if not distribution.single()
    ]
    columns = {name: [trial.values[name] for trial in good] for name in varied}
    results = [trial.metrics[space.metric] for trial in good]
    caption = f"validation {space.metric}"
    content = columns, results, caption, space.logarithmic
    figure = plots.attempt("parallel_coordinates", plots.parallel_coordinates, *content)
    plots.save_all({"parallel_coordinates": figure}, folder)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
