"""Two folders of predictions, as a night writes them, and what a comparison says of them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.compare import main
from nrms import storage
from nrms.data.dataset import Dataset
from nrms.errors import ConfigError, SchemaError
from nrms.evaluation.article_ages import ArticleAges
from nrms.evaluation.evaluation import Evaluation
from nrms.evaluation.ranking import METRICS
from nrms.evaluation.slices import LONGEST_HISTORY, SLICES
from nrms.nights import predictions
from nrms.nights.compare import compare
from nrms.nights.config import CompareConfig
from nrms.nights.output import NightOutput
from tests.damage import flipped
from tests.small_data import Folder, at

pytestmark = pytest.mark.usefixtures("drawn_once")

BY_HAND = {
    "impression_id": [1, 2, 3],
    "user_id": [7, 8, 9],
    "impression_time": at(0, 60, 125),
    "article_ids_inview": [[10, 20, 30], [20, 40], [10]],
    "article_ids_clicked": [[20], [40], [10]],
    "article_id": pa.array([None, 40, None], pa.int64()),
}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    """A tenth of the draws, which the tests share: to make them is most of the time of each."""
    monkeypatch.setattr("nrms.nights.compare.RESAMPLES", 1000)


def random_rows(rng, n, first):
    """Impressions of one shard, with all that slices need."""
    in_view = [rng.permutation([10, 20, 30, 40] * 6)[:k].tolist() for k in rng.integers(1, 25, n)]
    return {
        "impression_id": list(range(first, first + n)),
        "user_id": rng.choice([7, 8, 9, 99], n).tolist(),
        "impression_time": at(*(first + np.arange(n)).tolist()),
        "article_ids_inview": in_view,
        "article_ids_clicked": [list({int(rng.choice(shown))}) for shown in in_view],
        "device_type": pa.array(rng.integers(1, 3, n)),
        "article_id": pa.array(rng.integers(0, 2, n) * 10 + 10, mask=rng.random(n) < 0.6),
    }


@pytest.fixture
def folder(tmp_path):
    """A data set whose shards a test writes."""
    folder = Folder(tmp_path / "data", strings=False)
    folder.write_all()
    (folder.path / "train/behaviors.parquet").rename(folder.path / "x")
    (folder.path / "x").unlink()
    return folder


@pytest.fixture
def by_hand(folder):
    folder.write("train/behaviors.parquet", BY_HAND)
    return folder


@pytest.fixture
def shards(folder):
    rng = np.random.default_rng(0)
    for number, n in enumerate((150, 0, 90)):  # a night has a part for an empty file, too
        folder.write(f"train/behaviors-{number}.parquet", random_rows(rng, n, 150 * number))
    return folder


def split_of(folder):
    return Dataset.open(str(folder.path), folder.path / "cache").split("train", LONGEST_HISTORY)


def scored(folder, where, scores, version="v"):
    """A night's folder of these scores: a list for all candidates, or a seed."""
    split = split_of(folder)
    output = NightOutput(str(where), {"model": version, "scores": str(scores)})
    assert output.claim()
    rng, start = np.random.default_rng(scores if isinstance(scores, int) else 0), 0
    for number in range(len(split)):
        shard = split.read(number)
        end = start + len(shard.candidates)
        values = rng.random(end - start) if isinstance(scores, int) else scores[start:end]
        if isinstance(scores, int) and shard.clicked is not None:
            values = values + 0.1 * scores * shard.clicked  # a higher seed ranks better
        output.scores(number, shard, lambda values=values: np.array(values, np.float32))
        start = end
    output.finish({"model": {"version": version}})
    return str(where)


A, B = [3, 2, 1, 0, 1, 5], [1, 3, 2, 1, 0, 5]


@pytest.fixture
def config(by_hand, tmp_path):
    """A comparison of two rankings that were measured by hand."""
    return CompareConfig(
        a=scored(by_hand, tmp_path / "a", A, "one"),
        b=scored(by_hand, tmp_path / "b", B, "other"),
        output=str(tmp_path / "out"),
    )


def files(uri):
    return {storage.name(info.uri): storage.read_bytes(info) for info in storage.list_files(uri)}


