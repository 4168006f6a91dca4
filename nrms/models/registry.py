"""The models that `--model` can name. A model is a pair of encoders; nothing else knows which one
it is.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from nrms.config import ModelConfig
from nrms.errors import ConfigError
from nrms.models.news_encoder import NewsEncoder
from nrms.models.two_tower import Recommender
from nrms.models.user_encoder import UserEncoder

if (keras.config.backend(), keras.config.floatx()) != ("tensorflow", "float32"):
    # The jobs set both; who imports this package sets them like everything else of his process.
    raise ConfigError(
        "Keras must run on tensorflow, in float32. Received: "
        f"{keras.config.backend()}, in {keras.config.floatx()}, of KERAS_BACKEND or keras.json. "
        "Set KERAS_BACKEND=tensorflow, and floatx to float32, before Keras is imported."
    )


def nrms(config: ModelConfig, vocabulary_size: int, dtype: str) -> Recommender:
    """NRMS (Wu et al., EMNLP-IJCNLP 2019): self-attention and additive attention in
    both encoders.
    """
    attention = {
        "heads": config.heads,
        "head_dim": config.head_dim,
        "attention_dim": config.attention_dim,
    }
    news_encoder = NewsEncoder(
        vocabulary_size,
        config.word_dim,
        dropout=config.dropout,
        train_word_vectors=config.train_word_vectors,
        dtype=dtype,
        name="news_encoder",
        **attention,
    )
    return Recommender(
        news_encoder, UserEncoder(dtype=dtype, name="user_encoder", **attention), dtype=dtype
    )


MODELS: dict[str, Callable[[ModelConfig, int, str], Recommender]] = {"nrms": nrms}


def build_model(
    config: ModelConfig,
    vocabulary_size: int,
    word_vectors: np.ndarray | None = None,
    precision: str = "float32",
) -> Recommender:
    """Builds the model that `config.model` names.

    Args:
        config: the model's dimensions.
        vocabulary_size: number of word ids, PAD and UNK included.
        word_vectors: float32 array of shape `(vocabulary_size, word_dim)` to start from, or None
            for random ones.
        precision: Keras dtype policy of the computation; the weights are float32 in each.

    Returns:
        The model, its weights created.
    """
    model = MODELS[config.model](config, vocabulary_size, precision)
    model.build()
    if word_vectors is not None:
        model.news_encoder.embedding.set_weights([word_vectors])
    return model
