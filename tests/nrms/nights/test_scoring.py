"""The nightly job end to end: what it writes, that it repeats, and that nothing can break it
half-way.
"""

import importlib.metadata
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from jobs.cli import run
from jobs.score import Progress, main
from nrms import storage
from nrms.config import as_dict
from nrms.errors import ArtifactError, ConfigError, SchemaError, StorageError
from nrms.evaluation import plots
from nrms.evaluation.beyond_accuracy import NAMES
from nrms.nights.config import ScoreConfig
from nrms.nights.scoring import score
from tests.conftest import FakeGcs, FaultyProxy
from tests.damage import flipped
from tests.offline_runs import started
from tests.small_data import Folder
from tests.small_training import METRICS, REPOSITORY

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("drawn_once")]

SHARDS = 4
PARTS = [f"part-{number:05}.parquet" for number in range(SHARDS)]
FINALS = ["_SUCCESS", "manifest.json", "metrics.json", "report.html"]


@pytest.fixture(scope="module")
def data(demo):
    return demo


@pytest.fixture(scope="module")
def trained(trained, tmp_path_factory):
    """The result of the session's training; its model root is a copy, for scoring leaves article
    vectors there.
    """
    config, result = trained
    models = tmp_path_factory.mktemp("trained") / "models"
    shutil.copytree(config.output, models, copy_function=os.link)
    return replace(result, model_uri=str(models / Path(result.model_uri).name))


@pytest.fixture(scope="module")
def other_model(world):
    return world.version


def copied(source, target):
    for info in storage.list_files(source):
        storage.upload(info.uri, storage.join(target, str(Path(info.uri).relative_to(source))))
    return target


@pytest.fixture
def config(data, trained, tmp_path):
    """A night in local folders, by the runtime that starts soonest."""
    flags = {"output": str(tmp_path / "out"), "runtime": "onnx", "wandb_mode": "disabled"}
    return ScoreConfig(model=trained.model_uri, data=data, **flags)


@pytest.fixture
def remote(data, trained, bucket):
    """A night in a bucket."""
    models = copied(Path(trained.model_uri).parent, f"{bucket}/models")
    demo = copied(data, f"{bucket}/demo")
    return ScoreConfig(
        model=models, data=demo, output=f"{bucket}/out", runtime="onnx", wandb_mode="disabled"
    )


@pytest.fixture
def editable(config, tmp_path):
    """A night whose data may be changed."""
    return replace(config, data=copied(config.data, str(tmp_path / "data")))


@pytest.fixture(params=["folder", "bucket"])
def night(request):
    return request.getfixturevalue({"folder": "config", "bucket": "remote"}[request.param])


def read(config, name):
    return storage.read_bytes(storage.join(config.output, name))


def listed(config):
    """Name and generation of each file of the output."""
    files = storage.list_files(config.output)
    direct = [
        info for info in files if info.uri == storage.join(config.output, storage.name(info.uri))
    ]
    return {storage.name(info.uri): info.generation for info in direct}


def part(config, number):
    return pq.read_table(pa.BufferReader(read(config, PARTS[number])))


def contents(config):
    """All that an unbroken run and a resumed one must have in common."""
    tables = [part(config, number).replace_schema_metadata() for number in range(SHARDS)]
    return tables, {
        name: read(config, name) for name in listed(config).keys() - {"manifest.json"} - set(PARTS)
    }


def shard_paths(config):
    return sorted(Path(config.data, config.split).glob("behaviors*.parquet"))


def rewrite(path, change):
    pq.write_table(change(pq.read_table(path)), path)


# --- what is written


def test_every_impression_comes_out_in_order_with_scores_and_ranks(night, tmp_path):
    score(night)
    assert sorted(listed(night)) == sorted([*PARTS, *FINALS])
    for number, info in enumerate(
        storage.list_files(storage.join(night.data, "validation/"), ".parquet")[:SHARDS]
    ):
        given = pq.read_table(storage.fetch(info, tmp_path))
        table = part(night, number)
        columns = [
            "impression_id",
            "user_id",
            "article_ids_inview",
            "scores",
            "ranks",
            "article_ids_clicked",
        ]
        assert table.column_names == columns
        for name in ("impression_id", "user_id", "article_ids_inview", "article_ids_clicked"):
            assert table[name].combine_chunks() == given[name].combine_chunks()
        assert table.schema.field("scores").type == pa.list_(pa.float32())
        assert table.schema.field("ranks").type == pa.list_(pa.int32())
        for row in table.to_pylist():
            order = sorted(range(len(row["scores"])), key=lambda i: -row["scores"][i])
            assert [row["ranks"][i] for i in order] == list(range(1, len(order) + 1))


