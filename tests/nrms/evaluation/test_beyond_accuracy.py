"""Diversity, novelty, coverage and the like, by hand on tiny lists and by slow loops on random
ones.
"""

import itertools
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from nrms.data.articles import Articles
from nrms.data.quality import DataReport
from nrms.data.schema import Column
from nrms.evaluation import beyond_accuracy
from nrms.evaluation.article_ages import ArticleAges
from nrms.evaluation.baselines import Popularity, standard_baselines
from nrms.evaluation.beyond_accuracy import (
    CUTOFFS,
    MEANS,
    NAMES,
    BeyondAccuracy,
    category_codes,
    with_category,
)
from nrms.evaluation.evaluation import Evaluation
from nrms.evaluation.ranking import best_first, ranks, top
from tests.shards import random_shard, without_time

NOON = np.datetime64("2026-03-01T12:00:00", "us")


def shard(lists, time=NOON):
    """An impression for each list of candidates, whose reader has the row of its place, from 1."""
    n = len(lists)
    candidates = np.array([article for each in lists for article in each], np.int32)
    return replace(
        random_shard(np.random.default_rng(0), 0),
        impression_id=pa.array(range(n)),
        user_id=pa.array(range(n)),
        user=np.arange(1, n + 1, dtype=np.int32),
        time=np.full(n, time),
        offsets=np.append(0, np.cumsum([len(each) for each in lists])),
        candidates=candidates,
        clicked=np.zeros(len(candidates), bool),
        candidate_ids=pa.array(candidates),
    )


def measured(lists, histories=(), **known):
    """The metrics of lists in the given order. Readers have these histories."""
    rows = np.zeros((len(lists) + 1, max(map(len, histories), default=1)), np.int32)
    for row, history in zip(rows[1:], histories, strict=False):
        row[: len(history)] = history
    beyond = BeyondAccuracy(8, rows, **known)
    given = shard(lists)
    beyond.add(given, {"model": np.arange(len(given.candidates))})
    return beyond.result()["model"]


# --- by hand

# Article 1 points along x, 2 along y, 3 between both, 4 against x; 5 has no vector.
VECTORS = np.array([[9, 9], [2, 0], [0, 3], [1, 1], [-1, 0], [0, 0]], np.float32)
HALF = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("articles", "expected"),
    [
        ([1, 2], 1),
        ([1, 4], 2),
        ([1, 1], 0),
        ([1, 2, 3], ((1 - 0) + 2 * (1 - HALF)) / 3),
        ([5, 1, 0, 3], 1 - HALF),
        ([1], None),
        ([1, 5, 0], None),
        ([], None),
    ],
)
def test_diversity_is_the_mean_cosine_distance_of_pairs(articles, expected):
    found = measured([articles], vectors=VECTORS)
    assert ("ild_vectors@5" in found) == (expected is not None)
    if expected is not None:
        assert found["ild_vectors@5"] == pytest.approx(expected, abs=1e-6)
        assert found["ild_vectors@10"] == found["ild_vectors@5"]


def test_diversity_and_serendipity_of_examples_of_ebrec():
    """The examples in the docstrings of ebrec.evaluation.beyond_accuracy."""
    steps = np.array([[i / 10, (i + 1) / 10] for i in range(9)], np.float32)
    lists = [[1, 2], [2, 3], [3, 4]]
    found = measured(lists, vectors=steps)
    expected = [0.00772212, 0.00153965, 0.00048792]
    assert found["ild_vectors@5"] == pytest.approx(np.mean(expected), abs=1e-6)
    found = measured([[1, 2], [3, 4]], [[5, 6], [7, 8]], vectors=steps)
    assert found["serendipity@5"] == pytest.approx((0.01734935 + 0.00215212) / 2, abs=1e-6)


