"""A night of a model that reads what happened before: where its state comes from, and that nothing
else moves a score.
"""

import json
import logging
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from nrms.data.columns import unnest
from nrms.errors import ConfigError, Interrupted, SchemaError
from nrms.evaluation.beyond_accuracy import NAMES
from nrms.nights.config import ScoreConfig, StateConfig
from nrms.nights.scoring import score
from nrms.nights.start import make_state
from nrms.sources.demo import DemoSite
from nrms.sources.writer import write_dataset
from nrms.training.config import TrainConfig
from nrms.training.run import train

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("drawn_once")]

SIZES = {"ranker_dim": 16, "ranker_heads": 2, "ranker_head_dim": 8, "ranker_hidden": 16}
TEXT_SIZES = {"word_dim": 8, "heads": 2, "head_dim": 4, "attention_dim": 8, "title_size": 10}
TRAINING = {"epochs": 1, "promote": "always", "wandb_mode": "disabled", "history_size": 10}


def write(folder, shard_rows=400):
    site = DemoSite(seed=7, articles=500, users=120, impressions=1200, validation_impressions=300)
    write_dataset(
        site, str(folder), shard_rows=shard_rows, overwrite=False, progress=lambda *_: None
    )


@pytest.fixture(scope="module")
def data(shared):
    return shared.folder("context-data", write)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    output = str(tmp_path_factory.mktemp("context") / "models")
    return train(TrainConfig(data=str(data), output=output, model="context", **SIZES, **TRAINING))


@pytest.fixture
def night(data, trained, tmp_path):
    return ScoreConfig(
        data=str(data),
        model=trained.model_uri,
        output=str(tmp_path / "out"),
        runtime="onnx",
        wandb_mode="disabled",
    )


def scores(config: ScoreConfig) -> np.ndarray:
    score(config)
    parts = sorted(Path(config.output).glob("part-*.parquet"))
    return np.concatenate(
        [unnest(pq.read_table(part)["scores"].combine_chunks())[1].to_numpy() for part in parts]
    )


def reshaped(data: Path, target: Path, change, split="validation") -> Path:
    """A copy of the data whose behaviours of a split are changed, table by table in one file."""
    for path in sorted(data.rglob("*.parquet")):
        relative = path.relative_to(data)
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        if relative.parts[0] != split or not relative.name.startswith("behaviors"):
            (target / relative).write_bytes(path.read_bytes())
    table = pa.concat_tables(
        [pq.read_table(path) for path in sorted((data / split).glob("behaviors*.parquet"))]
    )
    for name, part in change(table).items():
        pq.write_table(part, target / split / name)
    return target


def one_file(table):
    return {"behaviors-00000.parquet": table}


def test_keras_and_onnx_nights_have_the_auc_of_the_training(night, trained):
    for runtime in ("keras", "onnx"):
        output = f"{night.output}-{runtime}"
        metrics = score(replace(night, runtime=runtime, output=output)).metrics
        assert metrics["auc"] == pytest.approx(trained.metrics["auc"], abs=1e-6)
        assert metrics["baselines"]["pairwise"]["auc"] > 0
        # A ranker of lists has no news vectors.
        found = {key.split("@")[0] for key in metrics if "@" in key} - {"ndcg"}
        assert found == set(NAMES) - {"ild_vectors", "serendipity"}
        assert found <= {key.split("@")[0] for key in metrics["baselines"]["pairwise"]}


def test_neither_the_number_nor_the_order_of_files_moves_a_score(night, data, tmp_path):
    expected = scores(night)
    assert np.ptp(expected) > 0

    def cut(table):
        return {
            f"behaviors-{9 - number}.parquet": table.slice(100 * number, 100) for number in range(3)
        }

    files = reshaped(data, tmp_path / "cut", cut)
    found = scores(replace(night, data=str(files), output=f"{night.output}-cut"))
    back = np.concatenate(np.split(found, _edges(files))[::-1])
    np.testing.assert_allclose(back, expected, rtol=0, atol=1e-5)


def _edges(data: Path) -> np.ndarray:
    """Where the candidates of each file end."""
    files = sorted((data / "validation").glob("behaviors*.parquet"))
    lengths = [
        pc.sum(pc.list_value_length(pq.read_table(path)["article_ids_inview"])).as_py()
        for path in files
    ]
    return np.cumsum(lengths)[:-1]


