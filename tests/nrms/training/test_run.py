"""Training end to end: what it publishes, that it repeats, and that it survives being stopped."""

import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import train as train_job
from jobs.cli import run
from nrms import bundles, storage
from nrms.config import parse
from nrms.data.dataset import Dataset
from nrms.errors import (
    ArtifactError,
    ConfigError,
    Interrupted,
    SchemaError,
    StorageError,
    TrainingError,
)
from nrms.evaluation import comparison, plots
from nrms.evaluation.evaluation import Evaluation
from nrms.inference.loaded_model import LoadedModel
from nrms.sources.demo import DemoSite
from nrms.sources.mind import Mind
from nrms.sources.writer import write_dataset
from nrms.tracking import Tracker
from nrms.training.config import TrainConfig
from nrms.training.run import train
from tests.litter import listing
from tests.offline_runs import artifacts, history, started, summary
from tests.own_lines import assert_only_our_lines, plain_environment
from tests.small_training import METRICS, REPOSITORY, SMALL, write_demo

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def data(demo):
    return demo


@pytest.fixture
def config(data, tmp_path):
    return TrainConfig(data=data, output=str(tmp_path / "models"), **SMALL)


def overall(result):
    return [result.metrics[name] for name in METRICS]


def rescored(config, runtime, bundle, cache, split="validation"):
    """AUC of a bundle on a split, from nothing but its files."""
    model = LoadedModel.open(bundle, runtime)
    dataset = Dataset.open(config.data, cache)
    split = dataset.split(split, config.history_size)
    scorer = model.scorer(model.catalogue(dataset.articles), split.histories.rows)
    evaluation = Evaluation()
    for i in range(len(split)):
        shard = split.read(i)
        evaluation.add(shard, split.histories.lengths[shard.user], scorer.score(shard))
    return evaluation.metrics()["auc"]


def test_a_trained_model_ranks_better_than_random_and_worse_than_the_oracle(trained):
    _, result = trained
    auc = {name: metrics["auc"] for name, metrics in result.metrics["baselines"].items()}
    assert auc["random"] + 0.05 < result.metrics["auc"] < auc["oracle"]


@contextmanager
def heard():
    """Yields a list of the messages that are logged meanwhile, for fixtures that tests share."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel("INFO")
    try:
        yield messages
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@pytest.fixture(scope="module")
def repeated(trained, gcs_server):
    """The same training once more, from and to a bucket: its configuration, its result, and what it
    logged.
    """
    config, _ = trained
    bucket = gcs_server.create_bucket()
    data, output = write_demo(f"{bucket}/demo"), f"{bucket}/models/nrms"
    config = replace(config, data=data, output=output, resume=True)
    with heard() as messages:
        return config, train(config), messages


def test_the_metrics_say_how_sure_the_auc_is_and_a_line_sums_them_up(trained, repeated):
    _, result = trained
    _, _, messages = repeated
    rankings = {"": result.metrics, **result.metrics["baselines"]}
    assert rankings.keys() == {"", "random", "popularity", "newest", "oracle"}
    for found in rankings.values():
        low, high = found["auc_interval"]
        assert low < found["auc"] < high < low + 0.1
    low, high = result.metrics["auc_interval"]
    assert low > 0.5
    # As on a real site, an article's recent clicks say more than a title, and that is said.
    (doubt,) = comparison.warnings("validation", result.metrics)
    assert "popularity" in doubt
    line = comparison.summary(result.metrics)
    assert line.startswith(
        f"AUC {result.metrics['auc']:.4f} (95% interval {low:.4f} to {high:.4f}); random 0."
    )
    assert f"validation: {line}" in messages


@pytest.fixture(scope="module")
def learnt_nothing(tmp_path_factory):
    """Data whose clicks have nothing to do with what is clicked."""
    data = Path(write_demo(str(tmp_path_factory.mktemp("arbitrary"))))
    rng = np.random.default_rng(4)
    for path in sorted(data.glob("*/behaviors*")):
        table = pq.read_table(path)
        clicked = [
            [view[rng.integers(len(view))]] for view in table["article_ids_inview"].to_pylist()
        ]
        column = table.column_names.index("article_ids_clicked")
        pq.write_table(
            table.set_column(
                column, "article_ids_clicked", pa.array(clicked, table.schema.types[column])
            ),
            path,
        )
    return str(data)


@pytest.fixture
def job(learnt_nothing, tmp_path, capsys):
    """Runs jobs.train, a short one: exit code, stdout, stderr, and the model root."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    models = str(tmp_path / "models")

    def call(**flags):
        values = {**SMALL, "epochs": 1, "data": learnt_nothing, "output": models, **flags}
        words = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
        with pytest.raises(SystemExit) as ended:
            run(train_job.main, TrainConfig, "python -m jobs.train", "d", words)
        return ended.value.code, *capsys.readouterr(), models

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "promote",
    ["auto", *(pytest.param(name, marks=pytest.mark.long) for name in ("never", "always"))],
)
def test_a_model_no_better_than_chance_is_written_and_not_served_unless_asked_for(
    job, promote, tmp_path, caplog
):
    code, out, err, models = job(promote=promote)
    uri = out.splitlines()[-1].removeprefix("model: ")
    metrics = bundles.load(uri, tmp_path).meta["metrics"]
    assert metrics["auc_interval"][0] <= 0.5
    (warning,) = [text for text in metrics["warnings"] if "better than chance" in text]
    assert warning.startswith(
        "validation: the model must rank better than chance, whose AUC is 0.5. Received: 0."
    )
    assert warning in caplog.messages
    assert (code, bundles.latest_version(models)) == {
        "auto": (3, None),
        "never": (0, None),
        "always": (0, storage.name(uri)),
    }[promote]
    if promote == "auto":
        (error,) = [line for line in err.splitlines() if line.startswith("error:")]
        assert error == err.splitlines()[-1]
        assert uri in error
        assert "--promote always" in error


