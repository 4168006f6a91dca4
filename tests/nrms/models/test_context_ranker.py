"""The ranker of lists: neither padding nor the order of candidates moves a score, in short lists
and in those that are too long to be compared whole.
"""

import keras
import numpy as np
import pytest

from nrms.architectures.nrms import NrmsConfig
from nrms.features.context.features import COMPARED, NAMES
from nrms.layers.list_attention import partners_of, relative
from nrms.models.context import ContextRanker
from nrms.models.ranked_text import RankedText
from tests.encoders import small_model

pytestmark = pytest.mark.system
CLOSE = {"rtol": 0, "atol": 1e-5}


def batch(lists, length, compared=None, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, length + 1, lists)
    lengths[0] = length
    mask = np.arange(length) < lengths[:, None]
    context = rng.standard_normal((lists, length, len(NAMES))).astype(np.float32)
    context[:, :, :3] = context[:, :, :3].round()  # ties
    context[:, :, COMPARED] = 1 if compared is None else np.arange(length) % length < compared
    context[~mask] = 0
    text = np.where(mask, rng.standard_normal(mask.shape), 0).astype(np.float32)
    return {"context": context, "mask": mask, "text": text}


@pytest.fixture(scope="module", params=[{}, {"text": True}, {"text": True, "gate": True}])
def ranker(request):
    keras.utils.set_random_seed(0)
    model = ContextRanker(dim=16, heads=2, head_dim=8, hidden=16, max_list=12, **request.param)
    model.build()
    # At the start all scores are equal.
    model.logit.kernel.assign(keras.random.normal(model.logit.kernel.shape))
    return model


@pytest.mark.parametrize(("length", "compared"), [(9, None), (12, None), (40, 12)])
def test_order_and_padding_move_no_score(ranker, length, compared):
    read = batch(5, length, compared)
    expected = ranker({}, read).numpy()
    assert np.ptp(expected[read["mask"]]) > 0
    order = np.random.default_rng(1).permutation(length)
    turned = ranker({}, {name: array[:, order] for name, array in read.items()}).numpy()
    np.testing.assert_allclose(turned, expected[:, order], **CLOSE)
    wide = {
        name: np.pad(array, [(0, 0), (0, 7), *[(0, 0)] * (array.ndim - 2)])
        for name, array in read.items()
    }
    np.testing.assert_allclose(ranker({}, wide).numpy()[:, :length], expected, **CLOSE)
    alone = {name: array[:1] for name, array in read.items()}
    np.testing.assert_allclose(ranker({}, alone).numpy(), expected[:1], **CLOSE)


def test_values_relative_to_a_list_are_what_they_say():
    values = np.array([[[1.0], [3.0], [3.0], [9.0], [0.0]]], np.float32)
    compared = np.array([[True, True, True, True, False]])
    difference, rank = (
        np.array(part)[0, :, 0] for part in relative(values, values, *partners_of(compared, 4))
    )
    np.testing.assert_allclose(difference, [-3, -1, -1, 5, -4])
    np.testing.assert_allclose(rank, [-3 / 4, 0, 0, 3 / 4, -1])


def test_a_saved_ranker_is_the_same_ranker(ranker, tmp_path):
    ranker.standardise(np.full(ranker.mean.shape, 0.5), np.full(ranker.mean.shape, 2.0))
    ranker.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    read = batch(3, 8)
    np.testing.assert_array_equal(again({}, read).numpy(), ranker({}, read).numpy())


def test_an_unknown_candidate_has_the_mean_text_score_of_its_list():
    text = small_model(NrmsConfig(word_dim=8, heads=2, head_dim=4, attention_dim=4), words=9)
    titles = np.array([[0, 0], [2, 3], [4, 5], [6, 7]], np.int32)
    ranker = ContextRanker(text=True, dim=16, heads=2, head_dim=8, hidden=16)
    ranker.build()
    model = RankedText(text, ranker)
    seen = []
    ranker.call = lambda articles, batch, training=False: (
        seen.append(batch["text"]) or batch["text"]
    )
    read = batch(1, 4) | {
        "candidates": np.array([[1, 2, 0, 3]], np.int32),
        "history": np.array([[1, 3]], np.int32),
    }
    model.call({"title": titles}, read)
    (scores,) = np.array(seen[0])
    assert scores[2] == pytest.approx(scores[[0, 1, 3]].mean(), abs=1e-6)
    assert np.ptp(scores) > 0