def test_files_that_overlap_in_time_are_refused_with_the_remedy(night, data, tmp_path):
    def halves(table):
        rows = np.arange(len(table))
        return {
            f"behaviors-{part}.parquet": table.take(pa.array(rows[rows % 2 == part]))
            for part in range(2)
        }

    files = reshaped(data, tmp_path / "mixed", halves)
    with pytest.raises(SchemaError, match=r"must not overlap in time .* jobs\.prepare"):
        score(replace(night, data=str(files)))


def test_a_split_without_clicks_stops_unless_clicks_are_frozen(night, data, tmp_path):
    bare = reshaped(
        data, tmp_path / "bare", lambda table: one_file(table.drop(["article_ids_clicked"]))
    )
    config = replace(night, data=str(bare))
    with pytest.raises(SchemaError, match="--context-clicks frozen"):
        score(config)
    frozen = scores(replace(config, context_clicks="frozen", output=f"{night.output}-frozen"))
    whole = scores(replace(night, output=f"{night.output}-whole"))
    assert len(frozen) == len(whole)
    assert not np.allclose(frozen, whole, atol=1e-3)


def test_without_times_there_is_no_past(night, data, tmp_path):
    bare = reshaped(
        data, tmp_path / "bare", lambda table: one_file(table.drop(["impression_time"]))
    )
    with pytest.raises(SchemaError, match="must be given for a model that reads"):
        score(replace(night, data=str(bare)))


def test_impressions_without_a_time_know_of_nothing_and_count_for_nobody(night, data, tmp_path):
    def some_null(table):
        times = table["impression_time"].to_pylist()
        place = table.column_names.index("impression_time")
        times[5] = times[290] = None
        return one_file(
            table.set_column(
                place, "impression_time", pa.array(times, table.schema.field(place).type)
            )
        )

    files = reshaped(data, tmp_path / "null", some_null)
    found = scores(replace(night, data=str(files), output=f"{night.output}-null"))
    assert np.isfinite(found).all()


def test_a_state_made_by_the_job_is_that_of_the_training(night, data, trained, tmp_path):
    state = str(tmp_path / "state")
    config = StateConfig(data=str(data), output=state, model=trained.model_uri)
    assert make_state(config) is not None
    assert make_state(config) is None  # complete already
    given = scores(replace(night, context=state, output=f"{night.output}-given"))
    np.testing.assert_allclose(given, scores(night), rtol=0, atol=1e-6)
    plan = json.loads(Path(f"{night.output}-given", "manifest.json").read_text())["plan"]
    assert plan["context"]["state"]["crc32c"]
    with pytest.raises(ConfigError, match=r"must be empty or hold|may be written|of other"):
        score(replace(night, context=state))  # predictions from another state are no part of it

    with pytest.raises(ConfigError, match="--start must be of what happened before"):
        make_state(replace(config, start=state, output=f"{state}-twice"))
    later = replace(config, split="validation", start=state, output=f"{state}-later")
    assert make_state(later) is not None
    with pytest.raises(ConfigError, match=r"--context must name a folder that jobs.context"):
        score(replace(night, context=str(data), output=f"{night.output}-wrong"))
    other = str(tmp_path / "other")
    train_config = StateConfig(data=str(data), output=other)
    assert make_state(train_config) is not None  # by the rules that training has by default
    scores(replace(night, context=other, output=f"{night.output}-other"))


def test_a_state_of_the_future_is_not_used_and_that_is_said(night, data, trained, tmp_path):
    state = str(tmp_path / "state")
    make_state(
        StateConfig(data=str(data), output=state, split="validation", model=trained.model_uri)
    )
    metrics = score(replace(night, context=state)).metrics
    assert any("holds what happened after the first" in line for line in metrics["warnings"])