def test_differences_are_those_computed_by_hand(config):
    """Of impression 1, A ranks the click second of three and B first; of impression 2, A ranks it
    first of two and B second; impression 3 has nothing but its click.
    """
    done = compare(config)
    assert done.is_new
    metrics = done.metrics
    second = 1 / np.log2(3)  # the discount of the second place
    by_hand = {
        "auc": (0.75, 0.5),
        "mrr": (0.75, 0.75),
        "ndcg@5": ((second + 1) / 2, (1 + second) / 2),
        "ndcg@10": ((second + 1) / 2, (1 + second) / 2),
    }
    for name, (a, b) in by_hand.items():
        found = metrics[name]
        assert (found["a"], found["b"]) == pytest.approx((a, b), abs=1e-9)
        assert found["difference"] == pytest.approx(b - a, abs=1e-9)
        assert found["interval"][0] <= found["difference"] <= found["interval"][1]
    counts = {"impressions": 3, "measured": 2, "skipped_one_class": 1, "unlabelled": 0}
    assert {name: metrics[name] for name in counts} == counts
    assert (metrics["a"], metrics["b"]) == (config.a, config.b)
    assert list(metrics["by_list_length"]) == ["1-5"]
    assert metrics["by_list_length"]["1-5"] == {
        **{name: metrics[name] for name in METRICS},
        "impressions": 2,
    }
    assert {name for name in metrics if name.startswith("by_")} == {"by_list_length"}
    assert json.loads(files(done.output)["metrics.json"]) == metrics


def test_with_the_data_each_slice_is_compared(config, by_hand):
    metrics = compare(replace(config, data=str(by_hand.path), split="train")).metrics
    aucs = {
        name: {group: (found["auc"]["a"], found["auc"]["b"]) for group, found in groups.items()}
        for name, groups in metrics.items()
        if name.startswith("by_")
    }
    first, second = (0.5, 1.0), (1.0, 0.0)
    assert aucs == {
        "by_hour": {"7": first, "8": second},
        "by_history_length": {"1-5": (0.75, 0.5)},
        "by_reader": {"known": (0.75, 0.5)},
        # Article 20 is shown in the first hour, and article 40 not before 60 minutes.
        "by_article_age": {"under 1 h": second},
        "by_list_length": {"1-5": (0.75, 0.5)},
        "by_page": {"front page": first, "article page": second},
    }
    assert "interval" not in metrics["by_hour"]["7"]["auc"]  # of a single impression


def test_many_impressions_are_measured_as_a_night_measures_them(shards, tmp_path):
    a, b = scored(shards, tmp_path / "a", 1), scored(shards, tmp_path / "b", 5)
    where = {"data": str(shards.path), "split": "train", "output": str(tmp_path / "out")}
    metrics = compare(CompareConfig(a=a, b=b, **where)).metrics

    split = split_of(shards)
    ages = ArticleAges(None, 4)
    for i in range(len(split)):
        ages.add(split.read(i))
    nights = {}
    for name, uri in (("a", a), ("b", b)):
        evaluation = Evaluation(ages=ages)
        for i in range(len(split)):
            shard = split.read(i)
            part = pq.read_table(Path(uri, f"part-{i:05}.parquet"))
            scores = np.array(part["scores"].combine_chunks().flatten(), np.float32)
            evaluation.add(shard, split.histories.lengths[shard.user], scores)
        nights[name] = evaluation.metrics()
    for name, night in nights.items():
        for metric in METRICS:
            assert metrics[metric][name] == pytest.approx(night[metric], abs=1e-9)
        for slice_name in SLICES:
            groups = night[f"by_{slice_name}"]
            assert list(metrics[f"by_{slice_name}"]) == list(groups)
            for group, found in groups.items():
                there = metrics[f"by_{slice_name}"][group]
                assert there["impressions"] == found["impressions"]
                for metric in METRICS:
                    assert there[metric][name] == pytest.approx(found[metric], abs=1e-9)
    assert metrics["auc"]["difference"] > 0.1
    assert metrics["auc"]["p"] == pytest.approx(2 / 1001)
    assert metrics["skipped_one_class"] == nights["a"]["skipped_one_class"] > 0


def test_equal_folders_differ_by_nothing(shards, tmp_path):
    a, b = scored(shards, tmp_path / "a", 1, "v"), scored(shards, tmp_path / "b", 1, "w")
    where = {"data": str(shards.path), "split": "train", "output": str(tmp_path / "out")}
    metrics = compare(CompareConfig(a=a, b=b, **where)).metrics
    slices = [group for name in SLICES for group in metrics[f"by_{name}"].values()]
    assert len(slices) > 15
    for found in [metrics, *slices]:
        for name in METRICS:
            assert found[name]["a"] == found[name]["b"]
            assert found[name]["difference"] == 0
            if found is metrics or found["impressions"] > 1:
                assert (found[name]["interval"], found[name]["p"]) == ([0, 0], 1)


