"""NAML (Wu et al., IJCAI 2019): texts and categories of an article are views of it, and attention
says which of them count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from nrms.architectures.naml import NamlConfig
from nrms.features.category import Category
from nrms.features.inputs import Inputs
from nrms.features.text import Text
from nrms.features.vector import Vector
from nrms.layers.additive_attention import AdditiveAttention
from nrms.layers.sequence_encoder import ends
from nrms.layers.text_cnn import TextCnn
from nrms.models.two_tower import TwoTower


@keras.saving.register_keras_serializable(package="nrms")
class ViewsEncoder(keras.Model):
    """The news encoder of NAML (Wu et al., IJCAI 2019, section 3.1).

    A view for each text: word embedding, dropout, convolution, additive attention; for each
    category: embedding, dense layer with ReLU; for each given vector: dense layer with ReLU. Then
    additive attention over the views; a text without words is no view. The texts share word vectors
    and not convolutions.

    Args:
        vocabulary_size: number of word ids, PAD (0) and UNK (1) included; 0 without texts.
        texts: names of the texts.
        categories: the number of each category's ids, by name.
        vectors: the size of each given vector, by name.
        word_dim: size of a word vector.
        dim: size of a news vector.
        window: words that a filter sees.
        category_dim: size of a category's vector.
        attention_dim: hidden size of each pooling.
        dropout: rate of dropout after the word embedding and after the convolution.
        train_word_vectors: False freezes the embedding.

    Call arguments:
        articles: dictionary with int32 tensors of shape `(batch, words)` for texts, 0 = padding,
            and `(batch,)` for categories, and float tensors `(batch, size)` for given vectors.
        buckets: see `nrms.layers.sequence_encoder`.

    Returns:
        News vectors, a tensor of shape `(batch, dim)`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        texts: list[str],
        categories: Mapping[str, int],
        vectors: Mapping[str, int],
        word_dim: int = 300,
        dim: int = 400,
        window: int = 3,
        category_dim: int = 100,
        attention_dim: int = 200,
        dropout: float = 0.2,
        train_word_vectors: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocabulary_size, self.texts = vocabulary_size, list(texts)
        self.categories, self.vectors = dict(categories), dict(vectors)
        self.word_dim, self.dim, self.window = word_dim, dim, window
        self.category_dim, self.attention_dim = category_dim, attention_dim
        self.dropout, self.train_word_vectors = dropout, train_word_vectors
        policy = {"dtype": self.dtype_policy}
        self.embedding: Any = None
        if texts:
            self.embedding = keras.layers.Embedding(
                vocabulary_size, word_dim, trainable=train_word_vectors, name="words", **policy
            )
        self.word_dropout = keras.layers.Dropout(dropout, **policy)
        self.of_text = [
            TextCnn(dim, window, attention_dim, dropout, name=name, **policy) for name in texts
        ]
        self.of_category = [
            keras.layers.Embedding(size, category_dim, name=name, **policy)
            for name, size in self.categories.items()
        ]
        self.dense = [
            keras.layers.Dense(dim, "relu", name=f"{name}_view", **policy)
            for name in (*self.categories, *self.vectors)
        ]
        self.pooling = AdditiveAttention(attention_dim, name="views", **policy)

    def build_from_config(self, config: dict) -> None:
        """See `keras.layers.Layer.build_from_config`."""
        self.build((None,))

    def build(self, *shapes: tuple) -> None:
        """Creates all weights; their shapes do not depend on the input's."""
        if self.embedding is not None:
            self.embedding.build((None,))
        for text in self.of_text:
            text.build((None, self.word_dim))
        for embedding in self.of_category:
            embedding.build((None,))
        sizes = [*(self.category_dim for _ in self.categories), *self.vectors.values()]
        for dense, size in zip(self.dense, sizes, strict=True):
            dense.build((None, size))
        self.pooling.build((None, None, self.dim))
        self.built = True

    def call(self, articles, training=False, buckets=None):
        """See the class."""
        views, there = [], []
        for name, text in zip(self.texts, self.of_text, strict=True):
            ids = articles[name]
            ids = ids[:, : ops.max(ends(ids != 0), initial=1)]
            words, rows = ops.unique(ids, sorted=False, return_inverse=True)
            vectors = self.word_dropout(self.embedding(words), training=training)
            views.append(text(vectors, rows, ids != 0, training=training, buckets=buckets))
            there.append(ops.any(ids != 0, axis=1))
        of_category = zip(self.categories, self.of_category, strict=True)
        others = [embedding(articles[name]) for name, embedding in of_category]
        others += [ops.cast(articles[name], self.compute_dtype) for name in self.vectors]
        for dense, values in zip(self.dense, others, strict=True):
            views.append(dense(values))
            there.append(ops.ones_like(views[-1][:, 0], dtype="bool"))
        return self.pooling(ops.stack(views, axis=1), padding_mask=ops.stack(there, axis=1))

    def compute_output_shape(self, articles_shape: dict[str, tuple]) -> tuple:
        """`(batch, dim)`."""
        return (next(iter(articles_shape.values()))[0], self.dim)

    def get_config(self) -> dict:
        """See `keras.layers.Layer.get_config`."""
        names = (
            *("vocabulary_size", "texts", "categories", "vectors", "word_dim", "dim", "window"),
            *("category_dim", "attention_dim", "dropout", "train_word_vectors"),
        )
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="nrms")
class AttentiveUserEncoder(keras.Model):
    """The user encoder of NAML (Wu et al., IJCAI 2019, section 3.2): additive attention over the
    news vectors of a history.

    Args:
        dim: size of a news vector.
        attention_dim: hidden size of the pooling.

    Call arguments:
        news_vectors: float tensor of shape `(articles, dim)`, distinct articles. Row 0 stands for
            padding.
        history: int32 tensor of shape `(batch, history)`, row numbers into `news_vectors`, 0 =
            padding.
        buckets: not read.

    Returns:
        User vectors, a tensor of shape `(batch, dim)`; zeros for an empty history.
    """

    def __init__(self, dim: int = 400, attention_dim: int = 200, **kwargs):
        super().__init__(**kwargs)
        self.dim, self.attention_dim = dim, attention_dim
        self.pooling = AdditiveAttention(attention_dim, name="pooling", dtype=self.dtype_policy)

    def build_from_config(self, config: dict) -> None:
        """See `keras.layers.Layer.build_from_config`."""
        self.build((None,))

    def build(self, *shapes: tuple) -> None:
        """Creates all weights; their shapes do not depend on the input's."""
        self.pooling.build((None, None, self.dim))
        self.built = True

    def call(self, news_vectors, history, training=False, buckets=None):
        """See the class."""
        history = history[:, : ops.max(ends(history != 0), initial=1)]
        clicked = ops.take(news_vectors, history, axis=0)
        return self.pooling(clicked, padding_mask=history != 0)

    def compute_output_shape(self, news_vectors_shape: tuple, history_shape: tuple) -> tuple:
        """`(batch, dim)`."""
        return (history_shape[0], self.dim)

    def get_config(self) -> dict:
        """See `keras.layers.Layer.get_config`."""
        return {**super().get_config(), "dim": self.dim, "attention_dim": self.attention_dim}


def build(config: NamlConfig, inputs: Inputs, dtype: str) -> TwoTower:
    """See `nrms.models.build.build_model`."""
    every = inputs.articles
    news_encoder = ViewsEncoder(
        0 if inputs.words is None else len(inputs.words.tokenizer),
        [one.name for one in every if isinstance(one, Text)],
        {one.name: len(one) for one in every if isinstance(one, Category)},
        {one.name: one.dim for one in every if isinstance(one, Vector)},
        config.word_dim,
        config.filters,
        config.window,
        config.category_dim,
        config.attention_dim,
        config.dropout,
        config.train_word_vectors,
        dtype=dtype,
        name="news_encoder",
    )
    user_encoder = AttentiveUserEncoder(
        config.filters, config.attention_dim, dtype=dtype, name="user_encoder"
    )
    model = TwoTower(news_encoder, user_encoder, dtype=dtype)
    model.build()
    if inputs.words is not None and inputs.words.vectors is not None:
        news_encoder.embedding.set_weights([inputs.words.vectors])
    return model
