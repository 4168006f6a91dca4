"""NRMS the way reference implementations write it: what our training is measured against.

Plain Keras: every title of every sample is encoded again, padded to the full window, with nothing
shared between samples. The mathematics is that of `nrms.models`, and the weights can be carried
over in both directions.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from nrms.layers.additive_attention import AdditiveAttention
from nrms.models.two_tower import TwoTower


class NaiveAttention(keras.layers.Layer):
    """Masked multi-head self-attention over `(batch, length, dim)`, three dense projections at
    every position.
    """

    def __init__(self, heads: int, head_dim: int):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.projections = [keras.layers.Dense(heads * head_dim, use_bias=False) for _ in range(3)]

    def call(self, inputs: keras.KerasTensor, padding_mask: keras.KerasTensor) -> keras.KerasTensor:
        """Gives an array of shape `(batch, length, heads * head_dim)`."""
        batch, length = ops.shape(inputs)[0], ops.shape(inputs)[1]
        shape = (batch, length, self.heads, self.head_dim)
        query, key, value = (
            ops.transpose(ops.reshape(project(inputs), shape), (0, 2, 1, 3))
            for project in self.projections
        )
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / self.head_dim**0.5
        scores += ops.where(padding_mask, 0.0, -1e9)[:, None, None, :]
        attended = ops.transpose(ops.matmul(ops.softmax(scores), value), (0, 2, 1, 3))
        return ops.reshape(attended, (batch, length, self.heads * self.head_dim))


class NaiveNRMS(keras.Model):
    """NRMS on word ids: `history`, `(batch, history, title)`, and `candidates`, `(batch,
    candidates, title)`.
    """

    def __init__(self, like: TwoTower):
        super().__init__()
        news = like.news_encoder
        self.words = keras.layers.Embedding(
            news.vocabulary_size, news.word_dim, trainable=news.train_word_vectors
        )
        self.word_dropout = keras.layers.Dropout(news.dropout)
        self.title_attention = NaiveAttention(news.heads, news.head_dim)
        self.context_dropout = keras.layers.Dropout(news.dropout)
        self.title_pooling = AdditiveAttention(news.attention_dim)
        self.history_attention = NaiveAttention(news.heads, news.head_dim)
        self.history_pooling = AdditiveAttention(news.attention_dim)

    def call(
        self, inputs: tuple[keras.KerasTensor, keras.KerasTensor], training: bool = False
    ) -> keras.KerasTensor:
        """Logits, `(batch, candidates)`."""
        history, candidates = inputs
        clicked = self._news(history, training)
        mask = ops.any(history != 0, axis=-1)
        users = self.history_pooling(self.history_attention(clicked, mask), mask)
        logits = ops.squeeze(ops.matmul(self._news(candidates, training), users[:, :, None]), -1)
        return ops.where(ops.any(candidates != 0, axis=-1), logits, -1e9)

    def _news(self, titles: keras.KerasTensor, training: bool) -> keras.KerasTensor:
        batch, articles, length = ops.shape(titles)[0], ops.shape(titles)[1], ops.shape(titles)[2]
        titles = ops.reshape(titles, (batch * articles, length))
        mask = titles != 0
        context = self.title_attention(
            self.word_dropout(self.words(titles), training=training), mask
        )
        vectors = self.title_pooling(self.context_dropout(context, training=training), mask)
        return ops.reshape(vectors, (batch, articles, -1))


class DenseAdam(keras.optimizers.Adam):
    """Adam that adds up a repeated word's gradients before it squares them.

    Keras 3.15 squares each slice of a sparse gradient by itself, so with plain Adam the naive model
    would take other, larger steps than ours on frequent words, and reaching the same AUC would
    compare two different trainings.
    """

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        """See `keras.optimizers.Optimizer.apply`."""
        super().apply([tf.convert_to_tensor(gradient) for gradient in grads], trainable_variables)


def naive_weights(weights: list[np.ndarray]) -> list[np.ndarray]:
    """`TwoTower.get_weights()` to `NaiveNRMS.set_weights()`: the joined
    projections come apart.
    """
    words, title, *rest = weights
    title_pooling, (history, *history_pooling) = rest[:3], rest[3:]
    return [
        words,
        *np.split(title, 3, axis=1),
        *title_pooling,
        *np.split(history, 3, axis=1),
        *history_pooling,
    ]


def shared_weights(weights: list[np.ndarray]) -> list[np.ndarray]:
    """`NaiveNRMS.get_weights()` to `TwoTower.set_weights()`: the inverse of `naive_weights`."""
    words, news, users = weights[0], weights[1:7], weights[7:]
    return [
        words,
        *(w for six in (news, users) for w in (np.concatenate(six[:3], axis=1), *six[3:])),
    ]
