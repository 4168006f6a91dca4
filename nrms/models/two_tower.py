"""A pair of encoders that trains as one model."""

from __future__ import annotations

import keras
from keras import ops

from nrms.architectures.model_graph import Graph
from nrms.features.spec import Spec


@keras.saving.register_keras_serializable(package="nrms", name="Recommender")
class TwoTower(keras.Model):
    """Scores candidates by the dot product of a user vector and news vectors.

    A batch holds row numbers of articles. Its distinct articles are encoded once and gathered back,
    so an article costs the same in one history of the batch as in a hundred.

    Both encoders take `buckets`, see `nrms.layers.sequence_encoder`. The class is saved under the
    name `Recommender`, so that bundles of earlier releases can be loaded.

    Args:
        news_encoder: a model that takes a dictionary of tensors `(articles, ...)`, what it reads of
            articles, and gives vectors `(articles, dim)`. It has the attribute `dim`.
        user_encoder: a model that takes `news_vectors`, `(articles, dim)`, and `history`, int32
            `(batch, history)` with row numbers into them (0 = padding), and gives vectors
            `(batch, dim)`.

    Call arguments:
        articles: dictionary of tensors of shape `(articles + 1, ...)`, the whole catalogue; row 0
            is the unknown article.
        batch: dictionary with `history`, an int32 tensor of shape `(batch, history)`, row numbers
            into the catalogue, 0 = padding; `candidates`, the same of shape `(batch, candidates)`;
            and perhaps `mask`, bool of that shape, False where there is no candidate. Without it,
            that is where `candidates` is 0.

    Returns:
        Logits of shape `(batch, candidates)` in float32; -1e9 where there is no candidate.
    """

    scoring = "vectors"  # see nrms.inference

    def __init__(self, news_encoder: keras.Model, user_encoder: keras.Model, **kwargs):
        super().__init__(**kwargs)
        self.news_encoder = news_encoder
        self.user_encoder = user_encoder

    @property
    def word_vectors(self):
        """The weight that holds a vector for each word; None for a model that reads no words."""
        embedding = getattr(self.news_encoder, "embedding", None)
        return None if embedding is None else embedding.embeddings

    def build(self, *shapes: tuple) -> None:
        """Creates the encoders' weights; their shapes do not depend on the input's."""
        for encoder in (self.news_encoder, self.user_encoder):
            if not encoder.built:
                encoder.build((None,))
        self.built = True

    def build_from_config(self, config: dict) -> None:
        """See `keras.layers.Layer.build_from_config`."""
        self.build()

    def call(self, articles, batch, training=False):
        """See the class."""
        history, candidates = batch["history"], batch["candidates"]
        # Row 0 comes first, then the histories. So the first distinct article is padding, and those
        # that the user encoder needs come next.
        rows = ops.concatenate(
            [ops.zeros((1,), "int32"), ops.reshape(history, (-1,)), ops.reshape(candidates, (-1,))]
        )
        distinct, places = ops.unique(rows, sorted=False, return_inverse=True)
        split = 1 + ops.size(history)
        history = ops.reshape(places[1:split], ops.shape(history))
        candidate_vectors_at = ops.reshape(places[split:], ops.shape(candidates))

        read = {name: ops.take(array, distinct, axis=0) for name, array in articles.items()}
        vectors = self.news_encoder(read, training=training)
        in_histories = ops.max(history, initial=0) + 1
        users = self.user_encoder(vectors[:in_histories], history, training=training)
        logits = ops.squeeze(
            ops.matmul(ops.take(vectors, candidate_vectors_at, axis=0), users[:, :, None]), -1
        )
        mask = batch.get("mask", candidates != 0)
        return ops.where(mask, ops.cast(logits, "float32"), -1e9)

    def graphs(self, articles, buckets=None):
        """The two encoders, by name.

        Args:
            articles: what the model reads of articles, by name.
            buckets: see `nrms.layers.sequence_encoder`; None for the buckets of the layers.
        """
        dim = self.news_encoder.dim

        def encode_news(arrays):
            return self.news_encoder(arrays, buckets=buckets)

        def encode_users(arrays):
            return self.user_encoder(arrays["news_vectors"], arrays["history"], buckets=buckets)

        clicked = {
            "news_vectors": Spec("float32", ("articles", dim)),
            "history": Spec("int32", ("users", "history")),
        }
        return {
            "news_encoder": Graph(encode_news, articles, "news_vectors", ("articles", dim)),
            "user_encoder": Graph(encode_users, clicked, "user_vectors", ("users", dim)),
        }

    def get_config(self) -> dict:
        """See `keras.layers.Layer.get_config`."""
        return {
            **super().get_config(),
            "news_encoder": keras.saving.serialize_keras_object(self.news_encoder),
            "user_encoder": keras.saving.serialize_keras_object(self.user_encoder),
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> TwoTower:
        """See `keras.layers.Layer.from_config`."""
        encoders = {
            name: keras.saving.deserialize_keras_object(
                config.pop(name), custom_objects=custom_objects
            )
            for name in ("news_encoder", "user_encoder")
        }
        return cls(**encoders, **config)