def test_auc_is_that_of_training_and_of_a_slow_recomputation_from_the_parts(night, trained):
    result = score(replace(night, runtime="keras"))
    metrics = json.loads(read(night, "metrics.json"))
    assert metrics == result.metrics
    for name in METRICS:
        assert metrics[name] == pytest.approx(trained.metrics[name], abs=1e-6)
    aucs = []
    for number in range(SHARDS):
        for row in part(night, number).to_pylist():
            clicked = [
                article in row["article_ids_clicked"] for article in row["article_ids_inview"]
            ]
            if 0 < sum(clicked) < len(clicked):
                aucs.append(roc_auc_score(clicked, row["scores"]))
    assert metrics["auc"] == pytest.approx(np.mean(aucs), abs=1e-6)
    assert metrics["auc_interval"] == pytest.approx(trained.metrics["auc_interval"], abs=1e-6)
    assert metrics["baselines"].keys() == {"random", "popularity", "newest", "oracle"}
    # one definition, wherever the split is evaluated
    for name in ("popularity", "newest", "oracle"):
        assert metrics["baselines"][name] == trained.metrics["baselines"][name]
    assert metrics["impressions"] == 400


def test_a_night_says_what_accuracy_does_not_as_training_does(config, trained, capsys):
    main(config)
    metrics = json.loads(read(config, "metrics.json"))
    names = {f"{name}@{k}" for name in NAMES for k in (5, 10)}
    rankings = {"model": metrics, **metrics["baselines"]}
    learned = {"model": trained.metrics, **trained.metrics["baselines"]}
    for name, found in rankings.items():
        assert names <= found.keys()
        if name != "random":
            assert {key: found[key] for key in names} == pytest.approx(
                {key: learned[name][key] for key in names}, abs=1e-4
            )
    # from nothing but the parts
    rows = [row for number in range(SHARDS) for row in part(config, number).to_pylist()]
    shown = {article for row in rows for article in row["article_ids_inview"]}
    listed = {
        article
        for row in rows
        for article, rank in zip(row["article_ids_inview"], row["ranks"], strict=True)
        if rank <= 5
    }
    assert metrics["coverage@5"] == pytest.approx(len(listed) / len(shown))
    table = pq.read_table(
        Path(config.data, "articles.parquet"), columns=["article_id", "category_str"]
    )
    category = dict(zip(*table.to_pydict().values(), strict=True))
    diversity = []
    for row in rows:
        best = sorted(zip(row["ranks"], row["article_ids_inview"], strict=True))[:5]
        kinds = [category[article] for _, article in best]
        pairs = [a != b for a, b in itertools.combinations(kinds, 2)]
        diversity += [np.mean(pairs)] * bool(pairs)
    assert metrics["ild_categories@5"] == pytest.approx(np.mean(diversity))
    assert f"novelty@10          {metrics['novelty@10']:>12.4f}" in capsys.readouterr().out
    assert "Beyond accuracy" in read(config, "report.html").decode()


def test_without_categories_their_metrics_are_absent_and_the_log_says_so_once(editable, caplog):
    rewrite(
        Path(editable.data, "articles.parquet"), lambda table: table.drop_columns("category_str")
    )
    caplog.set_level("INFO")
    metrics = score(editable).metrics
    assert "ild_vectors@5" in metrics
    assert not {"ild_categories@5", "calibration@5"} & metrics.keys()
    assert sum("has no categories" in message for message in caplog.messages) == 1


def test_the_manifest_says_what_was_read_and_written(night, trained, tmp_path):
    score(night)
    manifest = json.loads(read(night, "manifest.json"))
    assert manifest["model"]["version"] == storage.name(trained.model_uri)
    assert len(manifest["model"]["sha256"]) == 64
    inputs = {file["name"]: file for file in manifest["inputs"]}
    assert len(inputs) == 2 + SHARDS
    assert [
        inputs[f"validation/behaviors-{number:05}.parquet"]["rows"] for number in range(SHARDS)
    ] == [100] * SHARDS
    for name, file in inputs.items():
        info = storage.stat(storage.join(night.data, name))
        assert (file["size"], file["generation"]) == (info.size, info.generation)
    files = {file["name"]: file for file in manifest["files"]}
    assert files.keys() == {*PARTS, "metrics.json", "report.html"}
    for name, file in files.items():
        copy = tmp_path / "copy"
        copy.write_bytes(read(night, name))
        info = storage.upload(copy, storage.join(night.output, name))
        assert info.crc32c in (None, file["crc32c"])
        assert info.size == file["size"]
    assert [files[name]["rows"] for name in PARTS] == [100] * SHARDS
    assert manifest["config"] == as_dict(night)
    assert {"tensorflow", "pyarrow"} <= manifest["libraries"].keys()
    stages = {
        "model",
        "open",
        "check",
        "read",
        "catalogue",
        "users",
        "dot products",
        "metrics",
        "write",
        "report",
    }
    assert manifest["seconds"].keys() == stages


def test_the_report_shows_metrics_and_ten_examples(config, monkeypatch):
    # Without a run to record there, nothing is drawn for Weights & Biases.
    monkeypatch.setattr(plots, "save_all", lambda *_: pytest.fail("drawn for nobody"))
    result = score(config)
    page = Path(config.output, "report.html").read_text()
    assert f"{result.metrics['auc']:.4f}" in page
    assert page.count("<article>") == 10


