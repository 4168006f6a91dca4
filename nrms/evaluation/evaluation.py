"""All figures about a split's scores, gathered shard by shard, for training and for batch jobs.

Memory does not grow with the number of impressions: only sums are kept, and a sample of the scores
for the plot.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nrms.data.impressions import Impressions
from nrms.evaluation import plots
from nrms.evaluation.article_ages import ArticleAges
from nrms.evaluation.baselines import Baseline
from nrms.evaluation.beyond_accuracy import BeyondAccuracy
from nrms.evaluation.intervals import AucInterval, impression_keys
from nrms.evaluation.ranking import (
    METRICS,
    GroupMean,
    ImpressionMetrics,
    MetricSums,
    best_first,
    by_group,
    check_scores,
    impression_metrics,
)
from nrms.evaluation.slices import SLICES, UNKNOWN, slice_keys

CLICKED, NOT_CLICKED, UNLABELLED = "clicked", "not clicked", "all candidates"
SAMPLE = 50_000  # scores kept of each kind; a histogram needs no more

_DRAWN = 24  # groups beyond so many, as strange devices may be, are left to the table

_AUC = METRICS.index("auc")
_MODEL = "model"  # its name among the rankings, which no baseline has


class Evaluation:
    """Takes scored shards one by one, and gives the metrics and figures over all of them at any
    time.

    Args:
        baselines: what to rank beside the model, such as `standard_baselines(...)`. Each costs more
            time than the model's own metrics, so leave them out where they were reported before, as
            in a later epoch.
        seed: draws the sample of scores.
        ages: tells impressions whose clicked article is new; None leaves that slice out.
        beyond: what accuracy does not say, of all these rankings; None leaves it out.

    Example:
        evaluation = Evaluation(standard_baselines(popularity, articles.published, seed))
        for i in range(len(split)):
            shard = split.read(i)
            evaluation.add(shard, split.histories.lengths[shard.user], scores(shard))
        evaluation.metrics()["auc"]
    """

    def __init__(
        self,
        baselines: Mapping[str, Baseline] | None = None,
        seed: int = 0,
        ages: ArticleAges | None = None,
        beyond: BeyondAccuracy | None = None,
    ) -> None:
        self._ages = ages
        self._beyond = beyond
        self._baselines = baselines or {}
        self._model = _Ranking()
        self._ranked = {name: _Ranking() for name in self._baselines}
        self._groups: dict[str, dict[int, GroupMean]] = {name: {} for name in SLICES}
        self._counts = dict.fromkeys(
            ("impressions", "candidates", "unlabelled", "unknown_articles", "empty_histories"), 0
        )
        rng = np.random.default_rng(seed)
        self._samples = {kind: _Sample(SAMPLE, rng) for kind in (CLICKED, NOT_CLICKED, UNLABELLED)}

    def add(
        self, impressions: Impressions, history_lengths: np.ndarray, scores: np.ndarray
    ) -> None:
        """Adds a shard.

        Args:
            impressions: the shard.
            history_lengths: clicks that the model saw for each impression, int `[n]`.
            scores: float32 `[c]`.

        Raises:
            SchemaError: a score is NaN.
        """
        check_scores(impressions.offsets, scores)
        offsets, orders = impressions.offsets, {_MODEL: best_first(impressions.offsets, scores)}
        self._counts["impressions"] += len(impressions)
        self._counts["candidates"] += len(scores)
        self._counts["unknown_articles"] += int(np.count_nonzero(impressions.candidates == 0))
        self._counts["empty_histories"] += int(np.count_nonzero(history_lengths == 0))
        if impressions.clicked is None:
            self._counts["unlabelled"] += len(impressions)
            self._samples[UNLABELLED].add(scores)
            if self._beyond is not None:
                self._beyond.add(impressions, orders)
            return
        self._samples[CLICKED].add(scores[impressions.clicked])
        self._samples[NOT_CLICKED].add(scores[~impressions.clicked])
        metrics = impression_metrics(offsets, scores, impressions.clicked, orders[_MODEL])
        keys = impression_keys(impressions.impression_id, impressions.user_id)
        self._model.add(metrics, keys)
        for name, groups in slice_keys(impressions, history_lengths, self._ages).items():
            known = groups != UNKNOWN
            self._group(name, metrics.values[:, known], groups[known])
        for name, baseline in self._baselines.items():
            if (ranking := baseline(impressions)) is not None:
                order = orders[name] = best_first(offsets, ranking)
                self._ranked[name].add(
                    impression_metrics(offsets, ranking, impressions.clicked, order), keys
                )
        if self._beyond is not None:
            self._beyond.add(impressions, orders)

    def metrics(self) -> dict[str, Any]:
        """All metrics and counts, ready for JSON.

        `auc`, `mrr`, `ndcg@5`, `ndcg@10`; `auc_interval`, the ends of the AUC's 95% interval;
        `novelty@5` and all others of `nrms.evaluation.beyond_accuracy`; the counts `impressions`,
        `candidates`, `unlabelled` (impressions), `skipped_one_class` (impressions),
        `unknown_articles` (candidates), `empty_histories` (impressions); `baselines` by name; and
        for each of `SLICES`, `by_hour` (UTC), `by_list_length` and so on, `{group: {"auc", "mrr",
        "ndcg@5", "ndcg@10", "impressions"}}`, where `impressions` counts those not skipped. What
        could not be computed is absent, not zero.
        """
        found: dict[str, Any] = {}
        if self._model.sums.impressions:
            found |= self._model.result()
        beyond = {} if self._beyond is None else self._beyond.result()
        found |= beyond.get(_MODEL, {})
        found |= self._counts
        if reported := {
            name: ranking.result() | beyond.get(name, {})
            for name, ranking in self._ranked.items()
            if ranking.sums.impressions
        }:
            found["baselines"] = reported
        for attribute, groups in self._groups.items():
            if groups:
                found[f"by_{attribute}"] = {
                    SLICES[attribute].name(key): {
                        **dict(zip(METRICS, np.asarray(groups[key].mean).tolist(), strict=True)),
                        "impressions": groups[key].count,
                    }
                    for key in sorted(groups)
                }
        return found

    def figures(self) -> dict[str, Figure]:
        """The figures `score_distribution`, and `auc_by_hour` and so on for each of `SLICES`, as
        far as there is data for them and they could be drawn.
        """
        drawings: dict[str, Callable[[], Figure]] = {}
        samples = {kind: sample for kind, sample in self._samples.items() if sample.seen}
        if samples:
            drawings["score_distribution"] = lambda: plots.score_distribution(
                {kind: sample.values for kind, sample in samples.items()},
                {kind: sample.seen for kind, sample in samples.items()},
            )
        for name, groups in self._groups.items():
            if 0 < len(groups) <= _DRAWN:
                drawings[f"auc_by_{name}"] = functools.partial(_auc_by, name, groups)
        figures = {name: plots.attempt(name, draw) for name, draw in drawings.items()}
        return {name: figure for name, figure in figures.items() if figure is not None}

    def _group(self, attribute: str, values: np.ndarray, keys: np.ndarray) -> None:
        groups = self._groups[attribute]
        for key, mean in by_group(values, keys).items():
            groups[key] = groups[key] + mean if key in groups else mean


def _auc_by(name: str, groups: Mapping[int, GroupMean]) -> Figure:
    aucs = {key: groups[key][_AUC] for key in sorted(groups)}
    if name == "hour":
        return plots.auc_by_hour(aucs)
    part = SLICES[name]
    shown = {part.shown(part.name(key)): mean for key, mean in aucs.items()}
    return plots.auc_by_group(shown, f"AUC by {part.title}", part.axis)


class _Ranking:
    """The metrics of one ranking, and how sure its AUC is."""

    def __init__(self) -> None:
        self.sums = MetricSums()
        self._interval = AucInterval()

    def add(self, metrics: ImpressionMetrics, keys: np.ndarray) -> None:
        self.sums.add(metrics)
        self._interval.add(keys, metrics.auc)

    def result(self) -> dict[str, Any]:
        interval = self._interval.result()
        return self.sums.result() | ({} if interval is None else {"auc_interval": interval})


class _Sample:
    """A uniform sample, without replacement, of all finite values so far. Each value gets a random
    key, and those with the smallest keys are kept.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._size, self._rng = size, rng
        self._keys = np.zeros(0)
        self.values = np.zeros(0, np.float32)
        self.seen = 0

    def add(self, values: np.ndarray) -> None:
        values = values[np.isfinite(values)]
        self.seen += len(values)
        keys = np.concatenate([self._keys, self._rng.random(len(values))])
        values = np.concatenate([self.values, values])
        kept = (
            np.argpartition(keys, self._size)[: self._size]
            if len(keys) > self._size
            else slice(None)
        )
        self._keys, self.values = keys[kept], values[kept]
