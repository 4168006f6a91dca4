"""Compares two predictions of the same impressions: which model ranks better, how sure that is, and
where. This is all that `jobs.compare` does.

    <output>/metrics.json    means of A and B, their difference, its 95% interval and p: over all
                             impressions, and in each group of each slice
    <output>/report.html     the same for people, with plots
    <output>/manifest.json, _SUCCESS    see `nrms.storage.commit`
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nrms import storage
from nrms.config import as_dict
from nrms.data.columns import unnest
from nrms.data.dataset import Dataset
from nrms.data.schema import CLICKS, schema_error
from nrms.evaluation.article_ages import ArticleAges
from nrms.evaluation.intervals import impression_keys
from nrms.evaluation.paired import PairedSums, paired_differences
from nrms.evaluation.paired_report import write_comparison
from nrms.evaluation.ranking import impression_metrics
from nrms.evaluation.slices import LONGEST_HISTORY, SLICES, UNKNOWN, list_length_keys, slice_keys
from nrms.nights.config import CompareConfig
from nrms.nights.predictions import Predictions
from nrms.nights.same_rows import aligned, clicked_candidates, column, first_difference
from nrms.storage import commit
from nrms.storage.scratch import scratch_folder

logger = logging.getLogger(__name__)

RESAMPLES = 10_000
_RULES = 1  # version of the comparison, raised by each change of this code that moves a digit
_METRICS, _REPORT = "metrics.json", "report.html"


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        output: the folder.
        metrics: `a` and `b`, the folders; `auc`, `mrr`, `ndcg@5` and `ndcg@10`, each `{"a", "b",
            "difference", "interval", "p"}` where `difference` is B less A; the counts
            `impressions`, `measured`, `skipped_one_class` and `unlabelled`; and for each slice, as
            `by_list_length`, the same metrics by group with their `impressions`.
        is_new: whether this run made it, and did not find it.
    """

    output: str
    metrics: dict[str, Any]
    is_new: bool


def compare(config: CompareConfig) -> Comparison:
    """Compares two predictions, part by part, in memory that does not grow with their number.

    Args:
        config: see `nrms.nights.config.CompareConfig`.

    Raises:
        ConfigError: the output holds something else.
        SchemaError: A or B are no finished predictions, or not of the same impressions with clicks;
            or the data is not what they were made of.
        StorageError: something could not be read or written.
    """
    a, b = Predictions(config.a), Predictions(config.b)
    with scratch_folder() as cache:
        data = None if config.data is None else _Data(config.data, config.split, cache)
        plan = {
            **{name: {"uri": p.uri, "parts": p.parts} for name, p in (("a", a), ("b", b))},
            "data": None if data is None else data.plan,
            "seed": config.seed,
            "rules": _RULES,
        }
        uri = storage.normal(config.output)
        output = commit.Output(uri, {"comparison": plan}, _belongs, "a comparison of the same")
        found = commit.look(uri)
        commit.refuse_foreign(found, "comparison", _belongs, "a comparison", "no comparison")
        if found.is_occupied(_belongs) and not output.is_planned(found) and not config.overwrite:
            raise output.taken(found)
        if output.is_planned(found) and found.is_complete():
            metrics = commit.read_json(storage.read_bytes(storage.join(uri, _METRICS)))
            if metrics is not None:
                return Comparison(config.output, metrics, False)
        # Claimed only when it is known to be of the same impressions, so that a mistake leaves
        # nothing behind.
        metrics = {"a": a.uri, "b": b.uri, **_measured(a, b, data, config.seed)}
        output.claim([_METRICS, _REPORT], config.overwrite)
        with scratch_folder() as folder:
            (folder / _METRICS).write_text(json.dumps(metrics, indent=2) + "\n", "utf-8")
            facts = {
                "A": f"{a.uri}, by {a.version}",
                "B": f"{b.uri}, by {b.version}",
                **({} if data is None else {"data": data.uri}),
                "bootstrap": f"{RESAMPLES:,} resamples, seed {config.seed}",
            }
            write_comparison(folder / _REPORT, metrics, facts)
            for name in (_METRICS, _REPORT):
                output.add(folder / name)
        output.finish({"config": as_dict(config)})
    return Comparison(config.output, metrics, True)