def test_serendipity_is_the_mean_distance_to_the_history():
    assert measured([[1, 2]], [[1, 3]], vectors=VECTORS)["serendipity@5"] == pytest.approx(
        (0 + 1 + 2 * (1 - HALF)) / 4, abs=1e-6
    )
    # Without a vector on either side there is none, and the other list counts alone.
    lists, histories = [[1], [1], [5, 0]], [[4, 5], [5], [1]]
    found = measured(lists, histories, vectors=VECTORS)
    assert found["serendipity@10"] == pytest.approx(2)


CATEGORIES = np.array([0, 1, 1, 2, 3, 0], np.int32)


@pytest.mark.parametrize(
    ("articles", "expected"),
    [([1, 2], 0), ([1, 3], 1), ([1, 2, 3], 2 / 3), ([1, 2, 5, 3, 0], 2 / 3), ([1, 5], None)],
)
def test_diversity_of_categories_is_the_share_of_pairs_of_two(articles, expected):
    assert measured([articles], categories=CATEGORIES).get("ild_categories@5") == expected


def test_calibration_is_the_divergence_from_the_mix_of_the_history():
    def of(articles, history):
        return measured([articles], [history], categories=CATEGORIES).get("calibration@5")

    assert of([1, 3], [2, 3]) == pytest.approx(0)
    assert of([1, 5], [2, 2]) == pytest.approx(0)
    half = 0.5 * math.log(0.5 / (0.99 * 0.5 + 0.01 * 0.5))
    assert of([1, 4], [1, 3]) == pytest.approx(half + 0.5 * math.log(0.5 / (0.01 * 0.5)))
    assert of([3], [1]) == pytest.approx(math.log(100))
    assert of([5, 0], [1]) is None
    assert of([1], [5]) is None


def test_novelty_is_the_information_of_the_share_of_clicks():
    clicks = np.array([0, 4, 2, 2, 0])
    assert measured([[1, 2]], clicks=clicks)["novelty@5"] == pytest.approx((1 + 2) / 2)
    # Without a click it counts as one of 8; of the unknown article nothing is known.
    assert measured([[1, 4, 0]], clicks=clicks)["novelty@5"] == pytest.approx((1 + 3) / 2)
    assert "novelty@5" not in measured([[1]], clicks=np.zeros(5, int))
    # Two more examples of ebrec's docstrings.
    clicks = np.array([0, 5, 10, 20, 30, 35])
    found = measured([[1, 2], [3, 4]], clicks=clicks)["novelty@5"]
    assert found == pytest.approx((3.82192809 + 2.02944684) / 2)
    found = measured([[1, 2, 1, 2, 1, 5], [2, 3, 2, 3, 2, 6], [4, 3]])
    assert found["coverage@5"] == pytest.approx(0.6666666666666666)


def test_each_list_counts_once():
    clicks = np.array([0, 4, 2, 2, 0])
    assert measured([[1], [2, 2, 2]], clicks=clicks)["novelty@5"] == pytest.approx((1 + 2) / 2)


def test_new_articles_are_those_of_the_slice():
    published = NOON - np.array([59, 60, -10]).astype("timedelta64[m]")
    ages = ArticleAges(np.append(published, np.datetime64("NaT")), 4)
    assert measured([[1, 2, 3]], ages=ages)["new_articles@5"] == pytest.approx(2 / 3)
    assert measured([[1, 2, 4, 0]], ages=ages)["new_articles@5"] == pytest.approx(1 / 2)
    assert "new_articles@5" not in measured([[4, 0]], ages=ages)


def test_coverage_is_the_share_of_candidates_that_are_listed_and_gini_how_unevenly():
    lists = [[1, 2, 0, 3, 4, 5], [1, 2, 0, 3, 4, 6]]
    found = measured(lists)
    assert found["coverage@5"] == pytest.approx(4 / 6)
    assert found["coverage@10"] == 1
    # 0, 0, 2, 2, 2, 2 and 1, 1, 2, 2, 2, 2
    assert found["gini@5"] == pytest.approx((2 * (-1) + 2 * 1 + 2 * 3 + 2 * 5) / (6 * 8))
    assert found["gini@10"] == pytest.approx((-5 - 3 - 2 + 2 + 6 + 10) / (6 * 10))
    assert measured([[1, 2, 3]])["gini@5"] == 0
    assert not measured([[0, 0], []])