@pytest.mark.parametrize("clicks", [None, [None] * 100], ids=["no column", "all null"])
def test_unlabelled_impressions_are_scored_and_have_no_metrics(editable, clicks):
    for path in shard_paths(editable):
        rewrite(path, lambda table: table.drop_columns("article_ids_clicked"))
        if clicks is not None:
            rewrite(
                path,
                lambda table: table.append_column(
                    "article_ids_clicked", pa.array(clicks, pa.list_(pa.int64()))
                ),
            )
    metrics = score(editable).metrics
    assert not {*METRICS, "baselines", "skipped_one_class"} & metrics.keys()
    assert (metrics["impressions"], metrics["unlabelled"]) == (400, 400)
    assert "article_ids_clicked" not in part(editable, 0).column_names
    assert "unlabelled" in Path(editable.output, "report.html").read_text()


@pytest.mark.parametrize("strings", [False, True])
def test_awkward_rows_come_out_as_they_went_in(config, tmp_path, strings):
    folder = Folder(tmp_path / "small", strings)
    given = {
        "impression_id": [5, 3, 5],
        "user_id": [7, 99, 8],
        "article_ids_inview": [[10, 77, 10], [], [20]],
        "article_ids_clicked": [[10], [88], None],
    }
    folder.write_all(behaviors={**given, "impression_time": None})
    night = replace(config, data=str(folder.path), split="train", submission="mind")
    metrics = score(night).metrics
    (row, empty, single) = pq.read_table(Path(night.output, PARTS[0])).to_pylist()
    for name, values in given.items():
        assert [row[name], empty[name], single[name]] == folder.ids(values)
    # the unknown one stands at the others' mean
    assert row["scores"][0] == row["scores"][1] == row["scores"][2]
    assert (empty["scores"], empty["ranks"], single["ranks"]) == ([], [], [1])
    counted = {
        "impressions": 3,
        "candidates": 4,
        "unknown_articles": 1,
        "empty_histories": 1,
        "skipped_one_class": 2,
    }
    assert metrics.items() >= counted.items()
    with zipfile.ZipFile(Path(night.output, "prediction.zip")) as archive:
        lines = archive.read("prediction.txt").decode().splitlines()
    ids = [f"N{i}" if strings else str(i) for i in (5, 3, 5)]
    assert lines == [
        f"{i} [{','.join(map(str, r['ranks']))}]"
        for i, r in zip(ids, (row, empty, single), strict=True)
    ]


def test_unknown_candidates_stand_at_the_mean_of_their_impression(editable):
    score(editable)
    whole = [row for number in range(SHARDS) for row in part(editable, number).to_pylist()]
    articles = Path(editable.data, "articles.parquet")
    rewrite(articles, lambda table: table.filter(np.arange(len(table)) % 3 > 0))
    known = set(pq.read_table(articles)["article_id"].to_pylist())
    score(replace(editable, overwrite=True))
    rows = [row for number in range(SHARDS) for row in part(editable, number).to_pylist()]
    told = 0
    for row, before in zip(rows, whole, strict=True):
        scores = dict(zip(row["article_ids_inview"], row["scores"], strict=True))
        placed = {scores[article] for article in scores.keys() - known}
        expected = np.mean([value for article, value in scores.items() if article in known] or [0])
        assert len(placed) <= 1
        np.testing.assert_allclose(list(placed), expected, atol=1e-6)
        told += len(set(before["scores"])) > 1 and not set(row["article_ids_inview"]) <= known
    assert told > 100


def test_a_version_without_a_prior_scores_readers_without_a_history_as_it_did(config, tmp_path):
    version = Path(shutil.copytree(config.model, tmp_path / "version"))
    meta = json.loads((version / "meta.json").read_text())
    del meta["files"]["prior.npy"]
    (version / "meta.json").write_text(json.dumps(meta))
    by_prior = score(config).metrics["by_history_length"]
    by_zeros = score(replace(config, model=str(version), output=f"{config.output}-old")).metrics[
        "by_history_length"
    ]
    assert by_zeros.pop("0")["auc"] == 0.5 != by_prior.pop("0")["auc"]
    assert by_zeros == by_prior


@pytest.mark.parametrize("runtime", ["keras", "onnx"])
def test_both_runtimes_score_readers_without_a_history_by_the_prior(config, trained, runtime):
    metrics = score(replace(config, runtime=runtime)).metrics
    expected = trained.metrics["by_history_length"]["0"]
    assert metrics["empty_histories"] > 0
    assert metrics["by_history_length"]["0"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("submission", "archive", "member"),
    [
        ("ebnerd", "predictions.zip", "predictions.txt"),
        ("mind", "prediction.zip", "prediction.txt"),
    ],
)
def test_a_submission_has_a_line_of_ranks_for_each_impression(config, submission, archive, member):
    score(replace(config, submission=submission))
    with zipfile.ZipFile(Path(config.output, archive)) as file:
        assert file.namelist() == [member]
        lines = file.read(member).decode().splitlines()
    expected = [row for number in range(SHARDS) for row in part(config, number).to_pylist()]
    assert lines == [
        f"{row['impression_id']} [{','.join(map(str, row['ranks']))}]" for row in expected
    ]


