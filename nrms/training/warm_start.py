"""Starts a training from the weights of a published model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from nrms.errors import ConfigError
from nrms.models.ranked_text import RankedText


def take_weights(
    model: keras.Model, words: Sequence[str], file: Path, file_words: Sequence[str]
) -> int:
    """Gives the model the weights of a saved one; where only one of them is a text model below a
    ranker, the text model gets those of the text model. Word vectors are matched by their words,
    and those of words that only the model has are not changed.

    Args:
        model: the model, with its weights created, of the same sizes as the saved one.
        words: the model's vocabulary, in the order of the ids.
        file: a `model.keras`, which must be verified, because such a file carries code.
        file_words: the vocabulary of the saved model, in the order of the ids.

    Returns:
        The number of words that both have, PAD and UNK not counted.

    Raises:
        ConfigError: a ranker has other sizes.
    """
    saved = keras.models.load_model(file, compile=False)
    if isinstance(model, RankedText) != isinstance(saved, RankedText):
        model, saved = (one.text if isinstance(one, RankedText) else one for one in (model, saved))
    row = {word: i for i, word in enumerate(file_words)}
    shared = np.array([i for i, word in enumerate(words) if word in row], np.int64)
    ours, theirs = model.word_vectors, saved.word_vectors
    if ours is not None and theirs is not None:
        vectors, saved_vectors = np.array(ours), np.array(theirs)
        vectors[shared] = saved_vectors[[row[words[i]] for i in shared]]
        ours.assign(vectors)
    others, saved_others = (
        [weight for weight in m.weights if weight is not words_of]
        for m, words_of in ((model, ours), (saved, theirs))
    )
    if [weight.shape for weight in others] != [weight.shape for weight in saved_others]:
        raise ConfigError(
            "--init-from must name a model of the sizes of this training. Received: one whose "
            "ranker has others. Give --context-config the flags that it was trained with."
        )
    for weight, value in zip(others, saved_others, strict=True):
        weight.assign(value)
    return max(0, len(shared) - 2)