def test_equal_scores_stand_in_the_given_order_as_ranks_do():
    given = shard([[3, 1, 2, 4, 5, 6, 7], [7, 6]])
    scores = np.array([0, 1, 0, 0, 0, 0, 0, 2, 2], np.float32)
    places = top(given.offsets, best_first(given.offsets, scores), 3)
    assert places.tolist() == [[1, 0, 2], [7, 8, -1]]
    found = ranks(given.offsets, scores)[places[0]]
    assert found.tolist() == [1, 2, 3]


# --- by slow loops


def distance(u, v):
    return 1 - float(u @ v) / math.sqrt(float(u @ u) * float(v @ v))


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else None


def slow_means(articles, history, now, known):
    """The means of one list, in plain Python."""
    vectors = {a: v.astype(float) for a, v in enumerate(known["vectors"]) if a and v.any()}
    category = {a: c for a, c in enumerate(known["categories"].tolist()) if c}
    clicks = known["clicks"].tolist()
    listed, read = ([a for a in each if a in vectors] for each in (articles, history))
    kinds, past = ([category[a] for a in each if a in category] for each in (articles, history))
    ages = [
        [bool(flag) for flag in known["ages"].are_new(np.array(a), np.array(now))] for a in articles
    ]
    calibration = None
    if kinds and past:
        calibration = 0
        for one in set(past):
            p, q = (each.count(one) / len(each) for each in (past, kinds))
            calibration += p * math.log(p / (0.99 * q + 0.01 * p))
    return {
        "ild_vectors": mean(
            distance(vectors[a], vectors[b]) for a, b in itertools.combinations(listed, 2)
        ),
        "ild_categories": mean(a != b for a, b in itertools.combinations(kinds, 2)),
        "serendipity": mean(
            distance(vectors[a], vectors[b]) for a, b in itertools.product(listed, read)
        ),
        "novelty": mean(-math.log2(max(1, clicks[a]) / sum(clicks)) for a in articles if a),
        "calibration": calibration,
        "new_articles": mean(is_new for is_new, told in ages if told),
    }


def slow(shards, rankings, histories, known):
    """All metrics of a ranking, in plain Python."""
    lists, candidates = [], set()
    for given, scores in zip(shards, rankings, strict=True):
        for i in range(len(given)):
            span = range(*given.offsets[i : i + 2])
            candidates |= {int(given.candidates[place]) for place in span}
            order = sorted(span, key=lambda place: -scores[place])
            history = [int(article) for article in histories[given.user[i]] if article]
            lists.append(([int(given.candidates[p]) for p in order], history, given.time[i]))
    candidates -= {0}
    found = {}
    for k in CUTOFFS:
        each = [slow_means(articles[:k], *rest, known) for articles, *rest in lists]
        found |= {
            f"{name}@{k}": mean(one[name] for one in each if one[name] is not None)
            for name in MEANS
        }
        listed = [article for articles, *_ in lists for article in articles[:k]]
        counts = [listed.count(article) for article in candidates]
        found[f"coverage@{k}"] = sum(count > 0 for count in counts) / len(counts)
        # half the mean difference of two, over the mean
        differences = mean(abs(a - b) for a, b in itertools.product(counts, counts))
        found[f"gini@{k}"] = differences / 2 / mean(counts)
    return found


ARTICLES = 30