@pytest.mark.parametrize("break_", ["\n", "\r", "\u2028"])
def test_an_impression_with_a_line_break_is_refused_before_anything_is_scored(
    config, tmp_path, break_
):
    folder = Folder(tmp_path / "small", strings=True)
    folder.write_all(behaviors={"impression_id": [1, f"2{break_}3"]})
    night = replace(config, data=str(folder.path), split="train", submission="mind")
    with pytest.raises(
        SchemaError,
        match=r"`impression_id` must hold no line break .* Received: 'N2\S+3', the first of 1",
    ):
        score(night)
    assert listed(night).keys() == {"manifest.json"}
    assert score(replace(night, submission="none")).written == 1


def test_a_submission_can_be_added_later_and_exchanged(config):
    score(config)
    before = listed(config)
    assert score(replace(config, submission="ebnerd")).written == 0
    after = listed(config)
    assert after.keys() - before.keys() == {"predictions.zip"}
    assert [before[name] for name in PARTS] == [after[name] for name in PARTS]
    assert score(config).metrics is None
    score(replace(config, submission="mind"))
    assert listed(config).keys() - before.keys() == {"prediction.zip"}


def test_a_date_stands_in_every_path(config, tmp_path):
    copied(config.data, str(tmp_path / "days/2026-11-21"))
    night = ScoreConfig(
        model=config.model,
        data=str(tmp_path / "days/{date}"),
        output=str(tmp_path / "predictions/date={date}"),
        date="2026-11-21",
        wandb_mode="disabled",
    )
    score(night)
    assert (tmp_path / "predictions/date=2026-11-21/_SUCCESS").exists()
    with pytest.raises(ConfigError, match=r"--data holds \{date\}, so --date must be given"):
        ScoreConfig(model="m", data="d/{date}", output="o")
    with pytest.raises(ConfigError, match="--date must be a day of the calendar"):
        ScoreConfig(model="m", data="d/{date}", output="o", date="2026-02-30")


def test_a_night_is_recorded_in_weights_and_biases(config, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "runs"))
    score(replace(config, wandb_mode="offline"))
    (record,) = (tmp_path / "runs").rglob("*.wandb")
    content = record.read_bytes()
    assert b"score" in content
    assert b"ndcg@10" in content
    assert started(record.parent).run_group == Path(config.model).name  # the model's version
    # Killed before _SUCCESS, a night is recorded again: as the same run.
    storage.delete(storage.join(config.output, "_SUCCESS"))
    storage.delete(storage.join(config.output, "metrics.json"))
    score(replace(config, wandb_mode="offline"))
    assert len({path.name for path in (tmp_path / "runs").rglob("*.wandb")}) == 1
    assert list((tmp_path / "runs").rglob("auc_by_hour*.png"))


def test_neither_report_nor_picture_costs_the_scores(config, monkeypatch, caplog):
    def fails(*args, **kwargs):
        raise RuntimeError("no LaTeX")

    monkeypatch.setattr(plots, "auc_by_hour", fails)
    score(config)
    report = read(config, "report.html")
    assert b'alt="score distribution"' in report
    assert b'alt="auc by hour"' not in report
    assert [message for message in caplog.messages if "RuntimeError: no LaTeX" in message] == [
        "going on without auc_by_hour, which could not be made: RuntimeError: no LaTeX"
    ]
    monkeypatch.setattr("nrms.nights.scoring.write_report", fails)
    score(replace(config, output=f"{config.output}-2"))
    again = replace(config, output=f"{config.output}-2")
    assert sorted(listed(again)) == sorted([*PARTS, *FINALS])
    assert b"metrics.json" in read(again, "report.html")
    assert part(again, 0)["scores"] == part(config, 0)["scores"]
    assert (
        "going on without report.html, which could not be made: RuntimeError: no LaTeX"
        in caplog.messages
    )


def test_a_model_without_its_configuration_is_refused(config, tmp_path):
    models = Path(copied(config.model, str(tmp_path / "models")))
    meta = json.loads((models / "meta.json").read_text())
    del meta["inputs"]["history"]
    (models / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ArtifactError, match=r"must declare one history. Received: title"):
        score(replace(config, model=str(models)))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_a_bar_on_a_terminal_and_log_lines_elsewhere(monkeypatch, caplog):
    def steps():
        progress = Progress()
        for done in (0, 100, 400):
            progress(done, 400)

    with caplog.at_level("INFO"):
        steps()
        assert [line.partition(",")[0] for line in caplog.messages] == [
            "100 of 400 impressions",
            "400 of 400 impressions",
        ]
        assert re.search(r"impressions, [\d,]+/s, \d+ s left$", caplog.messages[0])
        caplog.clear()
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        steps()
    assert re.search(r"400/400 \[.* impressions/s\]", terminal.getvalue())
    assert caplog.messages == []


# --- article vectors, from night to night, and the two runtimes


def encoded(caplog):
    """How many articles the last night encoded, of how many."""
    line = [line for line in caplog.messages if line.endswith("of them encoded now")][-1]
    return tuple(int(number) for number in re.findall(r"\d+", line.replace(",", "")))


