import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from nrms.errors import SchemaError
from nrms.evaluation.article_ages import ArticleAges
from nrms.evaluation.baselines import Popularity, standard_baselines
from nrms.evaluation.evaluation import UNLABELLED, Evaluation
from nrms.evaluation.intervals import AucInterval, impression_keys
from nrms.evaluation.ranking import METRICS, impression_metrics
from nrms.evaluation.slices import SLICES
from tests.shards import random_shard, without_time


@pytest.fixture
def scored():
    """Two shards, with history lengths and scores."""
    rng = np.random.default_rng(0)
    shards = [without_time(random_shard(rng, 200), slice(0, 20)), random_shard(rng, 150)]
    shards = [
        replace(
            shard,
            device=rng.integers(0, 3, len(shard)).astype(np.int32),
            page_id=pa.array(rng.integers(0, 2, len(shard)), mask=rng.random(len(shard)) < 0.7),
        )
        for shard in shards
    ]
    return [
        (
            shard,
            rng.integers(0, 60, len(shard)),
            rng.standard_normal(len(shard.candidates)).astype(np.float32),
        )
        for shard in shards
    ]


def evaluate(scored, *args):
    ages = ArticleAges(None, 8)
    for shard, _, _ in scored:
        ages.add(shard)
    evaluation = Evaluation(*args, ages=ages)
    for shard, lengths, scores in scored:
        evaluation.add(shard, lengths, scores)
    return evaluation


def ages_of(scored):
    """Whether the youngest clicked article of each impression is new, and whether that is known, by
    the first showing alone, in plain Python.
    """
    start = min(shard.time[~np.isnat(shard.time)].min() for shard, _, _ in scored)
    first = {}
    hour = np.timedelta64(1, "h")
    for shard, _, _ in scored:
        for i, time in enumerate(shard.time):
            for article in shard.candidates[slice(*shard.offsets[i : i + 2])]:
                if not np.isnat(time):
                    first[article] = min(first.get(article, time), time)
    found = []
    for shard, _, _ in scored:
        for i, time in enumerate(shard.time):
            span = slice(*shard.offsets[i : i + 2])
            states = set()
            for article in shard.candidates[span][shard.clicked[span]]:
                if article == 0 or np.isnat(time):
                    states.add("unknown")
                elif time - first[article] >= hour:
                    states.add("old")
                else:
                    states.add("unknown" if first[article] < start + hour else "new")
            found.append((("new" in states), "new" in states or states == {"old"}))
    return np.array(found).T


def test_metrics_are_means_over_the_impressions_of_all_shards(scored):
    metrics = evaluate(scored).metrics()
    auc = np.concatenate(
        [impression_metrics(s.offsets, scores, s.clicked).auc for s, _, scores in scored]
    )
    assert metrics["auc"] == pytest.approx(np.nanmean(auc))
    assert metrics["skipped_one_class"] == np.isnan(auc).sum() > 0
    assert metrics["impressions"] == 350
    assert metrics["candidates"] == sum(len(scores) for _, _, scores in scored)
    assert metrics["unlabelled"] == 0
    assert (
        metrics["unknown_articles"]
        == sum((shard.candidates == 0).sum() for shard, _, _ in scored)
        > 0
    )
    assert metrics["empty_histories"] == sum((lengths == 0).sum() for _, lengths, _ in scored) > 0
    assert json.loads(json.dumps(metrics)) == metrics


def test_every_ranking_has_the_interval_of_its_auc(scored):
    popularity = Popularity()
    for shard, _, _ in scored:
        popularity.add(shard)
    baselines = standard_baselines(popularity, None, 0)
    metrics = evaluate(scored, baselines).metrics()
    expected = AucInterval()
    for shard, _, scores in scored:
        found = impression_metrics(shard.offsets, scores, shard.clicked)
        expected.add(impression_keys(shard.impression_id, shard.user_id), found.auc)
    assert metrics["auc_interval"] == expected.result()
    low, high = metrics["auc_interval"]
    assert low < metrics["auc"] < high
    for found in metrics["baselines"].values():
        assert found["auc_interval"][0] < found["auc"] < found["auc_interval"][1]
    assert evaluate(scored[::-1], baselines).metrics()["auc_interval"] == [low, high]


