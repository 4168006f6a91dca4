from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from nrms.errors import SchemaError
from nrms.evaluation.baselines import INPUTS, Popularity, newest, standard_baselines
from tests.shards import SECOND, random_shard, without_time
from tests.small_data import Folder

HOURS = 6


def rows(shard):
    """(time, article, clicked) of each candidate."""
    for i in range(len(shard)):
        for j in range(shard.offsets[i], shard.offsets[i + 1]):
            yield shard.time[i], shard.candidates[j], shard.clicked[j]


def counted(added, shard):
    """The definition, a click at a time; an unknown article stands at the mean of its impression's
    known ones.
    """
    clicks = [(time, article) for part in added for time, article, click in rows(part) if click]
    scores = [
        sum(other == article and now - window() <= time < now for time, other in clicks)
        for now, article, _ in rows(shard)
    ]
    for start, end in pairwise(shard.offsets):
        known = [scores[i] for i in range(start, end) if shard.candidates[i]]
        for i in range(start, end):
            if not shard.candidates[i]:
                scores[i] = float(np.float32(np.mean(known or [0])))
    return scores


def window():
    return np.timedelta64(HOURS, "h")


def popularity(*shards):
    counter = Popularity(HOURS)
    for shard in shards:
        counter.add(shard)
    return counter


@pytest.fixture
def shards():
    """Two shards of a split, the earlier one second."""
    rng = np.random.default_rng(0)
    return [
        random_shard(rng, 60, start=start, seconds=3600 * 6)
        for start in ("2024-01-02T18", "2024-01-02T12")
    ]


def test_popularity_counts_the_clicks_of_the_last_hours_strictly_before(shards):
    counter = popularity(*shards)
    for shard in shards:
        scores = counter.scores(shard)
        assert scores.dtype == np.float32
        assert scores.tolist() == counted(shards, shard)
        assert scores.max() > 5


def test_popularity_window_takes_in_its_first_moment_and_leaves_out_the_impressions_own():
    shard = random_shard(np.random.default_rng(1), 1)
    now = np.datetime64("2024-01-02T00:00:00", "us")
    moments = np.array([now, now - SECOND, now - window(), now - window() - SECOND])
    shard = replace(
        shard,
        time=moments,
        user=np.zeros(4, np.int32),
        offsets=np.arange(5),
        candidates=np.ones(4, np.int32),
        clicked=np.ones(4, bool),
    )
    assert popularity(shard).scores(shard).tolist() == [2, 2, 1, 0]


def test_an_impression_without_a_time_knows_of_no_click(shards):
    for shard in shards:
        some = without_time(shard, slice(0, 30))
        scores = popularity(some).scores(some)
        assert scores.tolist() == counted([some], some)
        assert not scores[: some.offsets[30]].any()
        assert scores.max() > 1
        for none in (without_time(shard), replace(shard, time=None)):
            assert popularity(*shards, none).scores(none) is None


def test_popularity_scores_articles_that_nobody_clicked_and_unlabelled_shards(shards):
    shard, other = shards
    unlabelled = replace(shard, clicked=None)
    assert popularity(unlabelled).scores(unlabelled).tolist() == [0] * len(shard.candidates)
    new = replace(shard, candidates=shard.candidates + 1000)
    assert not popularity(other).scores(new).any()


def test_popularity_takes_shards_added_after_the_first_scores(shards):
    first, second = shards
    counter = popularity(first)
    counter.scores(first)
    counter.add(second)
    assert counter.scores(first).tolist() == counted(shards, first)


def test_newest_ranks_by_the_time_of_publishing_to_the_microsecond(shards):
    shard, _ = shards
    published = np.datetime64("2024-01-01", "us") + np.array([5, 0, 3, 1, 4, 9, 7, 6])
    published[3] = np.datetime64("NaT")
    scores = newest(published)(shard)
    assert scores.dtype == np.float32
    for start, end in pairwise(shard.offsets):
        timed = [i for i in range(start, end) if shard.candidates[i] not in (0, 4)]
        for i in timed:
            for j in timed:
                times = published[shard.candidates[[i, j]] - 1]
                assert (scores[i] < scores[j]) == (times[0] < times[1])
        for i in set(range(start, end)) - set(timed):
            np.testing.assert_allclose(scores[i], np.mean(scores[timed]) if timed else 0, rtol=1e-6)


def test_newest_needs_times(shards):
    assert newest(None)(shards[0]) is None
    assert newest(np.full(8, "NaT", "datetime64[us]"))(shards[0]) is None


def test_random_repeats_with_its_seed(shards):
    shard, _ = shards
    same, again, other = (
        standard_baselines(Popularity(), None, seed)["random"](shard) for seed in (1, 1, 2)
    )
    assert same.dtype == np.float32
    assert same.tolist() == again.tolist() != other.tolist()


# --- the oracle


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path, strings=False)


def oracle(folder, inputs=INPUTS):
    return standard_baselines(Popularity(), None, 0)["oracle"](folder.split(inputs=inputs).read(0))


def test_the_oracle_ranks_by_its_column_of_the_behaviours(folder):
    folder.write_all(behaviors={"oracle_scores": [[0.5, 0.25, 0.0], [1.0, None]]})
    expected = np.array([0.5, 0.25, 0.0, 1.0, np.nan], np.float32)
    np.testing.assert_array_equal(oracle(folder), expected, strict=True)


def test_there_is_no_oracle_without_its_column(folder):
    folder.write_all()
    assert oracle(folder) is None


@pytest.mark.parametrize("column", [[[0.1, 0.2, 0.3], [0.1]], ["a", "b"], [1, 2]])
def test_the_oracles_column_is_like_any_other_where_nobody_asks_for_it(folder, column):
    folder.write_all(behaviors={"oracle_scores": column})
    assert oracle(folder, inputs=()) is None


def test_the_oracle_refuses_another_number_of_scores(folder):
    folder.write_all(behaviors={"oracle_scores": [[0.1, 0.2, 0.3], [0.1]]})
    with pytest.raises(SchemaError) as caught:
        oracle(folder)
    assert str(caught.value) == (
        "Column `oracle_scores` must have one score for each candidate. Received: another number "
        f"in 1 of 2 rows, first in row 1 (from 0), in {folder.path / 'train/behaviors.parquet'}. "
        "Give every candidate a score or leave the column out."
    )


def test_the_oracle_refuses_a_column_of_another_type(folder):
    folder.write_all(behaviors={"oracle_scores": [0.1, 0.2]})
    with pytest.raises(
        SchemaError, match=r"`oracle_scores` must be a list of floats\. Received: double \(2 rows"
    ):
        oracle(folder)
