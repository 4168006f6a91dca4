from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nrms.data.dataset import Dataset
from nrms.training.samplers import Position, TrainingBatches, count_samples, draw_samples


@pytest.fixture
def split(tmp_path):
    """Three shards of random impressions over 40 articles; article 99 is unknown."""
    rng = np.random.default_rng(3)
    pq.write_table(
        pa.table({"article_id": range(1, 41), "title": [f"title {i}" for i in range(1, 41)]}),
        tmp_path / "articles.parquet",
    )
    folder = tmp_path / "train"
    folder.mkdir()
    histories = [[int(x) for x in rng.integers(1, 41, rng.integers(0, 7))] for _ in range(10)]
    pq.write_table(
        pa.table(
            {"user_id": range(10), "article_id_fixed": pa.array(histories, pa.list_(pa.int64()))}
        ),
        folder / "history.parquet",
    )
    for shard, size in enumerate((23, 1, 30)):
        inview = [
            [int(x) for x in rng.choice(40, rng.integers(1, 9), replace=False) + 1]
            for _ in range(size)
        ]
        inview[0] = [5, 99, 6, 7]
        clicked = [[row[0], *row[1 : rng.integers(1, 3)]] for row in inview]
        pq.write_table(
            pa.table(
                {
                    "impression_id": range(100 * shard, 100 * shard + size),
                    "user_id": rng.integers(0, 12, size),
                    "article_ids_inview": inview,
                    "article_ids_clicked": clicked,
                }
            ),
            folder / f"behaviors-{shard}.parquet",
        )
    return Dataset.open(str(tmp_path), tmp_path / "cache").split("train", history_size=5)


def impressions_of(split):
    """(user row, clicked articles, non-clicked articles) of each impression, in slow Python; 0 left
    out.
    """
    rows = []
    for shard in range(len(split)):
        read = split.read(shard)
        for i in range(len(read)):
            part = slice(read.offsets[i], read.offsets[i + 1])
            pairs = [
                (int(a), bool(c))
                for a, c in zip(read.candidates[part], read.clicked[part], strict=True)
                if a
            ]
            rows.append(
                (int(read.user[i]), [a for a, c in pairs if c], [a for a, c in pairs if not c])
            )
    return rows


def samples_of(batches):
    return [
        (tuple(history), tuple(row))
        for batch in batches
        for history, row in zip(batch.history, batch.candidates, strict=True)
    ]


START = Position()


def epoch(batches, start=START):
    return list(batches.epoch(start))


@pytest.mark.parametrize("npratio", [1, 4, 12])
def test_each_click_makes_one_sample_with_distinct_non_clicks_of_its_impression(split, npratio):
    expected = [
        (user, click, others)
        for user, clicks, others in impressions_of(split)
        for click in clicks
        if others
    ]
    rng = np.random.default_rng(0)
    drawn = [draw_samples(split.read(shard), npratio, rng) for shard in range(len(split))]
    users, candidates = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    assert len(users) == len(expected)
    for (user, click, others), drawn_user, row in zip(expected, users, candidates, strict=True):
        negatives = [int(a) for a in row[1:] if a]
        assert (drawn_user, row[0]) == (user, click)
        assert len(set(negatives)) == len(negatives) == min(npratio, len(others))
        assert set(negatives) <= set(others)


def test_an_epoch_holds_every_click_once_with_its_users_history(split):
    batches = [batch for _, batch in epoch(TrainingBatches(split, 4, 8, seed=0))]
    expected = Counter(
        (tuple(split.histories.rows[user]), click)
        for user, clicks, others in impressions_of(split)
        for click in clicks
        if others
    )
    assert Counter((history, row[0]) for history, row in samples_of(batches)) == expected


def test_count_samples_is_what_is_drawn(split):
    for shard in range(len(split)):
        read = split.read(shard)
        users, candidates = draw_samples(read, 4, np.random.default_rng(0))
        assert count_samples(read) == len(users) == len(candidates)


def test_negatives_are_drawn_uniformly(split):
    read = split.read(0)
    counts = Counter()
    where = None
    for seed in range(3000):
        _, candidates = draw_samples(read, 1, np.random.default_rng(seed))
        if where is None:
            where = int(np.flatnonzero(candidates[:, 0] == 5)[0])
        counts[int(candidates[where, 1])] += 1
    others = impressions_of(split)[0][2]
    assert set(counts) == set(others)
    expected = 3000 / len(others)
    assert all(abs(count - expected) < 5 * np.sqrt(expected) for count in counts.values())


def test_batches_are_a_function_of_the_seed(split):
    one, two, other = (TrainingBatches(split, 4, 8, seed) for seed in (1, 1, 2))
    for (_, a), (_, b) in zip(epoch(one), epoch(two), strict=True):
        np.testing.assert_array_equal(a.history, b.history)
        np.testing.assert_array_equal(a.candidates, b.candidates)
    assert samples_of(b for _, b in epoch(one)) != samples_of(b for _, b in epoch(other))


def test_negatives_and_order_are_new_each_epoch(split):
    batches = TrainingBatches(split, 2, 8, seed=1)
    first, second = (samples_of(b for _, b in epoch(batches, Position(e))) for e in (0, 1))
    assert first != second
    assert Counter(row[0] for _, row in first) == Counter(row[0] for _, row in second)
    assert Counter(first) != Counter(second)


@pytest.mark.parametrize("done", [1, 3, 5])
def test_an_epoch_resumed_at_any_batch_goes_on_where_it_stopped(split, done):
    batches = TrainingBatches(split, 4, 8, seed=1)
    whole = epoch(batches)
    position, _ = whole[done - 1]
    assert position == Position(0, done)
    for (p, a), (q, b) in zip(whole[done:], epoch(batches, position), strict=True):
        assert p == q
        np.testing.assert_array_equal(a.history, b.history)
        np.testing.assert_array_equal(a.candidates, b.candidates)


def test_all_batches_but_the_last_are_full_across_shards(split):
    sizes = [len(batch) for _, batch in epoch(TrainingBatches(split, 4, 8, seed=1))]
    total = sum(count_samples(split.read(i)) for i in range(len(split)))
    assert sizes == [8] * (total // 8) + ([total % 8] if total % 8 else [])
