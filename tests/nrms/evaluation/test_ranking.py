from itertools import pairwise, permutations

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from nrms.errors import SchemaError
from nrms.evaluation.ranking import METRICS, MetricSums, by_group, impression_metrics, ranks

MRR, NDCG5, NDCG10 = METRICS.index("mrr"), METRICS.index("ndcg@5"), METRICS.index("ndcg@10")


def ragged(rng, n, longest=14, levels=None):
    """Random impressions; `levels` distinct scores make ties. Some are empty, some
    have one class.
    """
    lengths = rng.integers(0, longest + 1, n)
    offsets = np.append(0, np.cumsum(lengths))
    c = offsets[-1]
    scores = rng.standard_normal(c) if levels is None else rng.integers(0, levels, c) - levels // 2
    return offsets, scores.astype(np.float32), rng.random(c) < 0.3


def each(offsets, *flat):
    for start, end in pairwise(offsets):
        yield tuple(array[start:end] for array in flat)


def one_class(clicked):
    return clicked.all() or not clicked.any()


def metrics_of_order(clicked):
    """MRR, nDCG@5, nDCG@10 of clicks listed from best to worst, as the field's
    scripts write them.
    """

    def dcg(gains, k):
        return sum((2**gain - 1) / np.log2(place + 2) for place, gain in enumerate(gains[:k]))

    clicked = [int(click) for click in clicked]
    ideal = sorted(clicked, reverse=True)
    mrr = sum(click / (place + 1) for place, click in enumerate(clicked)) / sum(clicked)
    return [mrr, dcg(clicked, 5) / dcg(ideal, 5), dcg(clicked, 10) / dcg(ideal, 10)]


@pytest.mark.parametrize("levels", [None, 4, 1])
def test_auc_equals_sklearn_and_is_nan_exactly_for_one_class_impressions(levels):
    offsets, scores, clicked = ragged(np.random.default_rng(0), 300, levels=levels)
    expected = [
        np.nan if one_class(click) else roc_auc_score(click, score)
        for score, click in each(offsets, scores, clicked)
    ]
    assert np.isnan(expected).sum() > 10
    np.testing.assert_allclose(
        impression_metrics(offsets, scores, clicked).auc, expected, atol=1e-12
    )


def test_without_ties_mrr_and_ndcg_equal_the_slow_definition():
    offsets, scores, clicked = ragged(np.random.default_rng(1), 300, longest=30)
    expected = [
        [np.nan] * 3 if one_class(click) else metrics_of_order(click[np.argsort(-score)])
        for score, click in each(offsets, scores, clicked)
    ]
    np.testing.assert_allclose(
        impression_metrics(offsets, scores, clicked).values[1:].T, expected, atol=1e-12
    )


def test_ndcg_equals_sklearn_also_with_ties():
    offsets, scores, clicked = ragged(np.random.default_rng(2), 200, levels=5)
    values = impression_metrics(offsets, scores, clicked).values
    for i, (score, click) in enumerate(each(offsets, scores, clicked)):
        if not one_class(click):
            assert values[NDCG5, i] == pytest.approx(ndcg_score([click], [score], k=5), abs=1e-12)
            assert values[NDCG10, i] == pytest.approx(ndcg_score([click], [score], k=10), abs=1e-12)


def test_with_ties_metrics_are_the_mean_over_all_orders_of_the_ties():
    offsets, scores, clicked = ragged(np.random.default_rng(3), 40, longest=6, levels=3)
    values = impression_metrics(offsets, scores, clicked).values
    for i, (score, click) in enumerate(each(offsets, scores, clicked)):
        if not one_class(click):
            orders = [
                list(order)
                for order in permutations(range(len(score)))
                if (np.diff(score[list(order)]) <= 0).all()
            ]
            expected = np.mean([metrics_of_order(click[order]) for order in orders], axis=0)
            np.testing.assert_allclose(values[1:, i], expected, atol=1e-12)


def test_infinities_and_both_zeros_rank_as_the_numbers_they_are():
    scores = np.array([-np.inf, 0.0, -0.0, np.inf, -1.0, 1e-45], np.float32)
    assert ranks(np.array([0, 6]), scores).tolist() == [6, 3, 4, 1, 5, 2]
    clicked = np.array([0, 1, 0, 0, 0, 0], bool)
    # One below is -inf, one is -1, one ties (-0), two are above.
    assert impression_metrics(np.array([0, 6]), scores, clicked).auc.tolist() == [2.5 / 5]