def test_parts_of_other_sizes_hold_the_same_impressions(shards, tmp_path, monkeypatch):
    a, b = scored(shards, tmp_path / "a", 1), scored(shards, tmp_path / "b", 5)
    paths = [shards.path / f"train/behaviors-{number}.parquet" for number in (0, 2)]
    rows = pa.concat_tables(map(pq.read_table, paths))
    other = Folder(tmp_path / "other", strings=False)
    other.write_all()
    (other.path / "train/behaviors.parquet").unlink()
    for number, part in enumerate((slice(0, 70), slice(70, 200), slice(200, 240))):
        pq.write_table(rows[part], other.path / f"train/behaviors-{number}.parquet")
    scores = np.concatenate(
        [
            np.array(pq.read_table(path)["scores"].combine_chunks().flatten(), np.float32)
            for path in sorted(Path(b).glob("part-*.parquet"))
        ]
    )
    resharded = scored(other, tmp_path / "resharded", scores)

    read = []
    whole = predictions.parquet.read

    def noted(path, names):
        read.append(path.parent.name)
        return whole(path, names)

    monkeypatch.setattr(predictions.parquet, "read", noted)
    found = compare(CompareConfig(a=a, b=resharded, output=str(tmp_path / "out"))).metrics
    # Parts of both are read by turns, as they are needed.
    assert read == ["a", "resharded", "resharded", "a", "a", "resharded"]
    expected = compare(CompareConfig(a=a, b=b, output=str(tmp_path / "out-2"))).metrics
    assert {**found, "b": b} == expected


# --- what is refused


def refused(config, error=SchemaError):
    with pytest.raises(error) as caught:
        compare(config)
    message = str(caught.value)
    assert "\n" not in message
    assert not Path(config.output).exists()
    return message


@pytest.mark.parametrize(
    ("change", "received"),
    [
        ({"impression_id": [1, 3, 2]}, "impression_id 2 and 3 in row 1 (from 0)"),
        ({"user_id": [7, 8, 8]}, "user_id 9 and 8 in row 2 (from 0)"),
        (
            {"article_ids_inview": [[10, 20, 30], [40, 20], [10]]},
            "other candidates of impression 2, in row 1 (from 0)",
        ),
        (
            {"article_ids_inview": [[10, 20], [20, 40], [10]]},
            "other candidates of impression 1, in row 0 (from 0)",
        ),
        (
            {"article_ids_clicked": [[20], [20], [10]]},
            "other clicks of impression 2, in row 1 (from 0)",
        ),
        ({name: values[:2] for name, values in BY_HAND.items()}, "3 impressions in A and 2 impre"),
    ],
)
def test_predictions_of_other_impressions_are_refused(config, by_hand, tmp_path, change, received):
    by_hand.write("train/behaviors.parquet", BY_HAND | change)
    config = replace(config, b=scored(by_hand, tmp_path / "b2", B))
    assert refused(config).startswith(
        "Two predictions must be of the same impressions, in the same order, to be compared. "
        f"Received: {received}"
    )


def test_other_data_than_was_scored_is_refused(config, by_hand):
    config = replace(config, data=str(by_hand.path), split="train")
    by_hand.write("train/behaviors.parquet", BY_HAND | {"user_id": [7, 8, 5]})
    assert refused(config).startswith(
        "--data and --split must be what was scored. Received: user_id 5 and 9 in row 2 (from 0), "
        f"in {by_hand.path}/train."
    )
    by_hand.write("train/behaviors.parquet", {name: rows[:2] for name, rows in BY_HAND.items()})
    assert "2 impressions there, 3 predicted" in refused(config)