def test_the_bundle_scores_as_training_reported_in_keras_and_in_onnx(trained, tmp_path):
    config, result = trained
    bundle = bundles.load(config.output, tmp_path)
    assert bundle.uri == result.model_uri
    for runtime in ("keras", "onnx"):
        assert rescored(config, runtime, bundle, tmp_path) == pytest.approx(
            result.metrics["auc"], abs=1e-6
        )
    assert result.metrics["empty_histories"] > 0  # who are scored by the prior
    # The sample of the training split is all of it where it is small.
    best = max(result.epochs, key=lambda row: row["val_auc"])
    trained_auc = rescored(config, "keras", bundle, tmp_path, "train")
    assert trained_auc == pytest.approx(best["train_auc"], abs=1e-6)


def test_the_prior_is_the_mean_vector_of_the_training_readers_by_the_published_weights(
    trained, tmp_path
):
    config, _ = trained
    bundle = bundles.load(config.output, tmp_path)
    model = LoadedModel.open(bundle, "keras")
    dataset = Dataset.open(config.data, tmp_path)
    split = dataset.split("train", config.history_size)
    users = np.unique(np.concatenate([split.read(i).user for i in range(len(split))]))
    histories = split.histories.rows[users[split.histories.lengths[users] > 0]]
    news_vectors = model.catalogue(dataset.articles).arrays["news_vectors"]
    vectors = model.runtime.run(
        "user_encoder", {"news_vectors": news_vectors, "history": histories}
    )
    np.testing.assert_allclose(bundle.prior(), vectors.mean(axis=0), atol=1e-6)
    assert 100 < len(histories) < len(split.histories.rows) - 1


def test_readers_without_a_history_are_ranked_better_than_by_chance(tmp_path):
    data = str(tmp_path / "data")
    site = DemoSite(seed=2, articles=600, users=200, impressions=1500, validation_impressions=2000)
    write_dataset(site, data, shard_rows=700, overwrite=False, progress=lambda *_: None)
    removed = np.random.default_rng(0).random(200) < 0.3
    for split in ("train", "validation"):
        (path,) = Path(data, split).glob("history*")
        table = pq.read_table(path)
        pq.write_table(table.filter(~removed[: len(table)]), path)
    result = train(
        TrainConfig(data=data, output=str(tmp_path / "models"), **{**SMALL, "epochs": 3})
    )
    unknown = result.metrics["by_history_length"]["0"]
    assert unknown["impressions"] > 300
    assert unknown["auc"] > 0.53