def test_a_second_night_encodes_new_and_changed_articles_only(night, data, caplog, tmp_path):
    caplog.set_level("INFO")
    articles = pq.read_table(
        storage.fetch(storage.stat(storage.join(night.data, "articles.parquet")), tmp_path)
    )
    kept = (
        storage.join(night.output, "..", "vectors")
        if not storage.is_gcs(night.output)
        else night.output + "-vectors"
    )
    runtime = "onnx" if storage.is_gcs(night.output) else "keras"
    first = replace(night, runtime=runtime, article_vectors=kept)
    score(first)
    assert encoded(caplog) == (600, 600)

    titles = articles["title"].to_pylist()
    titles[3], titles[-1] = "Changed since yesterday", "New today"
    changed = articles.set_column(articles.column_names.index("title"), "title", pa.array(titles))
    second = replace(first, data=copied(data, night.output + "-day2"), output=night.output + "2")
    pq.write_table(changed, tmp_path / "articles.parquet")
    storage.upload(tmp_path / "articles.parquet", storage.join(second.data, "articles.parquet"))
    score(second)
    assert encoded(caplog) == (600, 2)
    anew = replace(second, article_vectors=kept + "-none", output=night.output + "3")
    score(anew)
    assert encoded(caplog) == (600, 600)
    for number in range(SHARDS):
        warm, cold = (
            part(config, number)["scores"].combine_chunks().flatten().to_numpy()
            for config in (second, anew)
        )
        np.testing.assert_allclose(warm, cold, atol=1e-6)
    score(replace(first, output=night.output + "4"))
    assert encoded(caplog) == (600, 0)


def test_article_vectors_lie_beside_the_version_unless_said_otherwise(night):
    score(night)
    models = night.model if storage.is_gcs(night.model) else str(Path(night.model).parent)
    assert len(storage.list_files(storage.join(models, "article_vectors"), "-onnx.parquet")) == 1


def test_a_second_model_does_not_use_the_vectors_of_the_first(
    config, other_model, caplog, tmp_path
):
    caplog.set_level("INFO")
    for model in (config.model, other_model):
        output = str(tmp_path / storage.name(model))
        score(
            replace(config, model=model, output=output, article_vectors=str(tmp_path / "vectors"))
        )
        assert encoded(caplog) == (600, 600)


def test_both_runtimes_write_the_same_scores_each_by_its_own_vectors(config, caplog, tmp_path):
    caplog.set_level("INFO")
    config = replace(config, article_vectors=str(tmp_path / "vectors"))
    onnx = replace(config, output=str(tmp_path / "onnx"))
    for night in (replace(config, runtime="keras"), onnx):
        score(night)
        assert encoded(caplog) == (600, 600)
    for number in range(SHARDS):
        ours, others = (
            part(night, number)["scores"].combine_chunks().flatten().to_numpy()
            for night in (config, onnx)
        )
        np.testing.assert_allclose(ours, others, atol=1e-5)


def test_scoring_with_onnx_runtime_imports_no_tensorflow(config, tmp_path):
    night = replace(config, runtime="onnx", output=str(tmp_path / "out"))
    flags = ", ".join(f"{name}={value!r}" for name, value in as_dict(night).items())
    code = (
        "import sys; from nrms.nights.config import ScoreConfig; "
        "from nrms.nights.scoring import score; "
        f"score(ScoreConfig({flags})); print({{'tensorflow', 'keras'}} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# --- the same inputs again


def test_the_same_inputs_again_rewrite_nothing_and_say_so(night, capsys):
    score(night)
    before = listed(night)
    argv = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in as_dict(night).items()
        if value is not None
    ]
    with pytest.raises(SystemExit) as exit:
        run(main, ScoreConfig, "python -m jobs.score", "Scores.", argv)
    assert exit.value.code == 0
    assert "complete already, nothing to do" in capsys.readouterr().out
    assert listed(night) == before


def test_the_same_bytes_in_new_files_are_the_same_inputs(editable):
    score(editable)
    before = listed(editable)
    for path in shard_paths(editable):
        storage.write_bytes(path.read_bytes(), path)
    assert score(editable).metrics is None
    assert listed(editable) == before


def test_latest_is_followed_and_pinned(config, other_model, tmp_path):
    models = tmp_path / "models"
    for version in (config.model, other_model):
        copied(version, str(models / storage.name(version)))
    pointer = Path(config.model).parent / "latest.json"
    storage.upload(pointer, str(models / "latest.json"))
    assert score(replace(config, model=str(models))).model_uri == str(
        models / storage.name(config.model)
    )
    storage.upload(Path(other_model).parent / "latest.json", str(models / "latest.json"))
    with pytest.raises(ConfigError, match=storage.name(config.model)):
        score(replace(config, model=str(models)))


# --- what is complete is checked


def cut(content):
    return content[:100]