def test_a_night_starts_from_the_days_before(data, trained, tmp_path, caplog):
    for day, split in {"2024-01-30": "train", "2024-02-02": "validation"}.items():
        shutil.copytree(data / split, tmp_path / day / "all")
        shutil.copy(data / "articles.parquet", tmp_path / day)
    flags = {
        "data": str(tmp_path / "{date}"),
        "split": "all",
        "date": "2024-02-02",
        "model": trained.model_uri,
        "runtime": "onnx",
        "wandb_mode": "disabled",
    }
    config = ScoreConfig(output=str(tmp_path / "out"), **flags)
    with caplog.at_level(logging.INFO):
        found = scores(config)
    assert "no data of 6 of the 7 days before: 2024-01-26, 2024-01-27" in caplog.text
    plan = json.loads((tmp_path / "out" / "manifest.json").read_text())["plan"]
    assert {file["name"].split("/")[0] for file in plan["context"]["days"]} == {"2024-01-30"}
    # The model's own state is counted from the same training split.
    alone = ScoreConfig(output=str(tmp_path / "alone"), context_days=0, **flags)
    np.testing.assert_allclose(scores(alone), found, rtol=0, atol=1e-6)


@pytest.mark.parametrize("way", ["stages", "joint"])
def test_a_text_model_below_the_ranker_scores_the_same_everywhere(data, night, tmp_path, way):
    ranker = tmp_path / "ranker.toml"
    ranker.write_text("ranker_dim = 16\nranker_blocks = 1\n" + "epochs = 1\n" * (way == "stages"))
    flags = {"context": True, "context_training": way, "context_config": ranker, **TEXT_SIZES}
    output = str(tmp_path / "models")
    result = train(TrainConfig(data=str(data), output=output, **flags, **TRAINING))
    assert len(result.epochs) == (2 if way == "stages" else 1)
    found = []
    for runtime in ("keras", "onnx"):
        config = replace(
            night, model=result.model_uri, runtime=runtime, output=f"{night.output}-{runtime}"
        )
        found.append(scores(config))
        metrics = json.loads(Path(config.output, "metrics.json").read_text())
        # Text scores that are equal but for the last digits may stand in another order.
        assert metrics["auc"] == pytest.approx(result.metrics["auc"], abs=2e-4)
    np.testing.assert_allclose(*found, rtol=0, atol=1e-4)


def test_a_training_starts_from_models_with_and_without_a_ranker(data, tmp_path):
    ranker = tmp_path / "ranker.toml"
    ranker.write_text("ranker_dim = 16\nranker_blocks = 1\n")
    both = TrainConfig(
        data=str(data),
        output=str(tmp_path / "both"),
        context=True,
        context_config=ranker,
        **TEXT_SIZES,
        **TRAINING,
    )
    first = train(both)
    still = {"init_from": both.output, "lr": 1e-9}
    again = train(replace(both, output=str(tmp_path / "again"), **still))
    assert again.metrics["auc"] == pytest.approx(first.metrics["auc"], abs=1e-3)
    text = train(replace(both, output=str(tmp_path / "text"), context=False, **still))
    below, alone = (
        keras.models.load_model(Path(result.model_uri) / "model.keras", compile=False)
        for result in (first, text)
    )
    for ours, theirs in zip(alone.weights, below.text.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)

    ranker.write_text("ranker_dim = 8\nranker_blocks = 1\n")
    with pytest.raises(ConfigError, match="one whose ranker has others"):
        train(replace(both, output=str(tmp_path / "other"), **still))


def test_a_stopped_training_in_stages_goes_on_where_it_stopped(data, tmp_path):
    ranker = tmp_path / "ranker.toml"
    ranker.write_text("ranker_dim = 16\nranker_blocks = 1\nepochs = 2\n")
    flags = {"context": True, "context_training": "stages", "context_config": ranker, **TEXT_SIZES}
    config = TrainConfig(data=str(data), output=str(tmp_path / "models"), **flags, **TRAINING)
    stop = threading.Event()

    class StopInTheRanker(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:  # the text model has one epoch
                stop.set()

    with pytest.raises(Interrupted):
        train(config, stop, [StopInTheRanker()])
    resumed = train(replace(config, resume=True))
    unbroken = train(replace(config, output=str(tmp_path / "unbroken")))
    assert resumed.metrics["auc"] == pytest.approx(unbroken.metrics["auc"], abs=1e-6)
    assert resumed.epochs == unbroken.epochs
