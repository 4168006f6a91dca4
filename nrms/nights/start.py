"""The state that a night starts from: a given one, that of the days before, or the model's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nrms import bundles, storage
from nrms.data.dataset import Dataset
from nrms.data.layout import find_files
from nrms.errors import ConfigError
from nrms.features.context import snapshot
from nrms.features.context.input import Context
from nrms.features.context.past import Past
from nrms.features.context.state import State
from nrms.inference.loaded_model import LoadedModel
from nrms.nights.config import ScoreConfig, StateConfig
from nrms.storage import commit
from nrms.storage.scratch import scratch_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """What had happened before a night, as far as it is known.

    Attributes:
        plan: all that it depends on, JSON-ready.
        frozen: whether the clicks of the night do not count.
        state: gives what had happened, which may take as long as reading the days before.
    """

    plan: dict[str, Any]
    frozen: bool
    state: Callable[[], State]


def start_of_night(config: ScoreConfig, context: Context, dataset: Dataset, cache: Path) -> Start:
    """The state that --context names; else that of the days before; else that of the model. It is
    never taken from the output of another night.

    Args:
        config: the flags of the night.
        context: the model's input, with its own state.
        dataset: the night's data set, whose articles are those of the days before, too.
        cache: local folder for files.

    Raises:
        ArtifactError: the state of --context is damaged.
        ConfigError: it was counted by other rules than the model's.
        StorageError: something cannot be read.
    """
    frozen = config.context_clicks == "frozen"
    if config.context is not None:
        state, info = read_state(config.context, cache)
        _check_rules(state, context, info.uri, "--context")
        found = commit.fingerprint(info, cache)
        return Start({"state": found, "frozen": frozen}, frozen, lambda: state)
    days = {day: (data, split) for day, data, split in config.days_before}
    files = {day: _behaviors(*place) for day, place in days.items()}
    if not any(files.values()):
        return Start({"state": "of the model", "frozen": frozen}, frozen, lambda: context.state)
    plan = [
        {"name": f"{day}/{name}", **commit.fingerprint(info, cache)}
        for day, found in files.items()
        for name, info in sorted(found.items())
    ]

    def count() -> State:
        state = State(context.rules)
        missing = [day for day, found in files.items() if not found]
        if missing:
            logger.warning(
                "no data of %d of the %d days before: %s; the state knows nothing of them",
                len(missing),
                len(files),
                ", ".join(missing),
            )
        for day, (data, split) in days.items():
            if day in missing:
                continue
            (folder := cache / f"past-{day}").mkdir()
            opened = Dataset(data, dataset.cache, dataset.articles_file, dataset.articles)
            past = Past(opened.split(split, 1), context, folder, frozen)
            state = past.count(state)
        logger.info("the state is counted from %d files of days before", len(plan))
        return state

    return Start({"days": plan, "frozen": frozen}, frozen, count)


def read_state(uri: str, cache: Path, flag: str = "--context") -> tuple[State, storage.FileInfo]:
    """A state that `jobs.context` wrote, and its file. Raises ArtifactError, ConfigError: there is
    none.
    """
    found = commit.look(uri)
    info = found.files.get(snapshot.FILE)
    if info is None or not found.is_complete():
        raise ConfigError(
            f"{flag} must name a folder that jobs.context finished. Received: {uri}, where "
            f"{'there is no ' + snapshot.FILE if info is None else 'it did not finish'}."
        )
    return snapshot.load(storage.fetch(info, cache), info.uri), info


def _behaviors(data: str, split: str) -> dict[str, storage.FileInfo]:
    """The behaviours files of a day by name; none where the day has no data."""
    uri = storage.join(data, split)
    if not any(path.startswith("behaviors") for path in storage.list_paths(uri)):
        return {}
    return find_files(uri).files["behaviors"]


def make_state(config: StateConfig) -> State | None:
    """Counts a split and writes the state after it, which is all that `jobs.context` does.

    Args:
        config: the flags.

    Returns:
        The state; None where it is there already.

    Raises:
        ArtifactError: the model or the state to start from is damaged.
        ConfigError: that state was counted by other rules, or the output holds something else.
        SchemaError: the data breaks the contract, or its files overlap in time.
        StorageError: something cannot be read or written.
    """
    with scratch_folder() as cache:
        context = _rules(config, cache)
        dataset = Dataset.open(config.data, cache)
        split = dataset.split(config.split, 1)
        files = [
            {"name": name, **commit.fingerprint(info, cache)}
            for name, info in sorted(split.files.items())
            if info in split.shards
        ]
        state, start = State(context.rules), None
        if config.start is not None:
            state, info = read_state(config.start, cache, "--start")
            start = commit.fingerprint(info, cache)
            _check_rules(state, context, info.uri, "--start")
        plan = {"rules": asdict(context.rules), "inputs": files, "start": start}
        output = commit.Output(
            storage.normal(config.output), {"state": plan}, _belongs, "the state of the same events"
        )
        commit.refuse_foreign(commit.look(output.uri), "state", _belongs, "a state", "no state")
        if not output.claim([snapshot.FILE], config.overwrite):
            return None
        (folder := cache / "past").mkdir()
        past = Past(split, context, folder)
        if split.first_time is not None and len(state) and split.first_time < state.latest:
            raise ConfigError(
                "--start must be of what happened before the split. Received: a state until "
                f"{_time(state.latest)}, a split from {_time(split.first_time)}. Count the earlier "
                "split first."
            )
        state = past.count(state)
        path = cache / snapshot.FILE
        snapshot.save(state, path)
        output.add(path)
        output.finish({"until": _time(state.latest), "keys": len(state)})
        return state


def _rules(config: StateConfig, cache: Path) -> Context:
    if config.model is None:
        return Context()
    bundle = bundles.load(config.model, cache, ["onnx"])
    context = LoadedModel.open(bundle).inputs.past
    if context is None:
        raise ConfigError(
            "--model must be one that reads what happened before. Received: "
            f"{bundle.uri}, which does not. Train one with --context true, or leave --model out."
        )
    return context


def _check_rules(state: State, context: Context, where: str, flag: str) -> None:
    if state.rules != context.rules:
        ours, theirs = asdict(context.rules), asdict(state.rules)
        differing = [name for name in ours if ours[name] != theirs[name]]
        raise ConfigError(
            f"{flag} must name a state that was counted as the model counts. Received: "
            + ", ".join(f"{name} {theirs[name]}, not {ours[name]}" for name in differing)
            + f", in {where}. Make it again with jobs.context --model."
        )


def _time(microseconds: int) -> str:
    return str(np.datetime64(microseconds, "us").astype("datetime64[s]"))


def _belongs(name: str) -> bool:
    return name == snapshot.FILE
