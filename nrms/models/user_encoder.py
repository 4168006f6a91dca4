"""Reading histories to user vectors."""

from __future__ import annotations

import keras

from nrms.layers.sequence_encoder import SequenceEncoder


@keras.saving.register_keras_serializable(package="nrms")
class UserEncoder(keras.Model):
    """The user encoder of NRMS (Wu et al., EMNLP-IJCNLP 2019, section 2.2).

    Multi-head self-attention and additive attention over the news vectors of a user's history.

    Args:
        heads: attention heads.
        head_dim: size of a head; `heads * head_dim` must be the size of a news vector.
        attention_dim: hidden size of the pooling.

    Call arguments:
        news_vectors: float tensor of shape `(articles, dim)`, distinct articles. Row 0 stands for
            padding.
        history: int32 tensor of shape `(batch, history)`, row numbers into `news_vectors`, 0 =
            padding.

    Returns:
        User vectors, a tensor of shape `(batch, heads * head_dim)`; zeros for an empty history.

    Example:

        >>> encoder = UserEncoder()
        >>> encoder(keras.random.normal((3, 400)), keras.ops.convert_to_tensor([[1, 2, 0]])).shape
        TensorShape([1, 400])
    """

    def __init__(self, heads: int = 20, head_dim: int = 20, attention_dim: int = 200, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.head_dim = head_dim
        self.attention_dim = attention_dim
        self.history = SequenceEncoder(
            heads, head_dim, attention_dim, name="history", dtype=self.dtype_policy
        )

    def build(
        self, news_vectors_shape: tuple | None = None, history_shape: tuple | None = None
    ) -> None:
        """Creates all weights; their shapes do not depend on the input's."""
        self.history.build((None, self.heads * self.head_dim))
        self.built = True

    def call(self, news_vectors, history, training=False):
        """See the class."""
        return self.history(news_vectors, history, padding_mask=history != 0, training=training)

    def compute_output_shape(self, news_vectors_shape: tuple, history_shape: tuple) -> tuple:
        """`(batch, heads * head_dim)`."""
        return (history_shape[0], self.heads * self.head_dim)

    def get_config(self) -> dict:
        """See `keras.layers.Layer.get_config`."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "head_dim": self.head_dim,
            "attention_dim": self.attention_dim,
        }
