"""The state that a night starts from: that of the days before, or that of the model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nrms import storage
from nrms.data.dataset import Dataset
from nrms.data.layout import find_files
from nrms.errors import ConfigError
from nrms.features.context import snapshot
from nrms.features.context.input import Context
from nrms.features.context.past import Past
from nrms.features.context.state import State
from nrms.nights.config import ScoreConfig
from nrms.storage import commit

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
        if state.rules != context.rules:
            raise ConfigError(
                "--context must name a state that was counted as the model counts. Received: "
                f"{state.rules} in {info.uri}, {context.rules} in the model. Make it again with "
                "jobs.context --model."
            )
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
        for day, (data, split) in days.items():
            if not files[day]:
                logger.warning("%s: no data in %s: the state knows nothing of it", day, data)
                continue
            (folder := cache / f"past-{day}").mkdir()
            opened = Dataset(data, dataset.cache, dataset.articles_file, dataset.articles)
            past = Past(opened.split(split, 1), context, folder, frozen)
            state = past.count(state)
        logger.info("the state is counted from %d files of days before", len(plan))
        return state

    return Start({"days": plan, "frozen": frozen}, frozen, count)


def read_state(uri: str, cache: Path) -> tuple[State, storage.FileInfo]:
    """A state that `jobs.context` wrote, and its file. Raises ArtifactError, ConfigError: there is
    none.
    """
    found = commit.look(uri)
    info = found.files.get(snapshot.FILE)
    if info is None or not found.is_complete():
        raise ConfigError(
            f"--context must name a folder that jobs.context finished. Received: {uri}, where "
            f"{'there is no ' + snapshot.FILE if info is None else 'it did not finish'}."
        )
    return snapshot.load(storage.fetch(info, cache), info.uri), info


def _behaviors(data: str, split: str) -> dict[str, storage.FileInfo]:
    """The behaviours files of a day by name; none where the day has no data."""
    uri = storage.join(data, split)
    if not any(path.startswith("behaviors") for path in storage.list_paths(uri)):
        return {}
    return find_files(uri).files["behaviors"]
