"""A new training that starts from the weights of a published model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from nrms.models.two_tower import Recommender


def take_weights(
    model: Recommender, words: Sequence[str], file: Path, file_words: Sequence[str]
) -> int:
    """Gives the model the weights of a saved one. Word vectors go by the word: those of words that
    only the model has stay as they were drawn.

    Args:
        model: its weights created, of the sizes of the saved one.
        words: the model's vocabulary, in the order of the ids.
        file: a `model.keras`, which must be verified: such a file carries code.
        file_words: likewise, of the saved one.

    Returns:
        How many words both have, PAD and UNK not counted.
    """
    saved = keras.models.load_model(file, compile=False)
    row = {word: i for i, word in enumerate(file_words)}
    shared = np.array([i for i, word in enumerate(words) if word in row])
    (vectors,), (saved_vectors,) = (m.news_encoder.embedding.get_weights() for m in (model, saved))
    vectors[shared] = saved_vectors[[row[words[i]] for i in shared]]
    model.news_encoder.embedding.set_weights([vectors])
    others, saved_others = (
        [weight for weight in m.weights if weight is not m.news_encoder.embedding.weights[0]]
        for m in (model, saved)
    )
    for weight, value in zip(others, saved_others, strict=True):
        weight.assign(value)
    return len(shared) - 2