@pytest.fixture(scope="module")
def world():
    """Two shards with ties, short lists and unknown articles, two rankings of each, and all that is
    known of articles.
    """
    rng = np.random.default_rng(0)
    shards = [
        without_time(random_shard(rng, 400, ARTICLES, longest=14), slice(0, 20)),
        random_shard(rng, 301, ARTICLES, longest=14),
    ]
    rankings = [
        {
            name: rng.integers(0, 5, len(each.candidates)).astype(np.float32)
            for name in ("model", "other")
        }
        for each in shards
    ]
    vectors = rng.standard_normal((ARTICLES + 1, 6)).astype(np.float32)
    vectors[[3, 11]] = 0
    published = np.datetime64("2024-01-01T12:00:00", "us") + rng.integers(
        0, 3600 * 24, ARTICLES
    ) * np.timedelta64(1, "s")
    published[5:9] = np.datetime64("NaT")
    ages, popularity = ArticleAges(published, ARTICLES), Popularity()
    for each in shards:
        ages.add(each)
        popularity.add(each)
    known = {
        "vectors": vectors,
        "categories": np.append(0, rng.integers(0, 5, ARTICLES)).astype(np.int32),
        "clicks": popularity.clicks(ARTICLES),
        "ages": ages,
    }
    histories = rng.integers(0, ARTICLES + 1, (400, 7)).astype(np.int32)
    histories[rng.random(400) < 0.1] = 0
    return shards, rankings, histories, known


def fast(shards, rankings, histories, known, **changes):
    beyond = BeyondAccuracy(ARTICLES, histories, **known, **changes)
    for given, ranked in zip(shards, rankings, strict=True):
        orders = {name: best_first(given.offsets, scores) for name, scores in ranked.items()}
        beyond.add(given, orders)
    return beyond.result()


def test_every_metric_is_that_of_a_slow_loop(world):
    shards, rankings, histories, known = world
    found = fast(*world)
    for name in ("model", "other"):
        expected = slow(shards, [each[name] for each in rankings], histories, known)
        assert set(expected) == {f"{name}@{k}" for name in NAMES for k in CUTOFFS}
        assert found[name] == pytest.approx(expected, abs=1e-5)
    assert found["model"] != found["other"]


