"""NRMS (Wu et al., EMNLP-IJCNLP 2019): both encoders use self-attention and additive attention."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from nrms.architectures.nrms import NrmsConfig
from nrms.features.inputs import Inputs
from nrms.layers.sequence_encoder import SequenceEncoder, ends
from nrms.models.two_tower import TwoTower


@keras.saving.register_keras_serializable(package="nrms")
class NewsEncoder(keras.Model):
    """The news encoder of NRMS (Wu et al., EMNLP-IJCNLP 2019, section 2.1).

    Word embedding, dropout, multi-head self-attention, dropout, additive attention. The distinct
    words of a batch are embedded, dropped out and projected once, so within a batch a word has the
    same dropout mask wherever it stands.

    Args:
        vocabulary_size: number of word ids, PAD (0) and UNK (1) included.
        word_dim: size of a word vector.
        heads: attention heads.
        head_dim: size of a head.
        attention_dim: hidden size of the pooling.
        dropout: rate of dropout after the embedding and after the self-attention.
        train_word_vectors: False freezes the embedding.
        text: name of the words that it reads.
        attention: see `nrms.layers.sequence_encoder`.

    Call arguments:
        articles: dictionary with an int32 tensor of shape `(batch, words)` with word ids, 0 =
            padding, under the name `text`.
        buckets: see `nrms.layers.sequence_encoder`.

    Returns:
        News vectors, a tensor of shape `(batch, heads * head_dim)`; zeros for an empty title.

    Example:

        >>> encoder = NewsEncoder(vocabulary_size=100)
        >>> encoder({"title": keras.ops.convert_to_tensor([[5, 9, 2, 0]])}).shape
        TensorShape([1, 400])
    """

    def __init__(
        self,
        vocabulary_size: int,
        word_dim: int = 300,
        heads: int = 20,
        head_dim: int = 20,
        attention_dim: int = 200,
        dropout: float = 0.2,
        train_word_vectors: bool = True,
        text: str = "title",
        attention: str = "self",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.text, self.attention = text, attention
        self.vocabulary_size = vocabulary_size
        self.word_dim = word_dim
        self.heads = heads
        self.head_dim = head_dim
        self.attention_dim = attention_dim
        self.dropout = dropout
        self.train_word_vectors = train_word_vectors
        self.embedding = keras.layers.Embedding(
            vocabulary_size,
            word_dim,
            trainable=train_word_vectors,
            name="words",
            dtype=self.dtype_policy,
        )
        self.word_dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.title = SequenceEncoder(
            *(heads, head_dim, attention_dim, dropout),
            attention=attention,
            name="title",
            dtype=self.dtype_policy,
        )

    @property
    def dim(self) -> int:
        """Size of a news vector."""
        return self.heads * self.head_dim

    def build_from_config(self, config: dict) -> None:
        """See `keras.layers.Layer.build_from_config`."""
        self.build((None,))

    def build(self, *shapes: tuple) -> None:
        """Creates all weights; their shapes do not depend on the input's."""
        self.embedding.build((None,))
        self.title.build((None, self.word_dim))
        self.built = True

    def call(self, articles, training=False, buckets=None):
        """See the class."""
        titles = articles[self.text]
        titles = titles[:, : ops.max(ends(titles != 0), initial=1)]
        words, rows = ops.unique(titles, sorted=False, return_inverse=True)
        vectors = self.word_dropout(self.embedding(words), training=training)
        return self.title(
            vectors, rows, padding_mask=titles != 0, training=training, buckets=buckets
        )

    def compute_output_shape(self, articles_shape: dict[str, tuple]) -> tuple:
        """`(batch, heads * head_dim)`."""
        return (articles_shape[self.text][0], self.dim)

    def get_config(self) -> dict:
        """See `keras.layers.Layer.get_config`."""
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "word_dim": self.word_dim,
            "heads": self.heads,
            "head_dim": self.head_dim,
            "attention_dim": self.attention_dim,
            "dropout": self.dropout,
            "train_word_vectors": self.train_word_vectors,
            "text": self.text,
            "attention": self.attention,
        }


@keras.saving.register_keras_serializable(package="nrms")
class UserEncoder(keras.Model):
    """The user encoder of NRMS (Wu et al., EMNLP-IJCNLP 2019, section 2.2).

    Multi-head self-attention and additive attention over the news vectors of a user's history.

    Args:
        heads: attention heads.
        head_dim: size of a head; `heads * head_dim` must be the size of a news vector.
        attention_dim: hidden size of the pooling.
        attention: see `nrms.layers.sequence_encoder`.

    Call arguments:
        news_vectors: float tensor of shape `(articles, dim)`, distinct articles. Row 0 stands for
            padding.
        history: int32 tensor of shape `(batch, history)`, row numbers into `news_vectors`, 0 =
            padding.
        buckets: see `nrms.layers.sequence_encoder`.

    Returns:
        User vectors, a tensor of shape `(batch, heads * head_dim)`; zeros for an empty history.

    Example:

        >>> encoder = UserEncoder()
        >>> encoder(keras.random.normal((3, 400)), keras.ops.convert_to_tensor([[1, 2, 0]])).shape
        TensorShape([1, 400])
    """

    def __init__(
        self,
        heads: int = 20,
        head_dim: int = 20,
        attention_dim: int = 200,
        attention: str = "self",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads = heads
        self.head_dim = head_dim
        self.attention_dim, self.attention = attention_dim, attention
        self.history = SequenceEncoder(
            *(heads, head_dim, attention_dim),
            attention=attention,
            name="history",
            dtype=self.dtype_policy,
        )

    def build_from_config(self, config: dict) -> None:
        """See `keras.layers.Layer.build_from_config`."""
        self.build((None,))

    def build(self, *shapes: tuple) -> None:
        """Creates all weights; their shapes do not depend on the input's."""
        self.history.build((None, self.heads * self.head_dim))
        self.built = True

    def call(self, news_vectors, history, training=False, buckets=None):
        """See the class."""
        return self.history(
            news_vectors, history, padding_mask=history != 0, training=training, buckets=buckets
        )

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
            "attention": self.attention,
        }


def build(config: NrmsConfig, inputs: Inputs, dtype: str, between: str = "self") -> TwoTower:
    """See `nrms.models.build.build_model`. `between` is the attention of both encoders."""
    attention: dict[str, Any] = {
        "heads": config.heads,
        "head_dim": config.head_dim,
        "attention_dim": config.attention_dim,
        "attention": between,
    }
    news_encoder = NewsEncoder(
        len(inputs.words.tokenizer),
        config.word_dim,
        dropout=config.dropout,
        train_word_vectors=config.train_word_vectors,
        text=inputs.words.name,
        dtype=dtype,
        name="news_encoder",
        **attention,
    )
    model = TwoTower(
        news_encoder, UserEncoder(dtype=dtype, name="user_encoder", **attention), dtype=dtype
    )
    model.build()
    if inputs.words.vectors is not None:
        news_encoder.embedding.set_weights([inputs.words.vectors])
    return model
