"""The differences of two rankings: by hand, by enumeration, and by simulation."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest

from nrms.evaluation.intervals import GROUPS, impression_keys
from nrms.evaluation.paired import PairedSums, p_text, paired_differences, span_text
from nrms.evaluation.ranking import METRICS


def keys(n, first=0):
    ids = pa.array(np.arange(first, first + n))
    return impression_keys(ids, ids)


def sums(a, b, first=0):
    """Of AUCs; the other metrics are half as high."""
    found = PairedSums()
    a, b = (np.stack([np.asarray(x, float), *[np.asarray(x) / 2] * 3]) for x in (a, b))
    found.add(keys(a.shape[1], first), a, b)
    return found


def compared(part, resamples=1000, seed=42):
    (found,) = paired_differences([part], resamples, seed)
    return found


def test_means_and_differences_are_those_of_the_impressions_that_both_measure():
    found = compared(sums([0.5, 1.0, np.nan, 0.25], [1.0, 0.75, 0.5, 0.75]))
    assert list(found) == [*METRICS, "impressions"]
    assert found["impressions"] == 3
    assert {name: found["auc"][name] for name in ("a", "b", "difference")} == pytest.approx(
        {"a": 1.75 / 3, "b": 2.5 / 3, "difference": 0.25}
    )
    assert found["mrr"]["difference"] == found["ndcg@10"]["difference"] == pytest.approx(0.125)
    assert found["mrr"]["interval"] == pytest.approx([end / 2 for end in found["auc"]["interval"]])
    assert found["mrr"]["p"] == found["auc"]["p"]


def enumerated(differences):
    """All values that a replicate of these impressions can have, and their chances: each is drawn
    0, 1, 2, ... times, with the chances of Poisson(1).
    """
    chances = [math.exp(-1) / math.factorial(times) for times in range(10)]
    values = {}
    for drawn in itertools.product(range(10), repeat=len(differences)):
        if sum(drawn):
            mean = sum(n * d for n, d in zip(drawn, differences, strict=True)) / sum(drawn)
            chance = math.prod(chances[n] for n in drawn)
            values[round(mean, 9)] = values.get(round(mean, 9), 0.0) + chance
    total = sum(values.values())
    return np.array(list(values)), np.array(list(values.values())) / total


@pytest.mark.parametrize(
    "differences",
    [(0.5, -0.25, 0.25), (0.25, 0.5, 0.75), (0.5, -0.5), (0.0, 0.0, 0.5), (0.5, 0.5, -0.25, 0.0)],
)
def test_a_small_case_is_as_enumeration_says(differences):
    a = np.full(len(differences), 0.5)
    part = sums(a, a + differences)
    assert len(np.unique(keys(len(differences)) % GROUPS)) == len(differences)
    found = compared(part, resamples=4000)["auc"]
    values, chances = enumerated(differences)
    sure = 0.01  # four standard deviations of a share of 0.025 of 4,000
    for end, share in zip(found["interval"], (0.025, 0.975), strict=True):
        assert chances[values < end - 1e-6].sum() <= share + sure
        assert chances[values <= end + 1e-6].sum() >= share - sure
    beyond = min(chances[values <= 1e-6].sum(), chances[values >= -1e-6].sum())
    assert found["p"] == pytest.approx(min(1, 2 * beyond), abs=0.06)


def test_equal_rankings_differ_by_nothing():
    rng = np.random.default_rng(0)
    auc = rng.random(500)
    for found in compared(sums(auc, auc)).values():
        if isinstance(found, dict):
            assert (found["difference"], found["interval"], found["p"]) == (0, [0, 0], 1)


def test_p_is_never_zero_and_small_where_one_ranking_is_always_better():
    rng = np.random.default_rng(1)
    auc = rng.random(500) / 2
    better = compared(sums(auc, auc + 0.1))["auc"]
    assert better["p"] == pytest.approx(2 / 1001)
    assert better["interval"] == pytest.approx([0.1, 0.1])
    assert compared(sums(auc + 0.1, auc))["auc"]["p"] == better["p"]


def test_neither_order_nor_parts_change_a_digit():
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 4, 1000))
    a[:, ::7] = np.nan
    given = keys(1000)
    whole = PairedSums()
    whole.add(given, a, b)
    parts = PairedSums()
    for part in np.array_split(rng.permutation(1000), 5):
        one = PairedSums()
        one.add(given[part], a[:, part], b[:, part])
        parts += one
    assert paired_differences([parts, whole], 2000, 1) == [compared(whole, 2000, 1)] * 2


def test_another_seed_draws_others_and_more_resamples_draw_on():
    rng = np.random.default_rng(3)
    part = sums(*rng.random((2, 400)))
    one, other, more = (
        compared(part, *given)["auc"] for given in ((1000, 1), (1000, 2), (4000, 1))
    )
    assert one == compared(part, 1000, 1)["auc"]
    width = one["interval"][1] - one["interval"][0]
    for found in (other, more):
        assert found["interval"] != one["interval"]
        assert found["interval"] == pytest.approx(one["interval"], abs=0.15 * width)


def test_of_one_impression_only_the_difference_is_known_and_of_none_nothing():
    assert compared(sums([0.5], [0.75]))["auc"] == {"a": 0.5, "b": 0.75, "difference": 0.25}
    assert compared(sums([np.nan], [0.75])) == {"impressions": 0}
    assert span_text({}) == p_text({}) == ""
    found = {"interval": [-0.00125, 0.5], "p": 0.00019998}
    assert (span_text(found), p_text(found)) == ("-0.0013 to +0.5000", "0.0002")


@pytest.mark.parametrize("true", [0.0, 0.02])
def test_the_interval_holds_the_true_difference_in_nineteen_samples_of_twenty(true):
    rng = np.random.default_rng(5)
    samples = []
    for sample in range(400):
        easy = rng.random(500)  # what both rankings share
        noise = rng.normal(0, 0.1, (2, 500))
        samples.append(sums(easy + noise[0], easy + noise[1] + true, 1000 * sample))
    found = [each["auc"] for each in paired_differences(samples, 1000, 0)]
    inside = np.array([one["interval"][0] <= true <= one["interval"][1] for one in found])
    assert 0.92 <= inside.mean() <= 0.98
    certain = np.array([one["p"] < 0.05 for one in found])
    zero = np.array([one["interval"][0] <= 0 <= one["interval"][1] for one in found])
    assert (certain == ~zero).mean() > 0.98
    # The means alone do not tell: the spread of `easy` is three times that of the difference.
    assert certain.mean() > 0.8 if true else certain.mean() < 0.08