def test_all_metrics_are_given_by_each_slice(scored):
    metrics = evaluate(scored).metrics()
    values = np.concatenate(
        [impression_metrics(s.offsets, scores, s.clicked).values for s, _, scores in scored], axis=1
    )
    counted = ~np.isnan(values[0])
    length = np.concatenate([lengths for _, lengths, _ in scored])
    hour = np.array(
        [-1 if np.isnat(t) else t.item().hour for shard, _, _ in scored for t in shard.time]
    )
    device = np.concatenate([shard.device for shard, _, _ in scored])
    page = np.array([page for shard, _, _ in scored for page in shard.page_id.to_pylist()], float)
    listed = np.concatenate([np.diff(shard.offsets) for shard, _, _ in scored])
    is_new, known = ages_of(scored)
    buckets = {
        "0": (0, 0),
        "1-5": (1, 5),
        "6-10": (6, 10),
        "11-20": (11, 20),
        "21-50": (21, 50),
        "51+": (51, 99),
    }
    expected = {
        "by_history_length": {
            name: (length >= low) & (length <= high) for name, (low, high) in buckets.items()
        },
        "by_hour": {str(h): hour == h for h in range(24)},
        "by_device": {"1": device == 1, "2": device == 2},
        "by_page": {"front page": np.isnan(page), "article page": ~np.isnan(page)},
        "by_reader": {"new": length == 0, "known": length > 0},
        "by_list_length": {"1-5": listed <= 5, "6-9": listed >= 6},
        "by_article_age": {"under 1 h": is_new & known, "1 h or more": ~is_new & known},
    }
    assert expected.keys() == {name for name in metrics if name.startswith("by_")}
    for attribute, members in expected.items():
        assert list(metrics[attribute]) == list(members)
        for key, member in members.items():
            found = metrics[attribute][key]
            assert list(found) == [*METRICS, "impressions"]
            assert found["impressions"] == (counted & member).sum()
            assert [found[name] for name in METRICS] == pytest.approx(
                values[:, counted & member].mean(axis=1)
            )


def test_plots_by_group_show_auc(scored):
    evaluation = evaluate(scored)
    metrics, figures = evaluation.metrics(), evaluation.figures()
    for attribute in SLICES:
        ((points, _, _),) = figures[f"auc_by_{attribute}"].axes[0].containers
        groups = metrics[f"by_{attribute}"].values()
        assert points.get_ydata() == pytest.approx([group["auc"] for group in groups])


def test_baselines_stand_beside_the_model_where_the_data_allows_them(scored):
    popularity = Popularity()
    for shard, _, _ in scored:
        popularity.add(shard)
    metrics = evaluate(scored, standard_baselines(popularity, None, 0)).metrics()
    assert list(metrics["baselines"]) == ["random", "popularity"]
    assert metrics["baselines"]["random"]["skipped_one_class"] == metrics["skipped_one_class"]
    counts = [popularity.scores(shard) for shard, _, _ in scored]
    auc = [
        impression_metrics(s.offsets, count, s.clicked).auc
        for (s, _, _), count in zip(scored, counts, strict=True)
    ]
    assert metrics["baselines"]["popularity"]["auc"] == pytest.approx(
        np.nanmean(np.concatenate(auc))
    )

    ideal = [
        (replace(s, per_candidate={"oracle": s.clicked.astype(np.float32)}), lengths, scores)
        for s, lengths, scores in scored
    ]
    metrics = evaluate(ideal, standard_baselines(popularity, None, 0)).metrics()
    assert metrics["baselines"]["oracle"]["auc"] == 1


