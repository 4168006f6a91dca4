from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nrms.data.dataset import Dataset
from nrms.training.batches import Position, TrainingBatches
from nrms.training.samplers import Clicks, Lists, Samples


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
        for history, row in zip(batch["history"], batch["candidates"], strict=True)
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
    drawn = Samples.joined(
        [Clicks(npratio).draw(split.read(shard), rng) for shard in range(len(split))]
    )
    users, candidates = drawn.user, drawn.padded(1 + npratio)["candidates"]
    assert len(users) == len(expected)
    for (user, click, others), drawn_user, row in zip(expected, users, candidates, strict=True):
        negatives = [int(a) for a in row[1:] if a]
        assert (drawn_user, row[0]) == (user, click)
        assert len(set(negatives)) == len(negatives) == min(npratio, len(others))
        assert set(negatives) <= set(others)


def test_an_epoch_holds_every_click_once_with_its_users_history(split):
    batches = [batch for _, batch in epoch(TrainingBatches(split, Clicks(4), 8, seed=0))]
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
        drawn = Clicks(4).draw(read, np.random.default_rng(0))
        assert Clicks(4).count(read) == len(drawn) == int(drawn.per_candidate["labels"].sum())


def test_negatives_are_drawn_uniformly(split):
    read = split.read(0)
    counts = Counter()
    where = None
    for seed in range(3000):
        candidates = Clicks(1).draw(read, np.random.default_rng(seed)).padded(2)["candidates"]
        if where is None:
            where = int(np.flatnonzero(candidates[:, 0] == 5)[0])
        counts[int(candidates[where, 1])] += 1
    others = impressions_of(split)[0][2]
    assert set(counts) == set(others)
    expected = 3000 / len(others)
    assert all(abs(count - expected) < 5 * np.sqrt(expected) for count in counts.values())


def test_batches_are_a_function_of_the_seed(split):
    one, two, other = (TrainingBatches(split, Clicks(4), 8, seed) for seed in (1, 1, 2))
    for (_, a), (_, b) in zip(epoch(one), epoch(two), strict=True):
        np.testing.assert_array_equal(a["history"], b["history"])
        np.testing.assert_array_equal(a["candidates"], b["candidates"])
    assert samples_of(b for _, b in epoch(one)) != samples_of(b for _, b in epoch(other))


def test_negatives_and_order_are_new_each_epoch(split):
    batches = TrainingBatches(split, Clicks(2), 8, seed=1)
    first, second = (samples_of(b for _, b in epoch(batches, Position(e))) for e in (0, 1))
    assert first != second
    assert Counter(row[0] for _, row in first) == Counter(row[0] for _, row in second)
    assert Counter(first) != Counter(second)


@pytest.mark.parametrize("done", [1, 3, 5])
def test_an_epoch_resumed_at_any_batch_goes_on_where_it_stopped(split, done):
    batches = TrainingBatches(split, Clicks(4), 8, seed=1)
    whole = epoch(batches)
    position, _ = whole[done - 1]
    assert position == Position(0, done)
    for (p, a), (q, b) in zip(whole[done:], epoch(batches, position), strict=True):
        assert p == q
        np.testing.assert_array_equal(a["history"], b["history"])
        np.testing.assert_array_equal(a["candidates"], b["candidates"])


def test_all_batches_but_the_last_are_full_across_shards(split):
    sizes = [len(batch) for _, batch in epoch(TrainingBatches(split, Clicks(4), 8, seed=1))]
    total = sum(Clicks(4).count(split.read(i)) for i in range(len(split)))
    assert sizes == [8] * (total // 8) + ([total % 8] if total % 8 else [])


def test_labels_say_which_candidate_is_the_click_and_the_mask_where_none_is(split):
    for _, batch in epoch(TrainingBatches(split, Clicks(4), 8, seed=0)):
        assert batch["labels"].dtype == np.float32
        assert (batch["labels"] == np.eye(5, dtype=np.float32)[0]).all()
        np.testing.assert_array_equal(batch["mask"], batch["candidates"] != 0)
        assert batch["candidates"].shape == (len(batch), 5)


def lists_of(split):
    """History, candidates and labels of each impression with a click and a non-click, slowly."""
    found = []
    for shard in range(len(split)):
        read = split.read(shard)
        for i in range(len(read)):
            part = slice(read.offsets[i], read.offsets[i + 1])
            clicked = read.clicked[part]
            if clicked.any() and not clicked.all():
                history = split.histories.rows[read.user[i]]
                found.append((tuple(history), tuple(read.candidates[part]), tuple(clicked)))
    return found


def test_lists_are_whole_impressions_with_several_clicks_and_unknown_candidates(split):
    batches = [batch for _, batch in epoch(TrainingBatches(split, Lists(), 7, seed=3))]
    found = [
        (tuple(history), tuple(candidates[mask]), tuple(labels[mask] > 0))
        for batch in batches
        for history, candidates, labels, mask in zip(
            *(batch[name] for name in ("history", "candidates", "labels", "mask")), strict=True
        )
    ]
    expected = lists_of(split)
    assert Counter(found) == Counter(expected)
    assert sum(Lists().count(split.read(i)) for i in range(len(split))) == len(expected)
    assert any(0 in candidates for _, candidates, _ in expected)
    assert any(sum(clicked) > 1 for *_, clicked in expected)
    assert [len(batch) for batch in batches[:-1]] == [7] * (len(batches) - 1)
    for batch in batches:
        assert batch["mask"].any(axis=0).all()  # as wide as its longest list
        assert not batch["candidates"][~batch["mask"]].any()


def test_a_shard_without_labels_makes_no_samples(split):
    unlabelled = replace(split.read(0), clicked=None, clicks=None)
    for sampler in (Clicks(4), Lists()):
        assert sampler.count(unlabelled) == 0
        assert len(sampler.draw(unlabelled, np.random.default_rng(0))) == 0


def test_named_arrays_of_a_shard_stand_beside_their_candidates(split):
    read = split.read(0)
    number = np.arange(len(read.candidates), dtype=np.float32)
    day = np.arange(len(read), dtype=np.float32)
    named = replace(read, per_candidate={"number": number}, per_impression={"day": day})
    for sampler in (Clicks(2), Lists()):
        arrays = sampler.draw(named, np.random.default_rng(1)).padded(sampler.width)
        places = arrays["number"][arrays["mask"]].astype(int)
        np.testing.assert_array_equal(arrays["candidates"][arrays["mask"]], read.candidates[places])
        np.testing.assert_array_equal(arrays["labels"][arrays["mask"]], read.clicked[places])
        days = np.repeat(arrays["day"], arrays["mask"].sum(axis=1)).astype(int)
        assert (read.offsets[days] <= places).all()
        assert (places < read.offsets[days + 1]).all()
