"""The reasons of a score against those of a model whose weights are known, and their words."""

import numpy as np
import pyarrow as pa
import pytest

from nrms.data.impressions import Impressions
from nrms.data.quality import DataReport
from nrms.features.context.features import GROUPS, NAMES, PLACES
from nrms.features.context.words import WORDS
from nrms.features.text_scores import TEXT
from nrms.inference.explanation import reasons
from nrms.inference.ranked import RankedScorer

RNG = np.random.default_rng(5)
OFFSETS = np.array([0, 3, 7])
FEATURES = RNG.standard_normal((7, len(NAMES))).astype(np.float32)
TEXTS = np.array([0, 0, 0, 5, 1, 1, 1], np.float32)
LIST = slice(3, 7)


class Linear:
    """Adds up the features by weights, and the text's score where there is one."""

    def __init__(self, **weights: float) -> None:
        self.weights = np.zeros(len(NAMES))
        for name, weight in weights.items():
            self.weights[PLACES[name]] = weight

    def score(self, lists) -> np.ndarray:
        text = lists.per_candidate.get(TEXT, 0)
        return (lists.per_candidate["context"] @ self.weights + text).astype(np.float32)


class Texts:
    """The text model: its scores belong to candidates 1 to 7."""

    def score(self, lists) -> np.ndarray:
        return TEXTS[lists.candidates - 1]


@pytest.fixture
def impressions() -> Impressions:
    return Impressions(
        pa.array([1, 2]),
        pa.array([8, 9]),
        None,
        np.array([1, 2], np.int32),
        OFFSETS,
        np.arange(1, 8, dtype=np.int32),
        None,
        pa.array(range(7)),
        None,
        None,
        DataReport({}),
        per_candidate={"context": FEATURES},
    )


def test_what_moves_a_score_most_is_found_with_its_share(impressions):
    weights = {"win_mean_4h": 0.5, "rate_24h": -2.0, "page_rate": 0.1, "newer_ids": 0.01}
    found = reasons(Linear(**weights), impressions, "context", 1, 2)
    changes = {}
    for name, weight in weights.items():
        values = FEATURES[LIST, PLACES[name]]
        changes[name] = weight * (values[2] - values.mean())
    expected = sorted(changes, key=lambda name: -abs(changes[name]))[:3]
    assert [one.feature for one in found] == expected
    for one in found:
        assert one.change == pytest.approx(changes[one.feature], abs=1e-5)
        assert one.value == FEATURES[5, PLACES[one.feature]]
        assert one.mean == pytest.approx(FEATURES[LIST, PLACES[one.feature]].mean(), abs=1e-6)
        assert one.words == WORDS[one.feature]


def test_what_a_list_has_in_common_and_what_nothing_hangs_on_is_no_reason(impressions):
    FEATURES[:, PLACES["since_first"]] = 3
    weights = {"ln_length": 9.0, "front_page": 9.0, "since_first": 9.0}
    assert reasons(Linear(**weights), impressions, "context", 0, 0) == []


def test_the_text_is_a_reason_where_a_text_model_is_below(impressions):
    scorer = RankedScorer(Texts(), Linear(depth_4h=1e-3))
    (first, *_) = reasons(scorer, impressions, "context", 1, 0)
    assert (first.feature, first.value, first.mean) == (TEXT, 5, 2)
    assert first.change == pytest.approx(3, abs=1e-5)


def test_every_feature_has_words_of_its_own():
    assert set(WORDS) == {*NAMES, TEXT}
    assert len(set(WORDS.values())) == len(WORDS)
    assert all(name in WORDS for group in GROUPS.values() for name in group)
