"""From a model's options to a Keras model."""

from __future__ import annotations

import numpy as np

from nrms.architectures import ModelConfig, architecture_of
from nrms.models.two_tower import Recommender


def build_model(
    config: ModelConfig,
    vocabulary_size: int,
    word_vectors: np.ndarray | None = None,
    precision: str = "float32",
) -> Recommender:
    """Builds the model whose options are given.

    Args:
        config: the model's dimensions.
        vocabulary_size: number of word ids, PAD and UNK included.
        word_vectors: float32 array of shape `(vocabulary_size, word_dim)` to start from, or None
            for random ones.
        precision: Keras dtype policy of the computation; the weights are float32 in each.

    Returns:
        The model, its weights created.
    """
    return architecture_of(config).build(config, vocabulary_size, word_vectors, precision)
