"""Additive attention between the items of a sequence, in linear time."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from nrms.layers.self_attention import MASKED


@keras.saving.register_keras_serializable(package="nrms")
class FastAttention(keras.layers.Layer):
    """The attention of Fastformer (Wu et al., arXiv:2108.09084, section 3.1), head by head: a query
    of the whole sequence, which is multiplied into each key; a key of the whole sequence, which is
    multiplied into each value; a linear transform; and the item's own query added.

    Without positions, so that each distinct item is projected once, see `SelfAttention`, whose
    arguments and result it has.

    Args:
        heads: number of attention heads.
        head_dim: size of each head's query, key and value.
    """

    def __init__(self, heads: int, head_dim: int, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.head_dim = head_dim

    def build(self, items_shape: tuple) -> None:
        """Creates the projection of shape `(dim, 3 * heads * head_dim)`, queries, keys and values
        side by side; for each head a vector that weighs queries and one that weighs keys; and the
        transform.
        """
        dim, width = items_shape[-1], self.heads * self.head_dim
        limit = (6.0 / (dim + width)) ** 0.5  # Glorot's of one of the three
        self.projection = self.add_weight(
            name="projection",
            shape=(dim, 3 * width),
            initializer=keras.initializers.RandomUniform(-limit, limit),
        )
        self.weighing = self.add_weight(name="weighing", shape=(2, self.heads, self.head_dim))
        self.transform = self.add_weight(name="transform", shape=(width, width))
        self.built = True

    def project(self, items):
        """Queries, keys and values of `items`, `(items, dim)`: a tensor of shape `(items, 3,
        heads, head_dim)`.
        """
        projected = ops.matmul(items, ops.cast(self.projection, items.dtype))
        return ops.reshape(projected, (-1, 3, self.heads, self.head_dim))

    def call(self, projected, rows, padding_mask):
        """See the class."""
        # Each (batch, length, heads, head_dim).
        query, key, value = ops.unstack(ops.take(projected, rows, axis=0), 3, axis=2)
        weighing = ops.cast(self.weighing, query.dtype) * float(np.sqrt(1 / self.head_dim))
        of_query = self._pooled(query, weighing[0], padding_mask)
        key = key * of_query
        of_key = self._pooled(key, weighing[1], padding_mask)
        width = self.heads * self.head_dim
        mixed = ops.matmul(
            ops.reshape(value * of_key, (-1, width)), ops.cast(self.transform, query.dtype)
        )
        shape = (*ops.shape(rows), width)
        return ops.reshape(mixed, shape) + ops.reshape(query, shape)

    def _pooled(self, values, weighing, padding_mask):
        """The weighted mean over the sequence, `(batch, 1, heads, head_dim)`."""
        scores = ops.sum(values * weighing, axis=-1, keepdims=True)
        scores += ops.cast(ops.where(padding_mask, 0.0, MASKED), scores.dtype)[:, :, None, None]
        return ops.sum(ops.softmax(scores, axis=1) * values, axis=1, keepdims=True)

    def compute_output_shape(self, projected_shape: tuple, rows_shape: tuple) -> tuple:
        """`(batch, length, heads * head_dim)`."""
        return (*rows_shape, self.heads * self.head_dim)

    def get_config(self) -> dict:
        """See `keras.layers.Layer.get_config`."""
        return {**super().get_config(), "heads": self.heads, "head_dim": self.head_dim}
