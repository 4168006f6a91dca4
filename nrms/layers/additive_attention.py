"""Additive attention pooling."""

from __future__ import annotations

import keras
from keras import ops

from nrms.layers.self_attention import MASKED


@keras.saving.register_keras_serializable(package="nrms")
class AdditiveAttention(keras.layers.Layer):
    """Pools a sequence into one vector, with the weights `softmax(q . tanh(x W + b))`.

    The pooling of NRMS (Wu et al., EMNLP-IJCNLP 2019, equations 3, 4 and 7, 8), after Bahdanau et
    al. (ICLR 2015).

    Args:
        attention_dim: size of the hidden projection.

    Call arguments:
        inputs: float tensor of shape `(batch, length, dim)`.
        padding_mask: bool tensor of shape `(batch, length)`, False where a position is padding,
            whose weight is then 0.

    Returns:
        Tensor of shape `(batch, dim)`; zeros for a sequence of padding only.

    Example:

        >>> layer = AdditiveAttention(attention_dim=4)
        >>> layer(keras.random.normal((2, 3, 5)), padding_mask=keras.ops.ones((2, 3), "bool")).shape
        TensorShape([2, 5])
    """

    def __init__(self, attention_dim: int, **kwargs):
        super().__init__(**kwargs)
        if attention_dim < 1:
            raise ValueError(
                f"`attention_dim` should be a positive integer. Received: `attention_dim` = "
                f"{attention_dim}."
            )
        self.attention_dim = attention_dim

    def build(self, inputs_shape: tuple) -> None:
        """Creates the projection, its bias and the query vector."""
        self.projection = self.add_weight(
            name="projection", shape=(inputs_shape[-1], self.attention_dim)
        )
        self.bias = self.add_weight(name="bias", shape=(self.attention_dim,), initializer="zeros")
        self.query = self.add_weight(name="query", shape=(self.attention_dim, 1))
        self.built = True

    def call(self, inputs, padding_mask):
        """See the class."""
        shape = ops.shape(padding_mask)
        dim = self.projection.shape[0]  # runtimes trace the inputs for any size
        hidden = ops.matmul(ops.reshape(inputs, (-1, dim)), self.projection)
        # Reshaped before the bias is added. Otherwise TensorFlow would make one operation of the
        # product and the bias, which rounds differently.
        hidden = ops.reshape(hidden, (*shape, self.attention_dim))
        hidden = ops.reshape(ops.tanh(hidden + self.bias), (-1, self.attention_dim))
        scores = ops.reshape(ops.matmul(hidden, self.query), shape)
        scores = ops.where(padding_mask, scores, ops.cast(MASKED, scores.dtype))
        # A softmax over padding alone is uniform, and the multiplication makes it zero.
        weights = ops.softmax(scores, axis=-1) * ops.cast(padding_mask, scores.dtype)
        return ops.squeeze(ops.matmul(ops.expand_dims(weights, 1), inputs), 1)

    def compute_output_shape(self, inputs_shape: tuple) -> tuple:
        """`(batch, dim)`."""
        return (inputs_shape[0], inputs_shape[-1])

    def get_config(self) -> dict:
        """See `keras.layers.Layer.get_config`."""
        return {**super().get_config(), "attention_dim": self.attention_dim}