def flipped_inside(content):
    return flipped(content, 8 * (len(content) // 2))


@pytest.mark.parametrize("damage", [None, cut, flipped_inside], ids=["deleted", "cut", "flipped"])
def test_what_is_missing_or_damaged_in_a_complete_night_is_made_again(night, damage):
    night = replace(night, submission="ebnerd")
    score(night)
    tables, others = contents(night)
    for name in (PARTS[1], "metrics.json", "report.html", "predictions.zip"):
        before = listed(night)
        where = storage.join(night.output, name)
        storage.delete(where) if damage is None else storage.write_bytes(
            damage(read(night, name)), where
        )
        assert score(night).written == (name == PARTS[1])
        assert contents(night) == (tables, others)
        whole = [part for part in PARTS if part != name]
        assert [listed(night)[part] for part in whole] == [before[part] for part in whole]
    assert score(night).metrics is None


def test_damage_that_no_time_tells_of_is_found_with_verify(config):
    score(config)
    path = Path(config.output, PARTS[0])
    content = path.read_bytes()
    path.write_bytes(flipped_inside(content))
    while (
        success := Path(config.output, "_SUCCESS")
    ).stat().st_ctime_ns <= path.stat().st_ctime_ns:
        success.touch()
    assert score(config).metrics is None
    assert score(replace(config, verify=True)).written == 1
    assert path.read_bytes() == content


def test_the_runtime_is_part_of_the_plan(config):
    score(replace(config, runtime="onnx"))
    keras = replace(config, runtime="keras")
    refused(
        keras, r"whose runtime is onnx and not keras, libraries\.tensorflow is nothing and not "
    )
    assert score(replace(keras, overwrite=True)).written == SHARDS
    assert score(keras).metrics is None


def test_a_library_that_computes_is_part_of_the_plan(config, monkeypatch):
    config = replace(config, runtime="onnx")
    with pytest.raises(Stop):
        score(config, stop_at(2))
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: "0.0" if name == "onnxruntime" else version(name),
    )
    refused(
        config,
        rf"whose libraries\.onnxruntime is {re.escape(version('onnxruntime'))} and not 0\.0\.",
    )
    assert score(replace(config, overwrite=True)).written == SHARDS


def test_a_night_of_the_first_release_names_what_its_plan_lacks(config):
    score(config)
    manifest = json.loads(read(config, "manifest.json"))
    for name in ("runtime", "libraries", "rules"):
        del manifest["plan"][name]
    storage.write_bytes(json.dumps(manifest).encode(), storage.join(config.output, "manifest.json"))
    refused(config, f"whose runtime is nothing and not {config.runtime}")


def test_a_state_is_refused_for_a_model_that_reads_no_past(config):
    with pytest.raises(ConfigError, match="--context must be left out with a model"):
        score(replace(config, context="a/state"))


# --- changed inputs


def refused(config, match):
    before = listed(config)
    with pytest.raises(ConfigError, match=match) as caught:
        score(config)
    assert len(str(caught.value).splitlines()) == 1
    assert "--overwrite" in str(caught.value)
    assert listed(config) == before


def test_another_model_is_refused_unless_overwrite(config, other_model, tmp_path):
    score(config)
    changed = replace(config, model=other_model, overwrite=True)
    old, new = storage.name(config.model), storage.name(other_model)
    refused(
        replace(changed, overwrite=False), rf"whose model\.version is {old} and not {new}\. Choose"
    )
    assert score(changed).written == SHARDS
    fresh = replace(changed, output=str(tmp_path / "fresh"))
    score(fresh)
    assert contents(changed) == contents(fresh)


def test_changed_data_are_refused_unless_overwrite_and_no_old_part_stays(editable):
    score(replace(editable, submission="ebnerd"))
    *_, second_last, last = shard_paths(editable)
    last.unlink()
    rewrite(second_last, lambda table: table.slice(0, 50))
    refused(editable, f"differs in validation/{second_last.name}, validation/{last.name}")
    changed = replace(editable, overwrite=True)
    assert score(changed).metrics["impressions"] == 250
    assert sorted(listed(changed)) == sorted([*PARTS[:-1], *FINALS])
    assert score(changed).metrics is None


def test_a_folder_of_something_else_is_refused(config):
    storage.write_bytes(b"{}", storage.join(config.output, "metrics.json"))
    refused(config, "which holds other files")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_data_models_or_anything_else_is_never_written_into(
    config, tmp_path, overwrite
):
    storage.write_bytes(b"my thesis", str(tmp_path / "mine" / "thesis.txt"))
    models = str(Path(config.model).parent)
    for output in (
        config.data,
        f"{config.data}/validation",
        models,
        config.model,
        str(tmp_path / "mine"),
    ):
        night = replace(config, output=output, overwrite=overwrite)
        before = listed(night)
        with pytest.raises(
            ConfigError,
            match=r"--output must be empty or hold predictions\. .* Choose another --output\.$",
        ):
            score(night)
        assert listed(night) == before


# --- bad shards


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def damage_a_page(path):
    content = bytearray(path.read_bytes())
    content[200:1200] = os.urandom(1000)
    path.write_bytes(content)


def null_candidates(path):
    rewrite(
        path,
        lambda table: table.set_column(
            table.column_names.index("article_ids_inview"),
            "article_ids_inview",
            pa.array([[None]] * len(table), pa.list_(pa.int64())),
        ),
    )


def without_users(path):
    rewrite(path, lambda table: table.drop_columns("user_id"))


@pytest.mark.parametrize("spoil", [truncate, damage_a_page, null_candidates, without_users])
def test_a_bad_shard_is_named_and_the_others_are_finished(editable, capsys, spoil, tmp_path):
    bad = shard_paths(editable)[1]
    whole = bad.read_bytes()
    spoil(bad)
    argv = [
        f"--{name}={getattr(editable, name)}" for name in ("model", "data", "output", "runtime")
    ]
    for _ in range(2):
        with pytest.raises(SystemExit) as exit:
            run(
                main,
                ScoreConfig,
                "python -m jobs.score",
                "Scores.",
                [*argv, "--wandb-mode=disabled"],
            )
        assert exit.value.code == 1
        (line,) = [
            line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")
        ]
        assert f"1 of {SHARDS} that do not ({bad.name})" in line
        names = listed(editable)
        assert names.keys() == {PARTS[0], PARTS[2], PARTS[3], "manifest.json"}
    bad.write_bytes(whole)
    refused(editable, f"differs in validation/{bad.name}")
    score(replace(editable, overwrite=True))
    fresh = replace(editable, output=str(tmp_path / "fresh"))
    score(fresh)
    assert contents(editable) == contents(fresh)


def test_a_bad_history_stops_the_night(editable):
    truncate(Path(editable.data, "validation/history.parquet"))
    with pytest.raises(SchemaError, match=r"history\.parquet"):
        score(editable)


# --- stopped half-way


class Stop(Exception):
    pass


def stop_at(shard):
    def progress(done, total):
        if done == 100 * shard:
            raise Stop

    return progress


def test_a_resumed_run_does_only_what_is_missing_and_ends_as_an_unbroken_one(night):
    with pytest.raises(Stop):
        score(night, stop_at(2))
    before = listed(night)
    assert before.keys() == {"manifest.json", *PARTS[:2]}
    resumed = score(night)
    assert resumed.written == 2
    assert {name: listed(night)[name] for name in PARTS[:2]} == {
        name: before[name] for name in PARTS[:2]
    }
    unbroken = replace(night, output=storage.join(night.output, "unbroken"))
    assert score(unbroken).metrics == resumed.metrics
    assert listed(unbroken).keys() == {*PARTS, *FINALS}
    assert contents(night) == contents(unbroken)


@pytest.mark.parametrize("name", PARTS[:2])
def test_a_flipped_bit_of_an_unfinished_night_is_found(night, name):
    """`test_predictions.py` flips many."""
    with pytest.raises(Stop):
        score(night, stop_at(2))
    content = read(night, name)
    storage.write_bytes(flipped_inside(content), storage.join(night.output, name))
    assert score(night).written == 3
    assert read(night, name) == content


def test_a_damaged_part_is_made_again(night):
    with pytest.raises(Stop):
        score(night, stop_at(3))
    storage.write_bytes(b"PAR1", storage.join(night.output, PARTS[1]))
    assert score(night).written == 2
    assert part(night, 1).num_rows == 100


def test_a_run_stopped_while_overwriting_goes_on(config, other_model, tmp_path):
    score(config)
    changed = replace(config, model=other_model, overwrite=True)
    with pytest.raises(Stop):
        score(changed, stop_at(1))
    assert "_SUCCESS" not in listed(config)
    assert score(changed).written == SHARDS - 1
    fresh = replace(changed, output=str(tmp_path / "fresh"))
    score(fresh)
    assert contents(changed) == contents(fresh)


# --- two runs at once


def test_a_run_that_another_overtakes_takes_over_its_parts(night):
    inner = []

    def progress(done, total):
        if done == 200:
            inner.append(score(night))
            inner.append(listed(night))

    outer = score(night, progress)
    result, before = inner
    assert (result.written, outer.written) == (2, 2)
    assert outer.metrics == result.metrics
    after = listed(night)
    assert [before[name] for name in PARTS] == [after[name] for name in PARTS]
    assert after.keys() == {*PARTS, *FINALS}


def test_a_part_that_another_run_writes_first_is_read_and_not_doubled(proxy, remote):
    inner = []

    def overtake(request):
        inner.append(score(remote))
        request.answer(*request.forward())

    bucket = remote.output.removeprefix("gs://").partition("/")[0]
    with pytest.raises(Stop):
        score(remote, stop_at(1))
    proxy.inject(overtake, f"POST /upload/storage/v1/b/{bucket}/o")
    outer = score(remote)
    assert proxy.faults == []
    assert (inner[0].written, outer.written) == (3, 0)
    assert outer.metrics == inner[0].metrics


@pytest.mark.parametrize("done_before", [200, 400])
def test_a_run_whose_output_was_taken_by_another_model_stops(night, other_model, done_before):
    models = other_model
    if storage.is_gcs(night.output):
        models = copied(other_model, storage.join(night.output, "other", storage.name(other_model)))
    taker = replace(night, model=models, overwrite=True)

    def progress(done, total):
        if done == done_before:
            score(taker)
            generations.update(listed(taker))

    generations = {}
    with pytest.raises(
        StorageError, match="is now written by a run of other data or another model"
    ):
        score(night, progress)
    assert listed(taker) == generations
    assert score(taker).metrics is None
    fresh = replace(taker, output=storage.join(night.output, "fresh"))
    score(fresh)
    assert contents(taker) == contents(fresh)


def command(config):
    flags = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in as_dict(config).items()
        if value is not None
    ]
    return [sys.executable, "-m", "jobs.score", *flags]