def test_the_bundle_says_how_it_was_made(trained, tmp_path):
    config, result = trained
    meta = bundles.load(config.output, tmp_path).meta
    assert meta["config"]["lr"] == 0.01
    assert meta["metrics"]["auc"] == result.metrics["auc"]
    assert meta["epochs"] == result.epochs
    assert meta["onnx_parity"] <= 1e-5
    assert {"tensorflow", "keras"} <= meta["libraries"].keys()
    assert {
        "plots/training_curves.png",
        "plots/auc_by_history_length.png",
        "plots/auc_by_hour.png",
    } < meta["files"].keys()
    assert len(meta["data"]["fingerprint"]) == 64


def test_no_checkpoint_is_left_behind_by_a_finished_training(trained):
    config, _ = trained
    assert not [info.uri for info in storage.list_files(config.output, ".npz")]


class StopAt(keras.callbacks.Callback):
    """Asks the run to stop when it reports a batch of an epoch, or after the epoch, whose metrics
    are then its `row`.
    """

    def __init__(self, stop, epoch, batch=None):
        super().__init__()
        self.stop, self.at, self.epoch = stop, (epoch, batch), 0
        self.row = None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            self.stop.set()

    def on_epoch_end(self, epoch, logs=None):
        if (epoch, None) == self.at:
            self.row = dict(logs)
            self.stop.set()


def test_the_same_seed_gives_the_same_metrics_and_another_seed_others(trained, config, repeated):
    _, result = trained
    _, again, messages = repeated
    assert again.epochs == result.epochs
    assert any("training starts anew" in message for message in messages)  # there is no checkpoint
    stop = threading.Event()
    stopping = StopAt(stop, 0)
    with pytest.raises(Interrupted):
        train(replace(config, seed=7), stop, [stopping])
    assert stopping.row != result.epochs[0]


def test_a_bucket_gives_the_metrics_that_a_folder_gives(trained, repeated):
    _, result = trained
    config, remote, _ = repeated
    assert remote.epochs == result.epochs
    assert remote.metrics == result.metrics
    assert remote.model_uri.startswith(f"{config.output}/")
    assert config.output.startswith("gs://")


@pytest.mark.parametrize(("epoch", "batch"), [(0, 4), pytest.param(1, 15, marks=pytest.mark.long)])
def test_a_stopped_run_resumed_ends_as_the_unbroken_one(trained, config, epoch, batch, caplog):
    _, unbroken = trained
    stop = threading.Event()
    with pytest.raises(Interrupted, match="--resume"):
        train(config, stop, [StopAt(stop, epoch, batch)])
    with pytest.raises(Interrupted) as stopped:  # and once more, at once, from the checkpoint
        train(replace(config, resume=True), stop)
    with caplog.at_level("INFO"):
        resumed = train(replace(config, resume=True))
    batches = re.search(rf"in epoch {epoch + 1} after batch (\d+)", str(stopped.value))[1]
    assert f"--resume: goes on after {epoch} epochs and {batches} batches, from " in caplog.text
    assert resumed.epochs == unbroken.epochs
    assert resumed.metrics == unbroken.metrics


def test_a_resumed_run_goes_on_in_its_schedule_with_every_flag_of_the_optimizer(config, tmp_path):
    flags = {"optimizer": "adamw", "schedule": "cosine", "warmup": 5, "clip_norm": 0.5}
    config = replace(config, **flags, weight_decay=0.1, label_smoothing=0.1, epochs=1)
    unbroken = train(replace(config, output=str(tmp_path / "unbroken")))
    stop = threading.Event()
    with pytest.raises(Interrupted):
        train(config, stop, [StopAt(stop, 0, 4)])
    resumed = train(replace(config, resume=True))
    assert resumed.epochs == unbroken.epochs
    assert resumed.metrics == unbroken.metrics