def halves(given, ranked):
    """A shard and its rankings in two parts."""
    for rows in np.split(np.arange(len(given)), [len(given) // 2]):
        span = slice(given.offsets[rows[0]], given.offsets[rows[-1] + 1])
        yield given.take(rows), {name: scores[span] for name, scores in ranked.items()}


@pytest.mark.parametrize("every", [1, 3])
def test_halves_add_to_the_whole(world, every):
    shards, rankings, histories, known = world
    parts = [
        half
        for given, ranked in zip(shards, rankings, strict=True)
        for half in halves(given, ranked)
    ]
    found = fast(*zip(*parts, strict=True), histories, known, every=every)
    whole = fast(*world, every=every)
    for name in whole:
        assert found[name] == pytest.approx(whole[name], rel=1e-6)
        counted = [key for key in whole[name] if key.startswith(("coverage", "gini"))]
        assert [found[name][key] for key in counted] == [whole[name][key] for key in counted]


def test_lists_are_measured_in_chunks_of_any_size(world, monkeypatch):
    whole = fast(*world)
    monkeypatch.setattr(beyond_accuracy, "_CHUNK", 7)
    for name, found in fast(*world).items():
        assert found == pytest.approx(whole[name], rel=1e-6)


def test_of_many_impressions_the_means_are_over_evenly_spaced_ones(world):
    shards, rankings, histories, known = world
    found = fast(*world, every=4)["model"]
    rows = [np.arange(0, 400, 4), np.arange(0, 301, 4)]  # 400 is a multiple of 4
    spaced = [given.take(row) for given, row in zip(shards, rows, strict=True)]
    scores = [
        np.concatenate([ranked["model"][slice(*given.offsets[i : i + 2])] for i in row])
        for given, ranked, row in zip(shards, rankings, rows, strict=True)
    ]
    expected = fast(spaced, [{"model": each} for each in scores], histories, known)["model"]
    everything = fast(*world)["model"]
    for name, value in found.items():
        whole = name.startswith(("coverage", "gini"))
        assert value == pytest.approx((everything if whole else expected)[name], rel=1e-6)


# --- what is missing


def test_what_reads_something_unknown_is_absent(world):
    shards, rankings, histories, known = world
    reads = {
        "vectors": {"ild_vectors", "serendipity"},
        "categories": {"ild_categories", "calibration"},
        "clicks": {"novelty"},
        "ages": {"new_articles"},
    }
    for missing, names in reads.items():
        found = fast(shards, rankings, histories, known | {missing: None})["model"]
        assert {key.split("@")[0] for key in found} == set(NAMES) - names
    timeless = [replace(given, time=None) for given in shards]
    found = fast(timeless, rankings, histories, known)["model"]
    assert {key.split("@")[0] for key in found} == set(NAMES) - {"new_articles"}


def test_an_empty_shard_changes_nothing(world):
    shards, rankings, histories, known = world
    empty = random_shard(np.random.default_rng(1), 0, ARTICLES)
    none = {name: np.zeros(0, np.float32) for name in ("model", "other")}
    found = fast([*shards, empty], [*rankings, none], histories, known)
    assert found == fast(*world)
    assert fast([empty], [none], histories, known) == {"model": {}, "other": {}}


def articles(categories):
    n = len(categories)
    return Articles(
        pa.array(range(n)),
        pa.array([""] * n),
        DataReport(),
        columns={"category_str": categories, "category": pa.nulls(n)},
    )


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_categories_are_numbered_from_1(kind):
    given = pa.array(["news", None, "sport", "", "news"], kind)
    assert category_codes(articles(given)).tolist() == [0, 1, 0, 2, 0, 1]
    assert category_codes(articles(pa.array([7, 7, None]))).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("given", [pa.nulls(2), pa.array(["", None])])
def test_that_there_are_no_categories_is_said(given, caplog):
    caplog.set_level("INFO")
    assert category_codes(articles(given)) is None
    (message,) = caplog.messages
    assert "has no categories" in message


def test_the_columns_of_categories_are_read_once():
    own = Column("category_str", "label", required=False)
    assert [column.name for column in with_category([own])] == ["category_str", "category"]
    assert [column.name for column in with_category([])] == ["category_str", "category"]


def test_clicks_are_those_with_a_time():
    rng = np.random.default_rng(3)
    shards = [without_time(random_shard(rng, 50), slice(0, 10)), random_shard(rng, 50)]
    popularity = Popularity()
    for given in shards:
        popularity.add(given)
    first, second = shards
    late = first.clicked & (np.arange(len(first.candidates)) >= first.offsets[10])
    clicked = np.concatenate([first.candidates[late], second.candidates[second.clicked]])
    expected = np.bincount(clicked[clicked > 0], minlength=13)
    assert popularity.clicks(12).tolist() == expected.tolist()
    popularity.scores(second)
    assert popularity.clicks(12).tolist() == expected.tolist()
    assert Popularity().clicks(3).tolist() == [0] * 4


# --- in an evaluation


def test_an_evaluation_has_them_of_the_model_and_of_each_baseline(world):
    shards, rankings, histories, known = world
    popularity = Popularity()
    for given in shards:
        popularity.add(given)

    def evaluated(shards):
        baselines = standard_baselines(popularity, None, 0)
        evaluation = Evaluation(baselines, beyond=BeyondAccuracy(ARTICLES, histories, **known))
        for given, ranked in zip(shards, rankings, strict=True):
            evaluation.add(given, np.zeros(len(given), int), ranked["model"])
        return evaluation.metrics()

    metrics, expected = evaluated(shards), fast(*world)["model"]
    assert {name: metrics[name] for name in expected} == expected
    found = metrics["baselines"]["popularity"]
    assert set(expected) < set(found)
    assert found["novelty@5"] < metrics["novelty@5"]
    unlabelled = evaluated([replace(given, clicked=None) for given in shards])
    assert {name: unlabelled[name] for name in expected} == expected
    assert "baselines" not in unlabelled
