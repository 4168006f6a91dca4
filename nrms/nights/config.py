"""The flags of scoring a night, of scoring the nights that are due, of counting a state, and of
comparing two predictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date as calendar_date
from datetime import timedelta
from typing import Literal

from nrms.config import (
    Count,
    DateText,
    PositiveInt,
    Seed,
    Text,
    check_date,
    flag,
    option,
    put_date,
    required,
)
from nrms.data.config import WarningsConfig
from nrms.errors import ConfigError
from nrms.tracking import TrackingConfig


@dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """Scoring"""

    model: Text = required(
        "model to score with: a version's folder, or a model root, whose latest version is taken"
    )
    data: Text = required("data set in the Parquet contract: a folder or gs:// URI")
    output: Text = required("where predictions, metrics and report go: a folder or gs:// URI")
    split: Text = option("validation", "sub-folder of --data to score, labelled or not")
    submission: Literal["none", "ebnerd", "mind"] = option(
        "none", "zip file of ranks to write as well: RecSys Challenge 2024's (ebnerd) or MIND's"
    )
    runtime: Literal["keras", "onnx"] = option(
        "keras",
        "what runs the encoders: keras is faster, with a "
        "GPU much; onnx starts faster and takes less memory",
    )
    article_vectors: Text | None = option(
        None,
        "folder or gs:// URI that keeps article vectors from night to night; not set: "
        "article_vectors beside the model's version",
    )
    context: Text | None = option(
        None,
        "folder of a state made by jobs.context, of what happened before the split; not set: see "
        "--context-days",
    )
    context_days: Count = option(
        7,
        "days before {date} whose data the state is counted from, where --data or --split holds "
        "{date}; where there is none, it is that of the model, from the end of its training",
    )
    context_clicks: Literal["counted", "frozen"] = option(
        "counted",
        "what a model that counts clicks does with a split without labels: counted: stops; "
        "frozen: counts what is shown, and clicks until the split begins",
    )
    verify: bool = option(
        False,
        "read what is complete already and compare "
        "checksums; else only that of files changed since",
    )


@dataclass(frozen=True, kw_only=True)
class NightConfig:
    """One night"""

    date: DateText | None = option(
        None, "stands for {date} in --model, --data, --split and --output"
    )
    overwrite: bool = option(
        False, "replace predictions of other data or another model in --output"
    )


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(ScoringConfig, NightConfig, WarningsConfig, TrackingConfig):
    """Everything that a night's scoring depends on."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_templates", (self.data, self.split))
        put_date(self, "model", "data", "output", "split")

    @property
    def days_before(self) -> list[tuple[str, str, str]]:
        """The date, data set and split of each of the days before whose data the state is counted
        from, the first one first.
        """
        data, split = vars(self)["_templates"]
        if self.date is None or "{date}" not in data + split:
            return []
        last = calendar_date.fromisoformat(self.date)
        dates = [
            (last - timedelta(days=days)).isoformat() for days in range(self.context_days, 0, -1)
        ]
        return [(day, data.replace("{date}", day), split.replace("{date}", day)) for day in dates]


@dataclass(frozen=True, kw_only=True)
class NightsConfig:
    """Nights"""

    date: DateText | None = option(None, "the last night; not set: yesterday, by the clock of UTC")
    days: PositiveInt = option(7, "nights that are looked after: that one and those before it")
    pushgateway: Text | None = option(
        None, "Prometheus Pushgateway that is told of the nights; not set: none"
    )


@dataclass(frozen=True, kw_only=True)
class NightlyConfig(ScoringConfig, NightsConfig, WarningsConfig, TrackingConfig):
    """Everything that looking after the nights depends on. `{date}` stays in the locations: each
    night fills it in.
    """

    def __post_init__(self) -> None:
        check_date(self.date)
        for name in ("data", "output"):
            if "{date}" not in getattr(self, name):
                raise ConfigError(
                    f"{flag(name)} must hold {{date}}: each night has its own. Received: "
                    f"{getattr(self, name)}"
                )


@dataclass(frozen=True, kw_only=True)
class StateConfig:
    """State"""

    data: Text = required("data set in the Parquet contract: a folder or gs:// URI")
    output: Text = required("where the state goes: a folder or gs:// URI")
    split: Text = option("train", "sub-folder of --data that is counted")
    model: Text | None = option(
        None, "model by whose rules events are counted; not set: those that training has by default"
    )
    start: Text | None = option(
        None, "folder of a state that this job made, of what happened before; not set: nothing"
    )
    date: DateText | None = option(None, "stands for {date} in the locations")
    overwrite: bool = option(False, "replace another state in --output")

    def __post_init__(self) -> None:
        names = ("data", "output", "split", *(n for n in ("model", "start") if getattr(self, n)))
        put_date(self, *names)


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Comparing"""

    a: Text = required(
        "predictions that jobs.score has finished: a folder or gs:// URI; also the first word "
        "without --a",
        bare=True,
    )
    b: Text = required(
        "predictions of the same impressions by another model; also the second word", bare=True
    )
    output: Text = required("where metrics and report go: a folder or gs:// URI")
    data: Text | None = option(
        None, "data set that was scored: slices by hour, reader, page and so on are read from it"
    )
    split: Text = option("validation", "sub-folder of --data that was scored")
    seed: Seed = option(42, "seed of the bootstrap")
    overwrite: bool = option(False, "replace another comparison in --output")