@pytest.fixture(scope="module")
def recorded(data, tmp_path_factory):
    """A training that is stopped and resumed and gets worse in the end, with what Weights & Biases
    recorded offline.
    """
    folder = tmp_path_factory.mktemp("recorded")
    values = {
        **SMALL,
        "lr": 0.3,
        "epochs": 20,
        "patience": 2,
        "wandb_mode": "offline",
        "run_group": "a-group",
    }
    config = TrainConfig(data=data, output=str(folder / "models"), **values)
    stop = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DIR", str(folder))
        with pytest.raises(Interrupted):
            train(config, stop, [StopAt(stop, 0, 14)])
        result = train(replace(config, resume=True))
    return result, sorted((folder / "wandb").glob("offline-run-*"))


def test_the_results_of_the_run_are_those_of_the_published_model(recorded):
    result, folders = recorded
    best = int(np.argmax([row["val_auc"] for row in result.epochs]))
    found = summary(folders[-1])
    meta = json.loads((Path(result.model_uri) / "meta.json").read_text())
    assert {name: found[f"val_{name}"] for name in METRICS} == {
        name: meta["metrics"][name] for name in METRICS
    }
    assert (found["best_epoch"], found["epoch"]) == (best + 1, len(result.epochs))
    assert (found["loss"], found["train_auc"]) == (
        result.epochs[best]["loss"],
        result.epochs[best]["train_auc"],
    )


def test_a_resumed_training_goes_on_with_the_run_and_its_steps(recorded):
    _, (first, second) = recorded
    assert started(first).run_id == started(second).run_id
    assert {started(first).run_group, started(second).run_group} == {"a-group"}
    steps = [
        int(row["_step"])
        for folder in (first, second)
        for row in history(folder)
        if "train/loss" in row
    ]
    assert steps == list(range(1, len(steps) + 1))
    assert [row["epoch"] for row in history(second) if "epoch" in row][:2] == ["1", "2"]


def test_the_run_says_which_data_made_which_model(recorded):
    result, folders = recorded
    dataset, model = (
        artifact for artifact in artifacts(folders[-1]) if artifact.type in ("dataset", "model")
    )
    meta = json.loads((Path(result.model_uri) / "meta.json").read_text())
    assert dataset.use_after_commit
    assert json.loads(dataset.metadata)["fingerprint"] == meta["data"]["fingerprint"]
    about = json.loads(model.metadata)
    assert about["data_fingerprint"] == meta["data"]["fingerprint"]
    assert about["metrics"] == {name: meta["metrics"][name] for name in METRICS}


def test_each_epoch_logs_the_auc_of_a_sample_of_the_training_split(recorded):
    result, folders = recorded
    logged = [
        float(row["train_auc"])
        for folder in folders
        for row in history(folder)
        if "train_auc" in row
    ]
    assert logged == [row["train_auc"] for row in result.epochs]


def test_training_stops_when_validation_gets_no_better_and_publishes_the_best_epoch(recorded):
    result, _ = recorded
    aucs = [row["val_auc"] for row in result.epochs]
    assert len(aucs) < 20
    assert int(np.argmax(aucs)) == len(aucs) - 3
    assert result.metrics["auc"] == max(aucs)


def test_mixed_precision_trains_and_publishes_a_float32_model(config, tmp_path):
    result = train(replace(config, precision="mixed_bfloat16"))
    assert result.metrics["auc"] > result.metrics["baselines"]["random"]["auc"] + 0.05
    bundle = bundles.load(config.output, tmp_path / "cache")
    model = keras.models.load_model(bundle.files["model.keras"])
    assert {layer.dtype_policy.name for layer in model._flatten_layers()} == {"float32"}
    assert rescored(config, "keras", bundle, tmp_path) == pytest.approx(
        result.metrics["auc"], abs=1e-6
    )


def test_float16_scales_the_loss_and_trains(config):
    result = train(replace(config, precision="mixed_float16", epochs=1))
    assert result.metrics["auc"] > result.metrics["baselines"]["random"]["auc"] + 0.03