@pytest.mark.parametrize(
    ("damage", "received"),
    [
        (lambda a: (a / "_SUCCESS").unlink(), "manifest.json without _SUCCESS"),
        (lambda a: (a / "part-00000.parquet").unlink(), "files that are missing or damaged"),
        (
            lambda a: flip(a / "part-00000.parquet"),
            "files that are missing or damaged",
        ),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_a_folder_without_finished_predictions_is_refused(config, damage, received):
    damage(Path(config.a))
    message = refused(config)
    assert message.startswith("Predictions must be a folder that jobs.score has finished. ")
    assert f"Received: {received}" in message
    assert f", in {config.a}. " in message


def flip(path):
    path.write_bytes(flipped(path.read_bytes(), 100))


def test_a_data_set_is_no_prediction(config, by_hand):
    message = refused(replace(config, a=str(by_hand.path)))
    assert "Received: a folder of articles.parquet" in message


def test_without_clicks_there_is_nothing_to_compare(by_hand, tmp_path):
    by_hand.write("train/behaviors.parquet", BY_HAND | {"article_ids_clicked": None})
    a, b = (scored(by_hand, tmp_path / name, scores) for name, scores in (("a", A), ("b", B)))
    config = CompareConfig(a=a, b=b, output=str(tmp_path / "out"))
    assert "Received: none in 3 impressions, 3 of them without labels" in refused(config)


def test_clicks_of_one_folder_are_enough(config, by_hand, tmp_path):
    expected = compare(config).metrics
    by_hand.write("train/behaviors.parquet", BY_HAND | {"article_ids_clicked": None})
    b = scored(by_hand, tmp_path / "unlabelled", B)
    found = compare(replace(config, b=b, output=f"{config.output}-2")).metrics
    assert {**found, "b": config.b} == expected


# --- the folder that is written


def test_the_same_comparison_is_found_again_and_a_broken_one_is_made_again(config):
    first = compare(config)
    written = files(config.output)
    assert set(written) == {"metrics.json", "report.html", "manifest.json", "_SUCCESS"}
    again = compare(config)
    assert (again.is_new, again.metrics) == (False, first.metrics)
    for name in ("_SUCCESS", "metrics.json"):
        Path(config.output, name).unlink()
        assert compare(config).is_new
        assert files(config.output) == written


def test_another_comparison_is_refused_and_overwritten_on_demand(config):
    compare(config)
    other = replace(config, seed=1)
    with pytest.raises(ConfigError, match=r"seed is 42 and not 1\. .*--overwrite"):
        compare(other)
    assert compare(replace(other, overwrite=True)).is_new


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_comparison_is_never_replaced(config, overwrite):
    before = files(config.a)
    config = replace(config, output=config.a, overwrite=overwrite)
    with pytest.raises(ConfigError, match="--output must be empty or hold a comparison"):
        compare(config)
    assert files(config.a) == before


def test_the_report_shows_each_metric_and_each_slice_with_plots(config, by_hand):
    done = compare(replace(config, data=str(by_hand.path), split="train"))
    page = files(done.output)["report.html"].decode()
    assert page.count("<strong>-0.2500</strong>") == 1
    assert page.count("<strong>+0.0000</strong>") + page.count("<strong>-0.0000</strong>") == 3
    for text in ("by one", "by other", "1,000 resamples, seed 42", config.a, config.b):
        assert text in page
    slices = [name for name in SLICES if f"by_{name}" in done.metrics]
    assert page.count("<img") == 1 + len(slices) == 7
    for name in slices:
        assert f"<h2>By {SLICES[name].title}</h2>" in page
        assert f'alt="auc difference by {name.replace("_", " ")}"' in page


@pytest.mark.system
def test_a_bucket_gives_what_a_folder_gives(config, bucket):
    for name in ("a", "b"):
        for path in Path(getattr(config, name)).iterdir():
            storage.upload(path, f"{bucket}/{name}/{path.name}")
    remote = replace(config, a=f"{bucket}/a", b=f"{bucket}/b", output=f"{bucket}/out")
    found = compare(remote)
    expected = compare(config)
    assert {**found.metrics, "a": config.a, "b": config.b} == expected.metrics
    assert json.loads(files(remote.output)["metrics.json"]) == found.metrics
    assert not compare(remote).is_new


# --- the command


def test_the_job_prints_the_differences(config, by_hand, capsys):
    main(replace(config, data=str(by_hand.path), split="train"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["2", "impressions"] in lines
    (auc,) = [line for line in lines if line[:1] == ["auc"] and line[1] != "by"]
    assert auc[1:4] == ["0.7500", "0.5000", "-0.2500"]
    assert auc[5] == "to"
    assert ["front", "page", "0.5000", "1.0000", "+0.5000", "1"] in lines
    assert lines[-1] == ["comparison:", config.output]
    main(replace(config, data=str(by_hand.path), split="train"))
    assert capsys.readouterr().out.endswith(f"comparison: {config.output}, complete already\n")
