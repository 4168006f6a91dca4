"""Which impressions clicked a new article, and of which that is known."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from nrms.evaluation.article_ages import ArticleAges
from nrms.evaluation.slices import SLICES, list_length_keys
from tests.shards import random_shard

START = np.datetime64("2026-03-01T10:00:00", "us")


def shard(*impressions):
    """An impression for each `(minute or None, candidates, clicked articles)`."""
    times = [
        np.datetime64("NaT") if minute is None else START + np.timedelta64(minute, "m")
        for minute, _, _ in impressions
    ]
    lists = [candidates for _, candidates, _ in impressions]
    clicked = [article in clicks for _, candidates, clicks in impressions for article in candidates]
    n = len(impressions)
    return replace(
        random_shard(np.random.default_rng(0), 0),
        impression_id=pa.array(range(n)),
        user_id=pa.array(range(n)),
        user=np.zeros(n, np.int32),
        time=np.array(times, "datetime64[us]"),
        offsets=np.append(0, np.cumsum([len(each) for each in lists])),
        candidates=np.array([article for each in lists for article in each], np.int32),
        clicked=np.array(clicked, bool),
    )


def found(ages, given):
    is_new, known = ages.of_clicks(given)
    states = np.where(is_new, "new", "older").tolist()
    return [state if sure else None for state, sure in zip(states, known, strict=True)]


@pytest.mark.parametrize("order", [1, -1])
def test_by_first_showing_the_first_hour_of_the_split_says_nothing_until_it_is_over(order):
    shards = [
        shard((30, [1], [1]), (0, [1, 2], [2]), (59, [1, 3], [1, 3])),
        shard(
            (60, [1, 4], [1]),
            (61, [4, 2], [4]),
            (119, [4], [4]),
            (120, [4], [4]),
            (118, [3], [3]),
            (119, [3], [3]),
            (None, [1], [1]),
            (130, [], []),
            (131, [1], []),
        ),
    ]
    ages = ArticleAges(None, 4)
    for each in shards[::order]:
        ages.add(each)
    assert found(ages, shards[0]) == [None, None, None]
    # Article 4 is first shown after 60 minutes, article 3 after 59.
    assert found(ages, shards[1]) == [
        *("older", "new", "new", "older"),
        *(None, "older"),
        *(None, None, None),
    ]


def test_the_time_of_publishing_counts_before_that_of_the_first_showing():
    published = START + np.array([-61, -59, 30, 0]).astype("timedelta64[m]")
    published[3] = np.datetime64("NaT")
    ages = ArticleAges(published, 4)
    given = shard(
        (0, [1], [1]), (0, [2], [2]), (1, [2], [2]), (29, [3], [3]), (0, [4], [4]), (90, [3], [3])
    )
    ages.add(given)
    assert found(ages, given) == ["older", "new", "older", "new", None, "older"]


def test_of_several_clicks_the_youngest_article_counts():
    published = START + np.array([-120, -10, 0]).astype("timedelta64[m]")
    published[2] = np.datetime64("NaT")
    ages = ArticleAges(published, 3)
    given = shard(
        (0, [1, 2, 3], [1, 2]),
        (0, [1, 2, 3], [1, 3]),
        (0, [1, 2, 3], [2, 3]),
        (0, [0, 1], [0]),
        (0, [0, 1], [0, 1]),
        (0, [0, 1], [1]),
    )
    ages.add(given)
    assert found(ages, given) == ["new", None, "new", None, None, "older"]


def test_a_split_without_times_says_nothing():
    ages = ArticleAges(None, 8)
    timeless = replace(random_shard(np.random.default_rng(1), 5), time=None)
    ages.add(timeless)
    given = shard((0, [1], [1]))
    assert found(ages, given) == [None]


def test_lists_are_parted_where_the_names_say():
    lengths = np.array([0, 1, 5, 6, 9, 10, 14, 15, 22, 23, 900])
    names = [
        SLICES["list_length"].name(key)
        for key in list_length_keys(np.append(0, np.cumsum(lengths))).tolist()
    ]
    expected = [*["1-5"] * 3, *["6-9"] * 2, *["10-14"] * 2, *["15-22"] * 2, *["23+"] * 2]
    assert names == expected