def test_a_loss_that_is_not_a_number_stops_with_a_named_error(config, data, tmp_path):
    titles = Dataset.open(data, tmp_path).articles.titles.to_pylist()
    words = sorted({word.lower() for title in titles for word in title.split()})
    vectors = tmp_path / "huge.vec"
    vectors.write_text("".join(f"{word} {'1e30 ' * 15}1e30\n" for word in words))
    with pytest.raises(
        TrainingError, match=r"the loss must be finite\. Received: nan in epoch 1, batch 1"
    ):
        train(replace(config, word_vectors=vectors))


def test_word_vectors_are_used_and_their_coverage_is_logged(config, data, tmp_path, caplog):
    titles = Dataset.open(data, tmp_path).articles.titles.to_pylist()
    words = sorted({word.lower() for title in titles for word in title.split()})
    rng = np.random.default_rng(0)
    vectors = tmp_path / "words.vec"
    vectors.write_text(
        "".join(f"{word} {' '.join(map(str, rng.normal(size=16).round(3)))}\n" for word in words)
    )
    stop = threading.Event()
    config = replace(config, word_vectors=vectors, train_word_vectors=False)
    with caplog.at_level("INFO"), pytest.raises(Interrupted):
        train(config, stop, [StopAt(stop, 0, 0)])
    assert "word vectors: 100.0% of the vocabulary" in caplog.text


def traces(folder):
    return list(folder.rglob("*.xplane.pb"))


def test_profile_writes_a_trace_and_says_how_to_look_at_it(config, tmp_path, caplog):
    stop = threading.Event()
    with caplog.at_level("INFO"), pytest.raises(Interrupted):
        train(replace(config, profile=tmp_path / "trace"), stop, [StopAt(stop, 1, 0)])
    assert len(traces(tmp_path / "trace")) == 1
    assert f"tensorboard --logdir {tmp_path / 'trace'}" in caplog.text
    # A training that goes on in a later epoch has batches to trace as well.
    stop.clear()
    with pytest.raises(Interrupted):
        train(replace(config, profile=tmp_path / "later", resume=True), stop, [StopAt(stop, 1)])
    assert len(traces(tmp_path / "later")) == 1


@pytest.mark.parametrize(
    "batch_size", [700, pytest.param(10_000, marks=pytest.mark.long)]
)  # epochs of a few batches, and of one
def test_an_epoch_of_few_batches_is_traced_as_well(config, tmp_path, batch_size):
    stop = threading.Event()
    config = replace(config, batch_size=batch_size, profile=tmp_path / "trace")
    with pytest.raises(Interrupted):
        train(config, stop, [StopAt(stop, 0)])
    assert len(traces(tmp_path / "trace")) == 1


def test_the_bundle_holds_the_configuration_that_trains_it_again(trained):
    config, result = trained
    again = parse(
        TrainConfig, ["--config", f"{result.model_uri}/config.toml"], "python -m jobs.train", ""
    )
    assert again == config


