"""The histogram of the scores."""

from types import SimpleNamespace

import numpy as np
import pytest

from api.answers.summary import histogram


def scored(scores: np.ndarray, clicked: np.ndarray | None = None) -> SimpleNamespace:
    return SimpleNamespace(scores=scores, impressions=SimpleNamespace(clicked=clicked))


@pytest.mark.parametrize("count", [10, 300, 20_000])
def test_an_outlier_does_not_squeeze_the_histogram(count):
    scores = np.random.default_rng(1).normal(size=count).astype(np.float32)
    scores[[3, 5]] = 1e6, -1e5
    clicked = np.arange(count) % 2 == 0
    found = histogram(scored(scores, clicked))
    assert -10 < found["edges"][0] < found["edges"][-1] < 10
    below, above = found["outside"]
    assert 1 <= below <= max(1, count // 1000)
    assert 1 <= above <= max(1, count // 1000)
    assert sum(found["all"]) == count == sum(found["clicked"]) + sum(found["not_clicked"])
    assert sum(bins > 0 for bins in found["all"]) > 4


@pytest.mark.parametrize("scores", [[], [1.0], [2.0, 2.0], [1.0, 2.0, 3.0], list(range(5_000))])
def test_a_histogram_without_outliers_covers_all_scores(scores):
    found = histogram(scored(np.array(scores, np.float32)))
    assert "outside" not in found
    assert sum(found["all"]) == len(scores)
    if scores:
        assert (found["edges"][0], max(scores)) == (
            min(scores),
            min(found["edges"][-1], max(scores)),
        )
