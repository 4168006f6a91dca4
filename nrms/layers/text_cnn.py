"""A convolution over the words of a text, pooled into one vector."""

from __future__ import annotations

import keras
from keras import ops

from nrms.layers.additive_attention import AdditiveAttention
from nrms.layers.sequence_encoder import by_length, fastest_buckets


@keras.saving.register_keras_serializable(package="nrms")
class TextCnn(keras.layers.Layer):
    """Convolution over windows of words, ReLU, dropout, additive attention: the text encoder of
    NAML (Wu et al., IJCAI 2019, section 3.1).

    The product of a word and a row of the kernel is the same wherever the word stands, so it is
    made once for each distinct word of the batch. Words beside a text and padding are zeros.

    Args:
        filters: size of the vector.
        window: words that a filter sees, an odd number.
        attention_dim: hidden size of the pooling.
        dropout: rate between convolution and pooling.

    Call arguments:
        items: float tensor of shape `(words, dim)`, the distinct words of the batch.
        rows: int32 tensor of shape `(batch, length)`, row numbers into `items`.
        padding_mask: bool tensor of shape `(batch, length)`, False where a position is padding.
        buckets: number of groups of similar length, see `sequence_encoder.by_length`; None for the
            number that is fastest at this size.

    Returns:
        Tensor of shape `(batch, filters)`; zeros for a text without words.
    """

    def __init__(
        self, filters: int, window: int, attention_dim: int, dropout: float = 0.0, **kwargs
    ):
        super().__init__(**kwargs)
        if window % 2 != 1:
            raise ValueError(f"`window` should be an odd number. Received: `window` = {window}.")
        self.filters, self.window = filters, window
        self.attention_dim, self.dropout = attention_dim, dropout
        policy = {"dtype": self.dtype_policy}
        self.drop = keras.layers.Dropout(dropout, **policy)
        self.pooling = AdditiveAttention(attention_dim, name="pooling", **policy)

    def build(self, items_shape: tuple) -> None:
        """Creates all weights."""
        shape = (items_shape[-1], self.window * self.filters)
        # Glorot's range for the convolution, and not for the matrix in which it is written.
        size = items_shape[-1] * self.window + self.filters * self.window
        limit = (6 / size) ** 0.5
        start = keras.initializers.RandomUniform(-limit, limit)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=start)
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
        self.pooling.build((None, None, self.filters))
        self.built = True

    def call(self, items, rows, padding_mask, training=False, buckets=None):
        """See the class."""
        products = ops.matmul(items, self.kernel)
        taps = ops.split(products, self.window, axis=1)

        def encode(rows, mask):
            half, length = self.window // 2, ops.shape(rows)[1]
            beside = [[0, 0], [half, half]]
            rows, words = ops.pad(rows, beside), ops.pad(ops.cast(mask, products.dtype), beside)
            total = self.bias
            for start, tap in enumerate(taps):
                part = slice(start, start + length)
                total += ops.take(tap, rows[:, part], axis=0) * words[:, part, None]
            features = self.drop(ops.relu(total), training=training)
            return self.pooling(features, padding_mask=mask)

        return by_length(rows, padding_mask, buckets or fastest_buckets(self.filters), encode)

    def compute_output_shape(self, items_shape: tuple, rows_shape: tuple) -> tuple:
        """`(batch, filters)`."""
        return (rows_shape[0], self.filters)

    def get_config(self) -> dict:
        """See `keras.layers.Layer.get_config`."""
        names = ("filters", "window", "attention_dim", "dropout")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
