"""Multi-head self-attention over sequences whose items are projected beforehand."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

# Added to the score of a padding position, or used in its place. It is finite in float16, and its
# weight after a softmax is 0.
MASKED = -3e4


@keras.saving.register_keras_serializable(package="nrms")
class SelfAttention(keras.layers.Layer):
    """Multi-head self-attention (Vaswani et al., NeurIPS 2017) as NRMS uses it, without positions
    and biases.

    Without positions, an item's query, key and value do not depend on its place in a sequence. So
    each distinct item is projected once (`project`), and the sequences gather the projections. This
    saves most of the arithmetic, because it is in the projection, and words and articles repeat.

    Args:
        heads: number of attention heads.
        head_dim: size of each head's query, key and value.

    Call arguments:
        projected: queries, keys and values of the distinct items, as `project` gives them.
        rows: int32 tensor of shape `(batch, length)`, row numbers of the items.
        padding_mask: bool tensor of shape `(batch, length)`, False where a position is padding,
            which then gets no weight.

    Returns:
        Tensor of shape `(batch, length, heads * head_dim)`. The values at padding positions have no
        meaning, so the pooling must mask them again.

    Example:

        >>> layer = SelfAttention(heads=2, head_dim=3)
        >>> layer.build((None, 5))
        >>> rows = keras.ops.convert_to_tensor([[1, 2, 0]])
        >>> layer(layer.project(keras.random.normal((3, 5))), rows, padding_mask=rows != 0).shape
        TensorShape([1, 3, 6])
    """

    def __init__(self, heads: int, head_dim: int, **kwargs):
        super().__init__(**kwargs)
        for name, value in (("heads", heads), ("head_dim", head_dim)):
            if value < 1:
                raise ValueError(
                    f"`{name}` should be a positive integer. Received: `{name}` = {value}."
                )
        self.heads = heads
        self.head_dim = head_dim

    def build(self, items_shape: tuple) -> None:
        """Creates the projection of shape `(dim, 3 * heads * head_dim)`: queries, keys and values
        side by side.
        """
        dim, width = items_shape[-1], self.heads * self.head_dim
        # The Glorot limit of one (dim, width) matrix, of which three stand side by side in the
        # weight.
        limit = (6.0 / (dim + width)) ** 0.5
        self.projection = self.add_weight(
            name="projection",
            shape=(dim, 3 * width),
            initializer=keras.initializers.RandomUniform(-limit, limit),
        )
        self.built = True

    def project(self, items):
        """Queries, keys and values of `items`, `(items, dim)`: a tensor of shape `(items, 3,
        heads, head_dim)`.
        """
        projected = ops.matmul(items, ops.cast(self.projection, items.dtype))
        # Only queries are scaled; the ones keep it a single product.
        scale = np.repeat([self.head_dim**-0.5, 1.0, 1.0], self.heads * self.head_dim)
        return ops.reshape(projected * scale, (-1, 3, self.heads, self.head_dim))

    def call(self, projected, rows, padding_mask):
        """See the class."""
        parts = ops.transpose(ops.take(projected, rows, axis=0), (2, 0, 3, 1, 4))
        query, key, value = ops.unstack(parts, 3)  # each (batch, heads, length, head_dim)
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
        scores += ops.cast(ops.where(padding_mask, 0.0, MASKED), scores.dtype)[:, None, None, :]
        attended = ops.transpose(ops.matmul(ops.softmax(scores, axis=-1), value), (0, 2, 1, 3))
        return ops.reshape(attended, (*ops.shape(rows), self.heads * self.head_dim))

    def compute_output_shape(self, projected_shape: tuple, rows_shape: tuple) -> tuple:
        """`(batch, length, heads * head_dim)`."""
        return (*rows_shape, self.heads * self.head_dim)

    def get_config(self) -> dict:
        """See `keras.layers.Layer.get_config`."""
        return {**super().get_config(), "heads": self.heads, "head_dim": self.head_dim}
