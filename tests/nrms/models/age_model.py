"""A model in one file, without news vectors: it compares the ages of an impression's candidates."""

from dataclasses import dataclass

import keras
import numpy as np

from nrms.architectures import ModelConfig, register
from nrms.architectures.model_graph import Graph
from nrms.data.columns import list_rows
from nrms.features.inputs import History, Inputs, MomentInput, registered
from nrms.features.spec import Spec


@registered
class Age(MomentInput):
    kind = name = "age"

    def fill(self, columns, impressions, articles, histories):
        if impressions.time is None:
            return None
        published = np.append(np.datetime64("NaT"), articles.published)[impressions.candidates]
        age = impressions.time[list_rows(impressions.offsets)] - published
        return np.nan_to_num(age / np.timedelta64(1, "D")).astype(np.float32)


@keras.saving.register_keras_serializable(package="tests")
class AgeRanker(keras.Model):
    scoring = "lists"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(8, "tanh", dtype=self.dtype_policy)
        self.out = keras.layers.Dense(1, dtype=self.dtype_policy)

    def build(self, *shapes):
        self.hidden.build((None, 1))
        self.out.build((None, 8))

    def call(self, articles, batch, training=False):
        mask = keras.ops.cast(batch["mask"], batch["age"].dtype)
        mean = keras.ops.sum(batch["age"] * mask, 1) / keras.ops.sum(mask, 1)
        scores = self.out(self.hidden((batch["age"] - mean[:, None])[:, :, None]))[:, :, 0]
        return keras.ops.where(batch["mask"], keras.ops.cast(scores, "float32"), -1e9)

    def graphs(self, articles, buckets=None):
        axes = ("lists", "candidates")
        read = {"age": Spec("float32", axes), "mask": Spec("bool", axes)}
        return {"list_scorer": Graph(lambda arrays: self({}, arrays), read, "scores", axes)}


@dataclass(frozen=True, kw_only=True)
class AgeConfig(ModelConfig):
    """Ages"""


inputs = lambda config: Inputs([], History(config.history_size), [Age()])  # noqa: E731
build = lambda config, inputs, dtype: AgeRanker(dtype=dtype)  # noqa: E731
register("age", AgeConfig, build, inputs=inputs, sampler="lists", defaults={"lr": 1e-2})
