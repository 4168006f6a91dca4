"""Layers that compare the candidates of a list with each other."""

from __future__ import annotations

import keras
from keras import ops

from nrms.layers.self_attention import MASKED

_COLUMNS = 8  # so many features are compared at once, which bounds memory in long lists


def gelu(values):
    """GELU (Hendrycks and Gimpel, 2016) by tanh, since ONNX export knows no other."""
    return ops.gelu(values, approximate=True)


def dense(layer: keras.layers.Dense, values, like, *split: int):
    """The layer applied to `(lists, length, dim)`, as one product of two matrices.

    Args:
        layer: the layer.
        values: see above.
        like: a tensor `(lists, length)`. Its shape is used, because tf2onnx 1.17 takes that of a
            product of matrices for the shape before it.
        split: sizes into which the last axis is split; it is whole without them.
    """
    shape = ops.shape(like)
    out = layer(ops.reshape(values, (-1, values.shape[-1])))
    return ops.reshape(out, (shape[0], shape[1], *(split or (layer.units,))))


def gathered(values, partners):
    """The rows of partners: `(lists, partners, dim)` of `values`, `(lists, candidates, dim)`, at
    `partners`, int32 `(lists, partners)`. A product of matrices, which takes a third of the time of
    a gather; some GPUs round in it.
    """
    every = ops.arange(ops.shape(values)[1], dtype="int32")
    return ops.matmul(ops.cast(partners[:, :, None] == every, values.dtype), values)


def partners_of(compared, most: int):
    """The candidates with which all of a list are compared.

    Args:
        compared: bool `(lists, candidates)`, True for at most `most` candidates of a list.
        most: see `compared`.

    Returns:
        Their positions, int32 `(lists, partners)`, and whether there is one, bool of that shape.
    """
    size = ops.minimum(most, ops.shape(compared)[1])
    values, places = ops.top_k(ops.cast(compared, "float32"), size)
    return places, values > 0.5


def relative(values, given, partners, there):
    """Values relative to their list.

    Args:
        values: float32 `(lists, candidates, dim)`.
        given: the same before any arithmetic. Which of two is larger is asked of these, because
            rounding makes some of them equal, and others in another runtime.
        partners: see `partners_of`.
        there: see `partners_of`.

    Returns:
        Two tensors of the shape of `values`: the difference to the mean of the partners; and the
        share of partners with a smaller value less the share with a larger one, from -1 to 1.
    """
    theirs = gathered(values, partners)
    theirs_given = ops.take_along_axis(given, partners[:, :, None], axis=1)  # digit by digit
    weight = ops.cast(there, "float32")
    count = ops.maximum(ops.sum(weight, axis=1), 1.0)[:, None, None]
    mean = ops.sum(theirs * weight[:, :, None], axis=1, keepdims=True) / count
    # Partners last, so that they lie side by side in memory where they are summed.
    ours, theirs = ops.transpose(given, (0, 2, 1)), ops.transpose(theirs_given, (0, 2, 1))
    dim = values.shape[-1]
    ranks = []
    for start in range(0, dim, _COLUMNS):
        part = slice(start, min(start + _COLUMNS, dim))
        signs = ops.sign(ours[:, part, :, None] - theirs[:, part, None, :])
        ranks.append(ops.matmul(signs, weight[:, None, :, None])[..., 0])
    ranks = ops.transpose(ops.concatenate(ranks, axis=1), (0, 2, 1))
    return values - mean, ranks / count


@keras.saving.register_keras_serializable(package="nrms")
class ListBlock(keras.layers.Layer):
    """A pre-norm Transformer block (Xiong et al., ICML 2020) over the candidates of a list, without
    positions: permuting a list permutes its output.

    Args:
        dim: size of a candidate's vector.
        heads: attention heads.
        head_dim: size of a head.
        hidden: hidden size of the feed-forward part.
        dropout: rate of dropout after the attention and after the feed-forward part.

    Call arguments:
        candidates: float tensor of shape `(lists, candidates, dim)`.
        like: a tensor of shape `(lists, candidates)`, see `dense`.
        partners: int32 `(lists, partners)`, the candidates that are attended to.
        there: bool of that shape, False where there is no partner.

    Returns:
        A tensor of the shape of `candidates`.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, hidden: int, dropout: float, **kwargs):
        super().__init__(**kwargs)
        self.dim, self.heads, self.head_dim = dim, heads, head_dim
        self.hidden, self.dropout = hidden, dropout
        width, policy = heads * head_dim, {"dtype": self.dtype_policy}
        self.norms = [keras.layers.LayerNormalization(**policy) for _ in range(2)]
        self.query = keras.layers.Dense(width, use_bias=False, **policy)
        self.key_value = keras.layers.Dense(2 * width, use_bias=False, **policy)
        self.out = keras.layers.Dense(dim, **policy)
        self.wide = keras.layers.Dense(hidden, **policy)
        self.narrow = keras.layers.Dense(dim, **policy)
        self.drop = keras.layers.Dropout(dropout, **policy)

    def build(self, *shapes: tuple) -> None:
        """Creates the weights."""
        for layer in (*self.norms, self.query, self.key_value, self.wide):
            layer.build((None, self.dim))
        self.out.build((None, self.heads * self.head_dim))
        self.narrow.build((None, self.hidden))
        self.built = True

    def call(self, candidates, like, partners, there, training=False):
        """See the class."""
        heads = (self.heads, self.head_dim)
        normed = self.norms[0](candidates)
        query = ops.transpose(dense(self.query, normed, like, *heads), (0, 2, 1, 3))
        both = dense(self.key_value, gathered(normed, partners), partners, 2, *heads)
        key, value = ops.unstack(ops.transpose(both, (2, 0, 3, 1, 4)), 2)
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
        scores = scores * self.head_dim**-0.5
        scores += ops.cast(ops.where(there, 0.0, MASKED), scores.dtype)[:, None, None, :]
        mixed = ops.transpose(ops.matmul(ops.softmax(scores, axis=-1), value), (0, 2, 1, 3))
        shape = ops.shape(like)
        mixed = ops.reshape(mixed, (shape[0], shape[1], self.heads * self.head_dim))
        candidates += self.drop(dense(self.out, mixed, like), training=training)
        wide = gelu(dense(self.wide, self.norms[1](candidates), like))
        return candidates + self.drop(dense(self.narrow, wide, like), training=training)

    def compute_output_shape(self, candidates_shape: tuple, *_: tuple) -> tuple:
        """That of `candidates`."""
        return candidates_shape

    def get_config(self) -> dict:
        """See `keras.layers.Layer.get_config`."""
        names = ("dim", "heads", "head_dim", "hidden", "dropout")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
