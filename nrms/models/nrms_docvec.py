"""NRMS on document vectors, as the benchmark of EB-NeRD has it (Kruse et al., arXiv:2410.03432):
dense layers in place of the news encoder.
"""

from __future__ import annotations

import keras

from nrms.architectures.nrms_docvec import NrmsDocvecConfig
from nrms.features.inputs import Inputs
from nrms.features.vector import Vector
from nrms.models.nrms import UserEncoder
from nrms.models.two_tower import TwoTower

_START = 0.01  # variance of the last layer's weights at the start, of Glorot's


@keras.saving.register_keras_serializable(package="nrms")
class DocumentEncoder(keras.Model):
    """Dense layers with ReLU, batch normalisation and dropout, and one without the latter two.

    Args:
        input_dim: size of a document vector.
        layers: number of layers before the last.
        hidden_dim: their size.
        dim: size of a news vector.
        dropout: rate of dropout after each of them.

    Call arguments:
        articles: dictionary with `vector`, a float tensor of shape `(batch, input_dim)`.
        buckets: not read, because all rows have one length.

    Returns:
        News vectors, a tensor of shape `(batch, dim)`.
    """

    def __init__(
        self, input_dim: int, layers: int, hidden_dim: int, dim: int, dropout: float, **kwargs
    ):
        super().__init__(**kwargs)
        self.input_dim, self.depth, self.hidden_dim = input_dim, layers, hidden_dim
        self.dim, self.dropout = dim, dropout
        policy = {"dtype": self.dtype_policy}
        self.dense = [
            keras.layers.Dense(hidden_dim, "relu", name=f"dense_{i}", **policy)
            for i in range(layers)
        ]
        self.norms = [
            keras.layers.BatchNormalization(name=f"norm_{i}", **policy) for i in range(layers)
        ]
        self.drop = keras.layers.Dropout(dropout, **policy)
        # Small, so that a training starts with nearly equal scores: dot products of vectors without
        # negative entries are large.
        small = keras.initializers.VarianceScaling(_START, "fan_avg", "uniform")
        self.last = keras.layers.Dense(dim, "relu", kernel_initializer=small, name="last", **policy)

    def build_from_config(self, config: dict) -> None:
        """See `keras.layers.Layer.build_from_config`."""
        self.build((None,))

    def build(self, *shapes: tuple) -> None:
        """Creates all weights; their shapes do not depend on the input's."""
        size = self.input_dim
        for dense, norm in zip(self.dense, self.norms, strict=True):
            dense.build((None, size))
            norm.build((None, self.hidden_dim))
            size = self.hidden_dim
        self.last.build((None, size))
        self.built = True

    def call(self, articles, training=False, buckets=None):
        """See the class."""
        vectors = articles["vector"]
        for dense, norm in zip(self.dense, self.norms, strict=True):
            vectors = self.drop(norm(dense(vectors), training=training), training=training)
        return self.last(vectors)

    def compute_output_shape(self, articles_shape: dict[str, tuple]) -> tuple:
        """`(batch, dim)`."""
        return (articles_shape["vector"][0], self.dim)

    def get_config(self) -> dict:
        """See `keras.layers.Layer.get_config`."""
        names = ("input_dim", "hidden_dim", "dim", "dropout")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **own, "layers": self.depth}


def build(config: NrmsDocvecConfig, inputs: Inputs, dtype: str) -> TwoTower:
    """See `nrms.models.build.build_model`."""
    (vector,) = inputs.articles
    assert isinstance(vector, Vector)
    news_encoder = DocumentEncoder(
        vector.dim,
        config.hidden_layers,
        config.hidden_dim,
        config.heads * config.head_dim,
        config.dropout,
        dtype=dtype,
        name="news_encoder",
    )
    user_encoder = UserEncoder(
        config.heads, config.head_dim, config.attention_dim, dtype=dtype, name="user_encoder"
    )
    model = TwoTower(news_encoder, user_encoder, dtype=dtype)
    model.build()
    return model
