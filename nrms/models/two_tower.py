"""A pair of encoders that trains as one model."""

from __future__ import annotations

import keras
from keras import ops

from nrms.layers.sequence_encoder import ends


@keras.saving.register_keras_serializable(package="nrms")
class Recommender(keras.Model):
    """Scores candidates by the dot product of a user vector and news vectors.

    The batch holds row numbers only. Its distinct articles are encoded once and gathered back, so
    an article that stands in a hundred histories of the batch costs as much as one that stands in
    one.

    Args:
        news_encoder: model of `titles`, int32 `(articles, title)`, to vectors, `(articles, dim)`.
        user_encoder: model of `news_vectors`, `(articles, dim)`, and `history`, int32 `(batch,
            history)` of row numbers into them (0 = padding), to vectors, `(batch, dim)`.

    Call arguments:
        titles: int32 tensor of shape `(articles + 1, title)`, word ids of the whole catalogue; row
            0 is empty.
        history: int32 tensor of shape `(batch, history)`, row numbers into `titles`, 0 = padding.
        candidates: int32 tensor of shape `(batch, candidates)`, row numbers into `titles`, 0 = no
            candidate.

    Returns:
        Logits of shape `(batch, candidates)` in float32; -1e9 where there is no candidate.
    """

    def __init__(self, news_encoder: keras.Model, user_encoder: keras.Model, **kwargs):
        super().__init__(**kwargs)
        self.news_encoder = news_encoder
        self.user_encoder = user_encoder

    def build(self, *shapes: tuple) -> None:
        """Creates the encoders' weights; their shapes do not depend on the input's."""
        for encoder in (self.news_encoder, self.user_encoder):
            if not encoder.built:
                encoder.build()
        self.built = True

    def build_from_config(self, config: dict) -> None:
        """See `keras.layers.Layer.build_from_config`."""
        self.build()

    def call(self, titles, history, candidates, training=False):
        """See the class."""
        # Row 0 first, then the histories: so distinct article 0 is padding, and the articles that
        # the user encoder needs are the first ones.
        rows = ops.concatenate(
            [ops.zeros((1,), "int32"), ops.reshape(history, (-1,)), ops.reshape(candidates, (-1,))]
        )
        articles, distinct = ops.unique(rows, sorted=False, return_inverse=True)
        split = 1 + ops.size(history)
        history = ops.reshape(distinct[1:split], ops.shape(history))
        candidate_vectors_at = ops.reshape(distinct[split:], ops.shape(candidates))

        article_titles = ops.take(titles, articles, axis=0)
        longest = ops.max(ends(article_titles != 0), initial=1)
        vectors = self.news_encoder(article_titles[:, :longest], training=training)
        in_histories = ops.max(history, initial=0) + 1
        users = self.user_encoder(vectors[:in_histories], history, training=training)
        logits = ops.squeeze(
            ops.matmul(ops.take(vectors, candidate_vectors_at, axis=0), users[:, :, None]), -1
        )
        return ops.where(candidates != 0, ops.cast(logits, "float32"), -1e9)

    def get_config(self) -> dict:
        """See `keras.layers.Layer.get_config`."""
        return {
            **super().get_config(),
            "news_encoder": keras.saving.serialize_keras_object(self.news_encoder),
            "user_encoder": keras.saving.serialize_keras_object(self.user_encoder),
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> Recommender:
        """See `keras.layers.Layer.from_config`."""
        encoders = {
            name: keras.saving.deserialize_keras_object(
                config.pop(name), custom_objects=custom_objects
            )
            for name in ("news_encoder", "user_encoder")
        }
        return cls(**encoders, **config)