def test_ranks_start_at_one_and_ties_keep_their_order():
    offsets, scores, _ = ragged(np.random.default_rng(4), 200, levels=4)
    expected = []
    for (score,) in each(offsets, scores):
        order = sorted(range(len(score)), key=lambda i: (-score[i], i))
        expected += [order.index(i) + 1 for i in range(len(score))]
    places = ranks(offsets, scores)
    assert places.dtype == np.int32
    assert places.tolist() == expected


@pytest.mark.parametrize("offsets", [[0], [0, 0, 0]])
def test_shards_without_candidates_have_no_metrics(offsets):
    metrics = impression_metrics(np.array(offsets), np.zeros(0, np.float32), np.zeros(0, bool))
    assert metrics.values.shape == (4, len(offsets) - 1)
    assert np.isnan(metrics.values).all()
    assert len(ranks(np.array(offsets), np.zeros(0, np.float32))) == 0


def test_nan_scores_are_refused_with_their_row():
    offsets, scores = np.array([0, 2, 5]), np.array([1, 2, 3, np.nan, np.nan], np.float32)
    with pytest.raises(SchemaError, match="NaN for 2 of 5 candidates, first in row 1"):
        impression_metrics(offsets, scores, np.zeros(5, bool))
    with pytest.raises(SchemaError, match="row 1"):
        ranks(offsets, scores)


@pytest.mark.parametrize(("offsets", "clicks"), [([0, 2], 3), ([1, 3], 3), ([0, 3], 2)])
def test_arrays_that_do_not_belong_together_are_refused(offsets, clicks):
    with pytest.raises(ValueError, match="Received"):
        impression_metrics(np.array(offsets), np.zeros(3, np.float32), np.zeros(clicks, bool))


def test_shard_by_shard_equals_one_pass_and_counts_what_it_skips():
    offsets, scores, clicked = ragged(np.random.default_rng(5), 100)
    whole = MetricSums()
    whole.add(impression_metrics(offsets, scores, clicked))
    sharded = MetricSums()
    for first, last in ((0, 7), (7, 7), (7, 60), (60, 100)):
        own = slice(offsets[first], offsets[last])
        sharded.add(
            impression_metrics(
                offsets[first : last + 1] - offsets[first], scores[own], clicked[own]
            )
        )
    assert sharded.result() == pytest.approx(whole.result(), abs=1e-13)
    skipped = sum(one_class(click) for (click,) in each(offsets, clicked))
    assert whole.result()["skipped_one_class"] == skipped > 0
    assert whole.result()["impressions"] == 100
    assert whole.result()["candidates"] == len(scores)
    assert whole.result()["auc"] == pytest.approx(
        np.mean(
            [roc_auc_score(c, s) for s, c in each(offsets, scores, clicked) if not one_class(c)]
        )
    )


def test_means_are_absent_when_every_impression_was_skipped():
    sums = MetricSums()
    sums.add(impression_metrics(np.array([0, 2]), np.zeros(2, np.float32), np.ones(2, bool)))
    assert sums.result() == {"impressions": 1, "candidates": 2, "skipped_one_class": 1}


def test_group_means_skip_nan_and_add_up_over_shards():
    rng = np.random.default_rng(6)
    values, keys = rng.random((2, 90)), rng.integers(0, 4, 90)
    values[:, keys == 3] = np.nan
    values[:, :5] = np.nan
    whole = by_group(values, keys)
    first, last = by_group(values[:, :40], keys[:40]), by_group(values[:, 40:], keys[40:])
    assert list(whole) == [0, 1, 2]
    for key, group in whole.items():
        member = values[:, (keys == key) & ~np.isnan(values[0])]
        assert group.count == member.shape[1]
        assert group.mean == pytest.approx(member.mean(axis=1))
        assert group.standard_error == pytest.approx(member.std(axis=1, ddof=1) / group.count**0.5)
        parts = first[key] + last[key]
        assert (parts.mean, parts.count) == (pytest.approx(group.mean), group.count)
        assert (parts[1].mean, parts[1].standard_error, parts[1].count) == (
            pytest.approx(group.mean[1]),
            pytest.approx(group.standard_error[1]),
            group.count,
        )


def test_skipped_impressions_make_no_group():
    assert by_group(np.full((4, 3), np.nan), np.arange(3)) == {}
