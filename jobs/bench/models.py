"""Models beside each other: each trained on the same data with the same budget, then scored as in
a night.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from jobs.bench.machine import figure
from nrms import bundles
from nrms.architectures import architectures
from nrms.bundles.parts import KERAS
from nrms.config import PositiveInt, Seed, Text, option
from nrms.errors import ConfigError
from nrms.nights.config import ScoreConfig
from nrms.nights.scoring import score
from nrms.sources.demo import DemoSite
from nrms.sources.writer import write_dataset
from nrms.storage.scratch import scratch_folder
from nrms.training.config import TrainConfig
from nrms.training.run import train

_METRICS = ("auc", "mrr", "ndcg@5", "ndcg@10")
_LEARNING_RATE = 1e-3  # where a model has no default of its own; see configs/demo.toml


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured"""

    models: Text | None = option(
        None,
        "which, with commas; NAME:title+body is one with these --article-inputs; not set: all",
    )
    data: Text | None = option(None, "data set; not set: demo data of --impressions")
    impressions: PositiveInt = option(20_000, "impressions of the demo data to train on")
    epochs: PositiveInt = option(2, "passes over them, for each model")
    history_size: PositiveInt = option(20, "clicks of a reader that a model sees")
    context: bool = option(False, "whether each but context stands below the context ranker")
    seed: Seed = option(42, "seed of data and weights")
    json: Path | None = option(
        None, "file for the figures: a list of objects with name, ours, naive, ratio, unit"
    )


def run_benchmark(options: Options) -> list[dict[str, Any]]:
    """Measures, prints a table line by line, and gives a row for each figure."""
    chosen = _chosen(options)
    columns = ("model", "AUC (95%)", "MRR", "nDCG@5", "nDCG@10", "samples/s", "impressions/s")
    print(f"| {' | '.join(columns)} | parameters | MB |")
    print("| --- " * (len(columns) + 2) + "|", flush=True)
    found = {}
    with scratch_folder() as folder:
        data = options.data or _demo(folder, options)
        for number, (name, flags) in enumerate(chosen.items()):
            one = found[name] = _measured(folder / f"{number}", data, flags, options)
            low, high = one["interval"]
            ranks = " | ".join(f"{one[metric]:.3f}" for metric in _METRICS[1:])
            print(
                f"| {name} | {one['auc']:.3f} ({low:.3f}-{high:.3f}) | {ranks} "
                f"| {one['trained']:,.0f} | {one['scored']:,.0f} | {one['parameters']:,} "
                f"| {one['megabytes']:.1f} |",
                flush=True,
            )
    first = next(iter(found.values()))
    return [
        figure(f"{name}: {what}", one[what], first[what], unit)
        for name, one in found.items()
        for what, unit in (("auc", "AUC"), ("trained", "samples/s"), ("scored", "impressions/s"))
    ]


def _chosen(options: Options) -> dict[str, Mapping[str, Any]]:
    """The flags of each model, by its name in the table."""
    names = list(architectures()) if options.models is None else options.models.split(",")
    chosen: dict[str, Mapping[str, Any]] = {}
    for name in names:
        model, _, read = name.strip().partition(":")
        if model not in architectures():
            raise ConfigError(
                f"--models must be of {', '.join(architectures())}. Received: {model!r}."
            )
        flags: dict[str, Any] = {"model": model}
        if read:
            flags["article_inputs"] = read.replace("+", ",")
        if options.context and architectures()[model].sampler != "lists":
            flags["context"] = True
        chosen[name.strip()] = flags
    return chosen


def _demo(folder: Path, options: Options) -> str:
    site = DemoSite(
        seed=options.seed,
        articles=6_400,
        users=1_400,
        impressions=options.impressions,
        validation_impressions=max(1, options.impressions // 4),
    )
    data = str(folder / "data")
    write_dataset(site, data, shard_rows=100_000, overwrite=False, progress=lambda *_: None)
    return data


class _Speed(keras.callbacks.Callback):
    """The samples a second after each step but the first, which is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.samples: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Notes a step."""
        if batch and logs is not None:
            self.samples.append(logs["samples_per_second"])


def _measured(
    folder: Path, data: str, flags: Mapping[str, Any], options: Options
) -> dict[str, Any]:
    """Trains a model, scores the validation split as a night, and tells how it went."""
    speed, models, night = _Speed(), str(folder / "models"), folder / "night"
    defaults = architectures()[flags["model"]].defaults
    rate: dict[str, Any] = {} if "lr" in defaults else {"lr": _LEARNING_RATE}
    config = TrainConfig(
        **flags,
        **rate,
        data=data,
        output=models,
        history_size=options.history_size,
        epochs=options.epochs,
        seed=options.seed,
        promote="always",
        wandb_mode="disabled",
    )
    train(config, callbacks=[speed])
    scoring = ScoreConfig(
        model=models, data=data, output=str(night), runtime="onnx", wandb_mode="disabled"
    )
    metrics = score(scoring).metrics
    assert metrics is not None
    seconds = json.loads((night / "manifest.json").read_text())["seconds"]
    bundle = bundles.load(models, folder)
    model = keras.models.load_model(bundle.files[KERAS], compile=False)
    return {
        **{name: metrics[name] for name in _METRICS},
        "interval": metrics["auc_interval"],
        "trained": float(np.median(speed.samples)),
        "scored": metrics["impressions"]
        / sum(spent for stage, spent in seconds.items() if stage not in ("model", "report")),
        "parameters": model.count_params(),
        "megabytes": sum(path.stat().st_size for path in bundle.files.values()) / 1e6,
    }