def start(config, env=None):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        command(config), cwd=REPOSITORY, env={**os.environ, **(env or {})}, **pipes
    )


def test_two_processes_at_once_leave_what_one_leaves(night):
    processes = [start(night) for _ in range(2)]
    for process in processes:
        _, error = process.communicate()
        assert process.returncode == 0, error
    unbroken = replace(night, output=storage.join(night.output, "unbroken"))
    score(unbroken)
    assert contents(night)[0] == contents(unbroken)[0]
    assert read(night, "metrics.json") == read(unbroken, "metrics.json")
    manifest = json.loads(read(night, "manifest.json"))
    assert [file["name"] for file in manifest["files"]] == [*PARTS, "metrics.json", "report.html"]


# --- kill -9, and a server that fails


@pytest.fixture
def rng():
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  pytest shows it when the test fails
    return random.Random(seed)


def test_a_process_killed_at_any_request_and_started_again_ends_as_an_unbroken_one(
    proxy, remote, rng
):
    night = replace(remote, submission="ebnerd")
    unbroken = replace(night, output=night.output + "-unbroken")
    seen = len(proxy.seen)
    score(unbroken)
    requests = len(proxy.seen) - seen
    done = {}
    for _ in range(5):
        # Whether the server has heard of the request that the process dies in is left to chance,
        # too.
        point, heard = rng.randrange(requests), rng.random() < 0.5
        process = start(night)

        def kill(request, process=process, heard=heard):
            if heard:
                request.forward()
            process.kill()

        for _ in range(point):
            proxy.inject(lambda request: request.answer(*request.forward()))
        proxy.inject(kill)
        process.communicate()
        proxy.faults.clear()
        now = listed(night)
        assert {name: now[name] for name in done} == done
        assert process.returncode == -signal.SIGKILL or "_SUCCESS" in now
        done = {name: generation for name, generation in now.items() if name in PARTS}
    finished = start(night)
    output, error = finished.communicate()
    assert finished.returncode == 0, error
    assert "nothing to do" in output or re.search(
        rf"\b{SHARDS - len(done)} parts? written now", output
    )
    assert {name: listed(night)[name] for name in done} == done
    assert contents(night) == contents(unbroken)