class Fails(keras.callbacks.Callback):
    """Fails once there is a checkpoint."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def on_train_batch_end(self, batch, logs=None):
        if storage.list_files(self.output, ".npz"):
            raise TrainingError("the loss must be finite.")


def test_a_training_that_failed_for_good_leaves_no_checkpoint(config):
    with pytest.raises(TrainingError, match="finite"):
        train(replace(config, checkpoint_seconds=0.01), callbacks=[Fails(config.output)])
    assert not storage.list_files(config.output, ".npz")


@pytest.fixture(scope="module")
def stopped_late(data, tmp_path_factory):
    """A training of which a picture cannot be drawn, and that is stopped when the model is
    published: its model root, and what it logged.
    """

    def fails(*args, **kwargs):
        raise RuntimeError("no LaTeX")

    def stopped(*args):
        raise KeyboardInterrupt

    models = str(tmp_path_factory.mktemp("stopped_late") / "models")
    config = TrainConfig(data=data, output=models, **{**SMALL, "epochs": 1})
    with pytest.MonkeyPatch.context() as patch, heard() as messages:
        patch.setattr(plots, "auc_by_hour", fails)
        patch.setattr(Tracker, "artifact", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    return models, messages


def test_a_stop_after_publishing_leaves_no_checkpoint(stopped_late):
    models, _ = stopped_late
    assert bundles.latest_version(models) is not None
    assert not storage.list_files(models, ".npz")


def test_a_picture_that_cannot_be_drawn_does_not_cost_the_model(stopped_late):
    models, messages = stopped_late
    assert (
        "going on without auc_by_hour, which could not be made: RuntimeError: no LaTeX" in messages
    )
    names = {Path(info.uri).name for info in storage.list_files(models, ".png")}
    assert "auc_by_hour.png" not in names
    assert names > {"training_curves.png", "auc_by_history_length.png", "score_distribution.png"}


def test_a_training_starts_from_a_published_model(trained, config):
    first, result = trained
    config = replace(config, init_from=first.output, lr=1e-9, epochs=1)
    started = train(config)
    assert started.metrics["auc"] == pytest.approx(result.metrics["auc"], abs=1e-4)
    assert started.epochs[0]["loss"] < result.epochs[0]["loss"] - 0.05


@pytest.mark.long
def test_a_training_that_started_from_a_model_is_resumed(trained, config):
    first, _ = trained
    config = replace(config, init_from=first.output, epochs=1)
    unbroken = train(replace(config, output=f"{config.output}-unbroken"))
    stop = threading.Event()
    with pytest.raises(Interrupted):
        train(config, stop, [StopAt(stop, 0, 4)])
    assert train(replace(config, resume=True)).epochs == unbroken.epochs


def test_a_training_that_started_from_another_model_has_another_checkpoint(trained, config, caplog):
    _, result = trained
    stop = threading.Event()
    with pytest.raises(Interrupted):
        train(replace(config, init_from=result.model_uri), stop, [StopAt(stop, 0, 4)])
    stop.clear()
    with caplog.at_level("INFO"), pytest.raises(Interrupted):
        train(replace(config, resume=True), stop, [StopAt(stop, 0, 4)])
    assert "training starts anew" in caplog.text


def test_a_model_of_other_sizes_is_no_start(trained, config):
    first, result = trained
    with pytest.raises(ConfigError) as error:
        train(replace(config, init_from=first.output, heads=4, word_dim=8))
    assert str(error.value).startswith(
        "--init-from must name a model of the sizes of this training. Received: "
    )
    assert f"{result.model_uri}, with word_dim 16 there, 8 here; heads 2 there, 4 here." in str(
        error.value
    )


def test_an_altered_model_is_no_start(trained, config, tmp_path):
    _, result = trained
    shutil.copytree(result.model_uri, tmp_path / "altered")
    with (tmp_path / "altered" / "model.keras").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match="altered"):
        train(replace(config, init_from=str(tmp_path / "altered")))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_clicks_is_refused(config, tmp_path, split):
    data = Path(write_demo(str(tmp_path / "data")))
    for path in (data / split).glob("behaviors*"):
        pq.write_table(pq.read_table(path).drop_columns("article_ids_clicked"), path)
    with pytest.raises(
        TrainingError, match=f"the split {split} must hold a click beside a non-click"
    ):
        train(replace(config, data=str(data)))


def test_a_bad_shard_is_found_before_training_begins(config, tmp_path):
    data = Path(write_demo(str(tmp_path / "data")))
    path = sorted((data / "train").glob("behaviors*"))[-1]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SchemaError, match=path.name):
        train(replace(config, data=str(data)))


def test_mind_files_go_through_prepare_and_train(config, tmp_path):
    rng = np.random.default_rng(2)
    for split, day in (("train", 11), ("validation", 15)):
        folder = tmp_path / split
        folder.mkdir()
        news = [
            f"N{i}\tnews\tworld\tTitle of topic{i % 5} story {i}\t\thttps://x\t[]\t[]"
            for i in range(60)
        ]
        (folder / "news.tsv").write_text("\n".join(news) + "\n")
        lines = []
        for i in range(200):
            topic = i % 5
            history = " ".join(f"N{5 * k + topic}" for k in rng.integers(0, 12, 4))
            others = [f"N{5 * rng.integers(0, 12) + (topic + k) % 5}-0" for k in range(1, 5)]
            shown = " ".join([f"N{5 * rng.integers(0, 12) + topic}-1", *others])
            lines.append(
                f"{i + 1}\tU{i % 40}\t11/{day}/2019 {1 + i % 12}:05:00 PM\t{history}\t{shown}"
            )
        (folder / "behaviors.tsv").write_text("\n".join(lines) + "\n")
        source = Mind(str(folder), split, tmp_path / "cache")
        write_dataset(
            source,
            str(tmp_path / "mind"),
            shard_rows=1000,
            overwrite=False,
            progress=lambda *_: None,
        )
    result = train(replace(config, data=str(tmp_path / "mind"), epochs=8, promote="auto"))
    assert result.metrics["auc"] > 0.8
    assert result.promoted
    assert bundles.latest_version(config.output) == storage.name(result.model_uri)
    assert "newest" not in result.metrics["baselines"]  # MIND gives no times of publishing


def command(config, *flags):
    values = {**SMALL, "data": config.data, "output": config.output}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    return [sys.executable, "-m", "jobs.train", *words, *flags]


def start(config, *flags):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(config, *flags), cwd=REPOSITORY, **pipes)


def left_by(output):
    """Everything in a model root, its one version called by the same name."""
    (version,) = [name for name in listing(output) if re.fullmatch(r"\d{8}T\d{6}Z-\w{8}", name)]
    return [name.replace(version, "version") for name in listing(output)]


def wait_for_checkpoint(config, process):
    while not list(Path(config.output).glob("checkpoints/*.npz")):
        assert process.poll() is None, process.communicate()
        threading.Event().wait(0.01)


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGTERM, marks=pytest.mark.long), getattr(signal, "SIGKILL", None)],
)  # None: Windows
def test_the_command_killed_in_the_middle_and_resumed_ends_as_the_unbroken_one(
    trained, config, number, tmp_path, monkeypatch
):
    unbroken_config, unbroken = trained
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    process = start(config, "--checkpoint-seconds=0.05")
    wait_for_checkpoint(config, process)
    process.send_signal(number)
    _, error = process.communicate()
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert "error: stopped by a signal in epoch" in error.splitlines()[-1]
        assert listing(temporary) == []
    else:
        assert process.returncode == -signal.SIGKILL
    assert not (Path(config.output) / "latest.json").exists()
    done = subprocess.run(
        command(config, "--resume"),
        cwd=REPOSITORY,
        env=plain_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert_only_our_lines(done)
    assert listing(temporary) == []
    assert left_by(config.output) == left_by(unbroken_config.output)
    assert bundles.load(config.output, tmp_path / "cache").meta["metrics"] == unbroken.metrics
    table = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line)
    assert float(table["nrms"].split()[0]) == pytest.approx(unbroken.metrics["auc"], abs=5e-5)
    assert {"random", "popularity", "oracle", "model:"} <= table.keys()


def test_a_mistake_in_the_data_is_one_line_and_exit_code_1(job, tmp_path):
    code, _, err, _ = job(data=str(tmp_path / "nothing"))
    assert code == 1
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "articles.parquet" in errors[0]
    assert "Traceback" not in err


def test_two_devices_give_the_losses_of_one_at_the_same_batch(on_two_devices):
    one, two = on_two_devices["losses"]
    np.testing.assert_allclose(two, one, rtol=1e-5)
    assert len(set(one)) == len(one)


def test_an_output_that_cannot_be_written_is_found_before_training(config, tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    heard = []

    class Heard(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            heard.append(self)

    with pytest.raises(StorageError, match="taken"):
        train(replace(config, output=str(tmp_path / "taken")), callbacks=[Heard()])
    assert heard == []


def test_several_workers_are_refused_before_anything_is_written(config, monkeypatch):
    monkeypatch.setenv(
        "TF_CONFIG",
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}',
    )
    with pytest.raises(ConfigError, match="TF_CONFIG must name one worker"):
        train(config)
    assert not Path(config.output).exists()


def test_a_missing_file_of_word_vectors_is_named(config, tmp_path):
    with pytest.raises(ConfigError, match=r"--word-vectors must name a file.*nope\.vec"):
        train(replace(config, word_vectors=tmp_path / "nope.vec"))
