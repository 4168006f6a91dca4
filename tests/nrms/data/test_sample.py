"""The fixed sample of impressions that shows over-fitting, and taking impressions
out of a shard.
"""

import numpy as np
import pytest

from nrms.data.sample import ImpressionSample
from tests.small_data import Folder, at


@pytest.fixture
def shards(tmp_path):
    """Thirty impressions in three files: each third has no click, each fifth nothing but clicks."""
    folder = Folder(tmp_path, strings=False)
    folder.write_all()
    (tmp_path / "train/behaviors.parquet").unlink()
    for shard in range(3):
        ids = range(10 * shard, 10 * shard + 10)
        in_view = [[10, 20, 30, 40][: 2 + i % 3] for i in ids]
        clicked = [
            [] if i % 3 == 0 else shown if i % 5 == 0 else shown[:1]
            for i, shown in zip(ids, in_view, strict=True)
        ]
        columns = {"impression_id": list(ids), "user_id": [7] * 10, "impression_time": at(*ids)}
        folder.write(
            f"train/behaviors-{shard}.parquet",
            {**columns, "article_ids_inview": in_view, "article_ids_clicked": clicked},
        )
    split = folder.split()
    return [split.read(i) for i in range(len(split))]


def drawn(shards, size, seed=1):
    sample = ImpressionSample(size, seed)
    for shard in shards:
        sample.add(shard)
    return [i for piece in sample.shards for i in piece.impression_id.to_pylist()]


def test_only_impressions_with_a_click_and_a_non_click_are_drawn(shards):
    assert drawn(shards, 1000) == [i for i in range(30) if i % 3 and i % 5]


def test_a_sample_is_bounded_and_the_same_each_time(shards):
    assert drawn(shards, 7) == drawn(shards, 7)
    assert len(drawn(shards, 7)) == len(set(drawn(shards, 7))) == 7
    assert drawn(shards, 7) != drawn(shards, 7, seed=2)


def test_every_impression_is_as_likely_as_another(shards):
    times = np.bincount(
        np.concatenate([drawn(shards, 4, seed) for seed in range(400)]), minlength=30
    )
    telling = [i for i in range(30) if i % 3 and i % 5]
    assert np.all(np.abs(times[telling] - 400 * 4 / 16) < 5 * 9)


def test_impressions_that_are_taken_are_whole(shards):
    shard = shards[1]
    taken = shard.take(np.array([8, 3]))
    assert taken.impression_id.to_pylist() == [18, 13]
    assert taken.offsets.tolist() == [0, 2, 5]
    for name in ("candidates", "clicked", "candidate_ids"):
        expected = [getattr(shard, name)[shard.offsets[i] : shard.offsets[i + 1]] for i in (8, 3)]
        assert list(getattr(taken, name)) == [value for values in expected for value in values]
    assert taken.time.tolist() == shard.time[[8, 3]].tolist()
    assert taken.clicks.to_pylist() == [shard.clicks[8].as_py(), shard.clicks[3].as_py()]
