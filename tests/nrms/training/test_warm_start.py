"""Weights of a published model in a new one."""

import keras
import numpy as np
import pytest

from nrms.architectures.nrms import NrmsConfig
from nrms.training.warm_start import take_weights
from tests.encoders import small_model

SIZES = {"word_dim": 4, "heads": 2, "head_dim": 3, "attention_dim": 5}
OLD = ["[PAD]", "[UNK]", "der", "hund", "kat"]
NEW = ["[PAD]", "[UNK]", "kat", "fugl", "hund", "ny"]


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_shared_words_take_their_vectors_along_and_new_ones_stay_as_drawn(
    tmp_path, frozen, dropout
):
    keras.utils.set_random_seed(1)
    saved = small_model(NrmsConfig(**SIZES), len(OLD))
    saved.save(tmp_path / "model.keras")
    config = NrmsConfig(**SIZES, train_word_vectors=not frozen, dropout=dropout)
    model = small_model(config, len(NEW))
    drawn = model.news_encoder.embedding.get_weights()[0]
    assert take_weights(model, NEW, tmp_path / "model.keras", OLD) == 2

    old, new = (m.news_encoder.embedding.get_weights()[0] for m in (saved, model))
    for i, word in enumerate(NEW):
        np.testing.assert_array_equal(new[i], old[OLD.index(word)] if word in OLD else drawn[i])
    words, histories = np.array([[2, 4, 1]], np.int32), np.array([[1, 0]], np.int32)
    translated = np.array([[OLD.index(NEW[i]) for i in words[0]]], np.int32)
    vectors = model.news_encoder({"title": words})
    np.testing.assert_array_equal(vectors, saved.news_encoder({"title": translated}))
    table = np.concatenate([np.zeros_like(vectors), vectors])
    np.testing.assert_array_equal(
        model.user_encoder(table, histories), saved.user_encoder(table, histories)
    )