def test_a_process_killed_at_any_time_in_a_local_folder_ends_as_an_unbroken_one(
    config, rng, tmp_path
):
    for wanted in rng.sample(["manifest.json", *PARTS, "metrics.json", "report.html"], 3):
        process = start(config)
        while process.poll() is None and wanted not in listed(config):
            time.sleep(0.002)
        process.kill()
        process.communicate()
    unbroken = replace(config, output=str(tmp_path / "unbroken"))
    score(config)
    score(unbroken)
    assert contents(config) == contents(unbroken)


def test_faults_of_the_server_that_pass_change_nothing(proxy, remote, rng):
    def refuse(request):
        request.answer(503, [("Content-Length", "0")], b"")

    def cut(request):
        pass

    def lose_the_answer(request):
        request.forward()

    def forward(request):
        request.answer(*request.forward())

    unbroken = replace(
        remote, output=remote.output + "-unbroken", article_vectors=remote.output + "-vectors"
    )
    seen = len(proxy.seen)
    score(unbroken)
    for _ in proxy.seen[seen:]:
        proxy.inject(rng.choice([refuse, cut, lose_the_answer, *[forward] * 15]))
    score(remote)
    assert proxy.faults == []
    assert contents(remote) == contents(unbroken)


@pytest.fixture
def own_server(tmp_path, monkeypatch):
    """A server whose buckets survive a restart, behind a proxy."""
    server = FakeGcs(tmp_path / "server")
    bucket = server.create_bucket()
    proxy = FaultyProxy(server)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    yield server, proxy, bucket
    proxy.close()
    server.kill()


def test_a_server_that_goes_away_for_a_while_only_delays(own_server, config, tmp_path, monkeypatch):
    server, proxy, bucket = own_server
    night = replace(config, data=copied(config.data, f"{bucket}/data"), output=f"{bucket}/out")

    def go_away(request):
        request.forward_half()
        server.kill()
        proxy.inject(come_back)

    def come_back(request):
        server.start()
        request.answer(*request.forward())

    proxy.inject(go_away, "POST /upload")
    score(night)
    unbroken = replace(night, output=str(tmp_path / "unbroken"))
    score(unbroken)
    assert contents(night)[0] == contents(unbroken)[0]

    # And one that stays away for longer than is waited: one line, and the same command later ends
    # it.
    late = replace(night, output=f"{bucket}/late")

    def stay_away(done, total):
        if done == 200:
            monkeypatch.setenv("NRMS_RETRY_SECONDS", "0.5")
            server.kill()

    with pytest.raises(StorageError, match="could not be") as caught:
        score(late, stay_away)
    assert len(str(caught.value).splitlines()) == 1
    server.start()
    assert "_SUCCESS" not in listed(late)
    monkeypatch.setenv("NRMS_RETRY_SECONDS", "20")
    assert score(late).written == 2
    assert contents(late)[0] == contents(unbroken)[0]
