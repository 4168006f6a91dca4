from dataclasses import replace

import numpy as np
import pytest

from nrms.evaluation.baselines import Popularity, standard_baselines
from tests.shards import SECOND, random_shard, without_time

HOURS = 6


def rows(shard):
    """(time, article, clicked) of each candidate."""
    for i in range(len(shard)):
        for j in range(shard.offsets[i], shard.offsets[i + 1]):
            yield shard.time[i], shard.candidates[j], shard.clicked[j]


def counted(training, evaluated, shard):
    """The definition, a click at a time."""
    clicks = [(time, article) for part in training + evaluated for time, article, click in rows(part) if click]
    training_clicks = [article for part in training for _, article, click in rows(part) if click]
    window = np.timedelta64(HOURS, "h")
    scores = []
    for now, article, _ in rows(shard):
        if article == 0:
            scores.append(0)
        elif np.isnat(now):
            scores.append(training_clicks.count(article))
        else:
            scores.append(sum(other == article and now - window <= time < now for time, other in clicks))
    return scores


def popularity(training, evaluated, start=None):
    counter = Popularity(HOURS, start)
    for shard in training:
        counter.add_training(shard)
    for shard in evaluated:
        counter.add_evaluated(shard)
    return counter


@pytest.fixture
def shards():
    """Two training shards, the earlier one second, and two later ones to evaluate, the earlier one second."""
    rng = np.random.default_rng(0)
    starts = ("2024-01-02T00", "2024-01-01T12", "2024-01-02T18", "2024-01-02T12")
    shards = [random_shard(rng, 60, start=start, seconds=3600 * 6) for start in starts]
    return shards[:2], shards[2:]


def test_popularity_counts_the_clicks_of_the_last_hours_strictly_before(shards):
    training, evaluated = shards
    counter = popularity(training, evaluated)
    for shard in evaluated:
        scores = counter.scores(shard)
        assert scores.dtype == np.float32
        assert scores.tolist() == counted(training, evaluated, shard)
        assert scores.max() > 5


def test_popularity_is_the_same_when_older_clicks_are_dropped(shards):
    training, evaluated = shards
    start = min(shard.time.min() for shard in evaluated)
    for shard in evaluated:
        expected = popularity(training, evaluated).scores(shard)
        assert popularity(training, evaluated, start).scores(shard).tolist() == expected.tolist()


def test_popularity_window_takes_in_its_first_moment_and_leaves_out_the_impressions_own():
    shard = random_shard(np.random.default_rng(1), 1)
    now = np.datetime64("2024-01-02T00:00:00", "us")
    window = np.timedelta64(HOURS, "h")
    moments = np.array([now, now - SECOND, now - window, now - window - SECOND])
    shard = replace(
        shard,
        time=moments,
        user=np.zeros(4, np.int32),
        offsets=np.arange(5),
        candidates=np.ones(4, np.int32),
        clicked=np.ones(4, bool),
    )
    assert popularity([], [shard]).scores(shard).tolist() == [2, 2, 1, 0]


def test_popularity_without_times_counts_training_clicks_only(shards):
    training, evaluated = shards
    for shard in evaluated:
        some = without_time(shard, slice(0, 30))
        assert popularity(training, [some]).scores(some).tolist() == counted(training, [some], some)
        none = replace(shard, time=None)
        expected = counted(training, [], without_time(shard))
        assert popularity(training, [none]).scores(none).tolist() == expected
        assert max(expected) > 5


def test_popularity_scores_articles_that_nobody_clicked_and_unlabelled_shards(shards):
    training, (shard, _) = shards
    unlabelled = replace(shard, clicked=None)
    assert popularity([unlabelled], [unlabelled]).scores(unlabelled).tolist() == [0] * len(shard.candidates)
    new = replace(shard, candidates=shard.candidates + 1000, time=None)
    assert not popularity(training, [new]).scores(new).any()


def test_popularity_takes_shards_added_after_the_first_scores(shards):
    training, (first, second) = shards
    counter = popularity(training, [first])
    counter.scores(first)
    counter.add_evaluated(second)
    assert counter.scores(first).tolist() == counted(training, [first, second], first)


def test_random_repeats_with_its_seed_and_oracle_passes_through(shards):
    _, (shard, _) = shards
    same, again, other = (standard_baselines(Popularity(), seed)["random"](shard) for seed in (1, 1, 2))
    assert same.dtype == np.float32
    assert same.tolist() == again.tolist() != other.tolist()
    oracle = standard_baselines(Popularity(), 0)["oracle"]
    assert oracle(shard) is None
    shard = replace(shard, oracle=np.arange(len(shard.candidates), dtype=np.float32))
    assert oracle(shard) is shard.oracle
