"""A model in one file: an article is the embedding of its category, a reader their mean."""

from dataclasses import dataclass

import keras
import pyarrow as pa
from keras import ops

from nrms.architectures import ModelConfig, register
from nrms.data.columns import row_numbers
from nrms.data.schema import Column
from nrms.features.inputs import ArticleInput, History, Inputs, registered
from nrms.models.two_tower import TwoTower


@registered
class Category(ArticleInput):
    kind, name = "example_category", "category"
    columns = (Column("category_str", "text", required=False),)

    def __init__(self, known=()):
        self.settings = {"known": list(known)}

    def fit(self, articles, rows):
        seen = articles.columns["category_str"].take(pa.array(rows))
        self.settings["known"] = seen.drop_null().unique().to_pylist()

    def encode(self, articles):
        known = pa.array(self.settings["known"], pa.string())
        return row_numbers(articles.columns["category_str"], known)


@keras.saving.register_keras_serializable(package="tests")
class CategoryEncoder(keras.layers.Embedding):
    dim = property(lambda self: self.output_dim)

    def call(self, articles, training=False, buckets=None):
        return super().call(articles["category"])


@keras.saving.register_keras_serializable(package="tests")
class MeanOfClicks(keras.layers.Layer):
    def call(self, news_vectors, history, training=False, buckets=None):
        mask = ops.cast(history != 0, news_vectors.dtype)[:, :, None]
        return ops.sum(ops.take(news_vectors, history, axis=0) * mask, 1) / (ops.sum(mask, 1) + 1)


@dataclass(frozen=True, kw_only=True)
class CategoryConfig(ModelConfig):
    """Categories"""


def build(config, inputs, dtype):
    count = 1 + len(inputs.articles[0].settings["known"])
    return TwoTower(CategoryEncoder(count, 8, dtype=dtype), MeanOfClicks(dtype=dtype), dtype=dtype)


inputs = lambda config: Inputs([Category()], History(config.history_size))  # noqa: E731
register("category", CategoryConfig, build, inputs=inputs, defaults={"lr": 1e-2})
