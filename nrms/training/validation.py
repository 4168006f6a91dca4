"""Measures how well the current weights rank."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from nrms.evaluation.baselines import Baseline
from nrms.evaluation.beyond_accuracy import BeyondAccuracy
from nrms.evaluation.evaluation import Evaluation
from nrms.evaluation.ranking import METRICS, impression_metrics
from nrms.features.inputs import Inputs
from nrms.inference.loaded_model import Catalogue, LoadedModel
from nrms.training.data import TrainingData, shards


class Validator:
    """Scores the validation split with the model's current weights, always in float32.

    Args:
        trained: the model that is trained.
        float32: the same model in float32. It is `trained` itself, or a copy that takes its
            weights.
        inputs: what the model reads.
        data: the data that it is trained on.

    Attributes:
        model: the float32 model.
        loaded: scores with the float32 model; its prior is that of the weights evaluated last.
    """

    def __init__(
        self, trained: keras.Model, float32: keras.Model, inputs: Inputs, data: TrainingData
    ):
        self._trained = trained
        self._data = data
        self.model = float32
        self.loaded = LoadedModel.of(float32, inputs)

    def evaluate(self, baselines: Mapping[str, Baseline] | None = None) -> Evaluation:
        """Evaluates the current weights, and the baselines if any, on the validation split, beyond
        accuracy too.
        """
        data, catalogue = self._data, self.catalogue()
        beyond = BeyondAccuracy.of(
            data.validation, data.articles, data.popularity, data.ages, catalogue.vectors
        )
        return self._evaluate(catalogue, Evaluation(baselines, ages=data.ages, beyond=beyond))

    def metrics(self) -> dict[str, float]:
        """The metrics of the current weights: `train_auc` of the sample of the training split, and
        `val_auc`, `val_mrr`, ... of the validation split.
        """
        catalogue = self.catalogue()
        found = self._evaluate(catalogue, Evaluation()).metrics()
        scorer = self.loaded.scorer(catalogue, self._data.training.histories.rows)
        aucs = [
            impression_metrics(shard.offsets, scorer.score(shard), shard.clicked).auc
            for shard in self._data.sample.shards
            if shard.clicked is not None
        ]
        train_auc = float(np.concatenate(aucs).mean())
        return {"train_auc": train_auc, **{f"val_{name}": found[name] for name in METRICS}}

    def catalogue(self) -> Catalogue:
        """The articles, encoded with the current weights."""
        if self.model is not self._trained:
            self.model.set_weights(self._trained.get_weights())
        return self.loaded.catalogue_of(self._data.articles, self._data.encoded)

    def _evaluate(self, catalogue: Catalogue, evaluation: Evaluation) -> Evaluation:
        data, histories = self._data, self._data.validation.histories
        rows = data.training.histories.rows
        self.loaded.fit_prior(catalogue, rows, data.readers)
        scorer = self.loaded.scorer(catalogue, histories.rows)
        for impressions in shards(data.validation):
            lengths = histories.lengths[impressions.user]
            evaluation.add(impressions, lengths, scorer.score(impressions))
        return evaluation
