"""The Keras runtime of the two encoders."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import nrms.models  # noqa: F401  the layers of every model must be known before one is loaded
from nrms.models.two_tower import Recommender


class KerasEncoders:
    """Runs a `Recommender`'s encoders on NumPy arrays (see `nrms.inference.scorer.Encoders`).

    Args:
        model: the model; its current weights are used at each call.
    """

    positions = 65_536  # tensors of 100 MB at 400 dimensions, worked on in 8 buckets

    def __init__(self, model: Recommender):
        # Traced once for every shape: batches differ in size and length.
        self._news = tf.function(
            lambda titles: model.news_encoder(titles),
            input_signature=[tf.TensorSpec((None, None), tf.int32)],
            autograph=False,
        )
        self._users = tf.function(
            lambda vectors, history: model.user_encoder(vectors, history),
            input_signature=[
                tf.TensorSpec((None, None), tf.float32),
                tf.TensorSpec((None, None), tf.int32),
            ],
            autograph=False,
        )

    @classmethod
    def load(cls, path: Path) -> KerasEncoders:
        """The encoders of a `model.keras`, which must be verified: such a file carries code."""
        encoders = cls(keras.models.load_model(path, compile=False))
        # Now and not in the first batch, whose time would say nothing.
        encoders._news.get_concrete_function()
        encoders._users.get_concrete_function()
        return encoders

    def encode_news(self, titles: np.ndarray) -> np.ndarray:
        """See `nrms.inference.scorer.Encoders`."""
        return self._news(titles).numpy()

    def encode_users(self, news_vectors: np.ndarray, history: np.ndarray) -> np.ndarray:
        """See `nrms.inference.scorer.Encoders`."""
        return self._users(news_vectors, history).numpy()
