"""A text model and a ranker of lists that reads its scores, as one model."""

from __future__ import annotations

import keras
from keras import ops

from nrms.features.text_scores import TEXT


@keras.saving.register_keras_serializable(package="nrms")
class RankedText(keras.Model):
    """A text model, and a ranker that reads its scores.

    Args:
        text: a model that is scored by vectors, such as `nrms.models.two_tower.TwoTower`.
        ranker: a model of lists that reads `text`, such as `nrms.models.context.ContextRanker`.

    Call arguments:
        articles: what the text model reads of articles.
        batch: what both read.

    Returns:
        The ranker's logits.
    """

    scoring = "ranked"  # see nrms.inference

    def __init__(self, text: keras.Model, ranker: keras.Model, **kwargs):
        super().__init__(autocast=False, **kwargs)  # each part casts what it reads
        self.text, self.ranker = text, ranker

    @property
    def word_vectors(self):
        """Those of the text model."""
        return getattr(self.text, "word_vectors", None)

    def build(self, *shapes: tuple) -> None:
        """Creates the weights of both."""
        for part in (self.text, self.ranker):
            if not part.built:
                part.build()
        self.built = True

    def build_from_config(self, config: dict) -> None:
        """See `keras.layers.Layer.build_from_config`."""
        self.build()

    def call(self, articles, batch, training=False):
        """See the class."""
        known = ops.logical_and(batch["mask"], batch["candidates"] != 0)
        weight = ops.cast(known, "float32")
        scores = self.text(articles, batch, training=training) * weight
        mean = ops.sum(scores, axis=1, keepdims=True)
        mean /= ops.maximum(ops.sum(weight, axis=1, keepdims=True), 1.0)
        scores = ops.where(known, scores, mean)  # an unknown article's place is neutral
        return self.ranker({}, {**batch, TEXT: scores}, training=training)

    def graphs(self, articles, buckets=None):
        """Those of both, by name."""
        return {**self.text.graphs(articles, buckets), **self.ranker.graphs({})}

    def get_config(self) -> dict:
        """See `keras.layers.Layer.get_config`."""
        parts = {
            name: keras.saving.serialize_keras_object(getattr(self, name))
            for name in ("text", "ranker")
        }
        return {**super().get_config(), **parts}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> RankedText:
        """See `keras.layers.Layer.from_config`."""
        parts = {
            name: keras.saving.deserialize_keras_object(
                config.pop(name), custom_objects=custom_objects
            )
            for name in ("text", "ranker")
        }
        return cls(**parts, **config)