class _Data:
    """The data set that was scored, for the slices that predictions do not tell."""

    def __init__(self, uri: str, split: str, cache: Path) -> None:
        self._dataset = Dataset.open(uri, cache)
        self._split = self._dataset.split(split, LONGEST_HISTORY)
        self.uri, self.rows = self._split.uri, self._split.rows
        self.plan = {
            "split": self._split.name,
            "sha256": self._dataset.fingerprint([self._split]),
        }

    def tables(self) -> Iterator[pa.Table]:
        """`impression_id`, `user_id` and the keys of the slices, as far as a shard has them."""
        split, articles = self._split, self._dataset.articles
        ages = ArticleAges(articles.published, len(articles))
        if not ages.complete:
            for i in range(len(split)):
                ages.add(split.read(i))
        for impressions in map(split.read, range(len(split))):
            keys = slice_keys(impressions, split.histories.lengths[impressions.user], ages)
            ids = {"impression_id": impressions.impression_id, "user_id": impressions.user_id}
            yield pa.table({**ids, **keys})


def _measured(a: Predictions, b: Predictions, data: _Data | None, seed: int) -> dict[str, Any]:
    """The metrics of `Comparison`, but for the folders' names."""
    rows = {"A": a.rows, "B": b.rows}
    if len(set(rows.values())) > 1:
        raise _different(a, b, " and ".join(f"{n:,} impressions in {x}" for x, n in rows.items()))
    if data is not None and data.rows != a.rows:
        raise _not_scored(data, f"{data.rows:,} impressions there, {a.rows:,} predicted")
    everything = PairedSums()
    groups: dict[str, dict[int, PairedSums]] = {name: defaultdict(PairedSums) for name in SLICES}
    counts = dict.fromkeys(("impressions", "measured", "skipped_one_class", "unlabelled"), 0)
    streams = [a.tables(), b.tables(), *([] if data is None else [data.tables()])]
    logger.info("comparing %s impressions", f"{a.rows:,}")
    for of_a, of_b, *of_data in aligned(streams):
        start = counts["impressions"]
        if difference := first_difference(of_a, of_b, start):
            raise _different(a, b, difference)
        if data is not None and (difference := first_difference(of_data[0], of_a, start)):
            raise _not_scored(data, difference)
        counts["impressions"] += len(of_a)
        labelled = next((each for each in (of_a, of_b) if CLICKS in each.column_names), None)
        if labelled is None:
            counts["unlabelled"] += len(of_a)
            continue
        offsets, clicked = clicked_candidates(labelled)
        values = [
            impression_metrics(
                offsets, unnest(column(each, "scores"))[1].to_numpy(), clicked
            ).values
            for each in (of_a, of_b)
        ]
        keys = impression_keys(*(column(of_a, name) for name in ("impression_id", "user_id")))
        everything.add(keys, *values)
        counts["skipped_one_class"] += int(np.isnan(values[0][0]).sum())
        slices = {"list_length": list_length_keys(offsets)}
        if of_data:
            names = [name for name in of_data[0].column_names if name in SLICES]
            slices |= {name: column(of_data[0], name).to_numpy() for name in names}
        for name, of_rows in slices.items():
            for key in np.unique(of_rows[of_rows != UNKNOWN]).tolist():
                member = of_rows == key
                groups[name][key].add(keys[member], *(each[:, member] for each in values))
    counts["measured"] = everything.count
    if not everything.count:
        raise schema_error(
            "Predictions must have a click beside a non-click to be compared.",
            f"none in {counts['impressions']:,} impressions, {counts['unlabelled']:,} of them "
            "without labels",
            f"{a.uri} and {b.uri}",
            "Score data with clicks.",
        )
    return _metrics(everything, groups, counts, seed)


def _metrics(
    everything: PairedSums,
    groups: dict[str, dict[int, PairedSums]],
    counts: dict[str, int],
    seed: int,
) -> dict[str, Any]:
    places = [
        (name, key) for name, found in groups.items() for key in sorted(found) if found[key].count
    ]
    parts = [everything, *(groups[name][key] for name, key in places)]
    overall, *others = paired_differences(parts, RESAMPLES, seed)
    metrics: dict[str, Any] = {**overall, **counts}
    for (name, key), found in zip(places, others, strict=True):
        metrics.setdefault(f"by_{name}", {})[SLICES[name].name(key)] = found
    return metrics


def _different(a: Predictions, b: Predictions, received: str) -> Exception:
    return schema_error(
        "Two predictions must be of the same impressions, in the same order, to be compared.",
        received,
        f"{a.uri} and {b.uri}",
        "Score the same data with both models.",
    )


def _not_scored(data: _Data, received: str) -> Exception:
    return schema_error(
        "--data and --split must be what was scored.",
        received,
        data.uri,
        "Give the data set of the predictions, or leave --data out.",
    )


def _belongs(name: str) -> bool:
    return name in (_METRICS, _REPORT)
