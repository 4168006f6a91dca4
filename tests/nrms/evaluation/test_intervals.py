import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from nrms.data.columns import hashes
from nrms.evaluation.intervals import AucInterval, impression_keys
from tests.small_training import REPOSITORY


def interval(keys, auc, parts=1):
    total = AucInterval()
    for part in np.array_split(np.arange(len(auc)), parts):
        one = AucInterval()
        one.add(keys[part], auc[part])
        total += one
    return total.result()


def keys(n, first=0):
    ids = pa.array(np.arange(first, first + n))
    return impression_keys(ids, ids)


@pytest.mark.parametrize("n", [400, 30_000])
def test_the_interval_is_that_of_a_plain_bootstrap(n):
    rng = np.random.default_rng(n)
    auc = rng.beta(2, 1.5, n)
    plain = [rng.choice(auc, n).mean() for _ in range(1000)]
    error = auc.std() / n**0.5
    np.testing.assert_allclose(
        interval(keys(n), auc), np.quantile(plain, [0.025, 0.975]), atol=0.4 * error
    )


@pytest.mark.long
def test_it_holds_the_true_mean_in_nineteen_samples_of_twenty():
    rng = np.random.default_rng(1)
    inside = []
    for sample in range(300):
        low, high = interval(keys(500, first=1000 * sample), rng.random(500))
        inside.append(low <= 0.5 <= high)
    assert 0.92 <= np.mean(inside) <= 0.98


def test_neither_order_nor_parts_change_a_digit():
    rng = np.random.default_rng(2)
    auc, given = rng.random(3000), keys(3000)
    auc[::7] = np.nan
    expected = interval(given, auc)
    for parts in (2, 9):
        order = rng.permutation(len(auc))
        assert interval(given[order], auc[order], parts) == expected
    assert interval(given[~np.isnan(auc)], auc[~np.isnan(auc)]) == expected


@pytest.mark.system
def test_another_process_gives_the_same_digits():
    code = (
        "import numpy as np, pyarrow as pa\n"
        "from nrms.evaluation.intervals import AucInterval, impression_keys\n"
        "ids = pa.array([f'N{i}' for i in range(50)])\n"
        "interval = AucInterval()\n"
        "interval.add(impression_keys(ids, ids), np.arange(50) / 50)\n"
        "print(interval.result())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    ids = pa.array([f"N{i}" for i in range(50)])
    assert printed.stdout.strip() == str(interval(impression_keys(ids, ids), np.arange(50) / 50))


def test_of_less_than_two_impressions_nothing_is_known():
    assert interval(keys(3), np.full(3, np.nan)) is None
    assert interval(keys(3), np.array([np.nan, 0.7, np.nan])) is None
    assert interval(keys(2), np.array([0.7, 0.7])) == pytest.approx([0.7, 0.7])


def test_impressions_that_share_an_id_are_told_apart_by_their_reader():
    assert len(np.unique(impression_keys(pa.array([0] * 100), pa.array(range(100))))) == 100
    assert len(np.unique(impression_keys(pa.array(range(100)), pa.array([""] * 100)))) == 100


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(range(-5000, 5000)),
        pa.array(range(10_000), pa.uint32()),
        pa.array([f"N{i}" for i in range(9999)] + [""]),
        pa.array([f"N{i}" for i in range(10_003)], pa.large_string())[3:],
        pa.array([f"é{i}" for i in range(10_000)], pa.string_view()),
    ],
    ids=["negative", "unsigned", "strings", "sliced", "views"],
)
def test_hashes_are_evenly_spread_and_those_of_the_ids_alone(ids):
    found = hashes(ids)
    assert found.dtype == np.uint64
    assert len(np.unique(found)) == 10_000
    counts = np.bincount((found % np.uint64(16)).astype(int), minlength=16)
    assert abs(counts - 625).max() < 125  # five standard deviations
    assert hashes(ids[7:9]).tolist() == found[7:9].tolist()
    assert hashes(ids[:0]).shape == (0,)