def test_unlabelled_shards_are_counted_and_have_no_metrics(scored):
    unlabelled = [
        (replace(shard, clicked=None), lengths, scores) for shard, lengths, scores in scored
    ]
    evaluation = evaluate(unlabelled, standard_baselines(Popularity(), None, 0))
    metrics = evaluation.metrics()
    assert set(metrics) == {
        "impressions",
        "candidates",
        "unlabelled",
        "unknown_articles",
        "empty_histories",
    }
    assert metrics["unlabelled"] == metrics["impressions"] == 350
    assert list(evaluation.figures()) == ["score_distribution"]

    mixed = evaluate([scored[0], unlabelled[1]]).metrics()
    assert mixed["auc"] == evaluate(scored[:1]).metrics()["auc"]
    assert mixed["unlabelled"] == 150


def test_figures_are_those_with_data(scored):
    assert not Evaluation().figures()
    names = {"score_distribution", *(f"auc_by_{name}" for name in SLICES)}
    assert set(evaluate(scored).figures()) == names
    bare = [
        (replace(shard, time=None, device=None, page_id=None), lengths, scores)
        for shard, lengths, scores in scored
    ]
    assert names - set(evaluate(bare).figures()) == {
        "auc_by_hour",
        "auc_by_article_age",
        "auc_by_page",
        "auc_by_device",
    }
    strange = [
        (replace(shard, device=np.arange(len(shard), dtype=np.int32)), lengths, scores)
        for shard, lengths, scores in scored
    ]
    assert names - set(evaluate(strange).figures()) == {"auc_by_device"}
    shard, lengths, scores = scored[0]
    evaluation = Evaluation()  # without the ages of articles
    evaluation.add(shard, lengths, scores)
    assert names - set(evaluation.figures()) == {"auc_by_article_age"}


def test_an_empty_shard_changes_nothing(scored):
    empty = random_shard(np.random.default_rng(1), 0)
    none = (empty, np.zeros(0, np.int32), np.zeros(0, np.float32))
    assert evaluate([*scored, none]).metrics() == evaluate(scored).metrics()
    assert "auc" not in evaluate([none]).metrics()
    assert not evaluate([none]).figures()


def test_the_score_sample_is_bounded_uniform_and_names_all_scores(monkeypatch):
    monkeypatch.setattr("nrms.evaluation.evaluation.SAMPLE", 1000)
    rng = np.random.default_rng(2)
    evaluation = Evaluation()
    seen = 0
    for level in range(10):
        shard = replace(random_shard(rng, 600), clicked=None)
        seen += len(shard.candidates)
        evaluation.add(shard, np.zeros(600, int), np.full(len(shard.candidates), level, np.float32))
    sample = evaluation._samples[UNLABELLED]
    assert len(sample.values) == 1000
    # 100 a level on average, standard deviation 9.5.
    assert np.bincount(sample.values.astype(int), minlength=10) == pytest.approx(100, abs=40)
    (axes,) = evaluation.figures()["score_distribution"].axes
    assert axes.get_legend().texts[0].get_text() == f"all candidates ({seen:,})"


def test_infinite_scores_are_ranked_and_left_out_of_the_plot():
    shard = replace(random_shard(np.random.default_rng(3), 50), clicked=None)
    evaluation = Evaluation()
    evaluation.add(shard, np.zeros(50, int), np.full(len(shard.candidates), -np.inf, np.float32))
    assert not evaluation.figures()
    evaluation.add(shard, np.zeros(50, int), np.zeros(len(shard.candidates), np.float32))
    assert set(evaluation.figures()) == {"score_distribution"}


@pytest.mark.parametrize("labelled", [True, False])
def test_nan_scores_are_refused_before_anything_is_counted(scored, labelled):
    shard, lengths, scores = scored[0]
    shard = shard if labelled else replace(shard, clicked=None)
    evaluation = Evaluation()
    with pytest.raises(SchemaError, match="NaN for 1 of"):
        evaluation.add(
            shard, lengths, np.where(np.arange(len(scores)) == 7, np.float32(np.nan), scores)
        )
    assert evaluation.metrics() == Evaluation().metrics()
