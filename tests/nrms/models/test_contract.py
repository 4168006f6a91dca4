"""What every registered model keeps, through what all of them share: a training, its bundle, a
night and an upload.
"""

import time
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import keras
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from fastapi.testclient import TestClient
from polars.testing import assert_frame_equal

import nrms
from api.app import create_app
from api.settings import Settings
from nrms import bundles
from nrms.architectures import architecture_of, architectures
from nrms.data.dataset import Dataset
from nrms.data.impressions import Impressions
from nrms.data.split import Split
from nrms.errors import ConfigError
from nrms.features.context.past import Past
from nrms.features.inputs import Inputs, with_unknown
from nrms.inference.loaded_model import Catalogue, LoadedModel
from nrms.inference.parity import PARITY
from nrms.models.build import build_model
from nrms.nights.config import ScoreConfig
from nrms.nights.scoring import score
from nrms.sources.demo import DemoSite
from nrms.sources.writer import write_dataset
from nrms.training.batches import Position, TrainingBatches
from nrms.training.config import TrainConfig, ranker_config
from nrms.training.data import TrainingData, open_data
from nrms.training.run import train
from nrms.training.samplers import Sampler, sampler_of
from nrms.training.step import make_train_step
from tests.nrms.models import age_model, category_model

pytestmark = pytest.mark.system

# Two models, each in a short file of its own, are registered with those of the library.
OWN = {"age": age_model, "category": category_model}


def write_data(folder):
    site = DemoSite(seed=4, articles=500, users=60, impressions=200, validation_impressions=60)
    write_dataset(site, str(folder), shard_rows=100, overwrite=False, progress=lambda *_: None)


@pytest.fixture(scope="module", params=sorted(architectures()))
def config(request, shared, tmp_path_factory):
    """A short training of a model with its own flags as they are by default."""
    return TrainConfig(
        data=str(shared.folder("contract", write_data)),
        output=str(tmp_path_factory.mktemp(request.param) / "models"),
        model=request.param,
        history_size=10,
        title_size=16,
        epochs=1,
        promote="always",
        wandb_mode="disabled",
    )


@dataclass
class Trained:
    """A model's bundle, opened, and the validation split that it scores."""

    bundle: bundles.Bundle
    metrics: dict
    models: dict[str, LoadedModel]
    dataset: Dataset
    split: Split

    def catalogue(self, runtime="onnx") -> Catalogue:
        return self.models[runtime].catalogue(self.dataset.articles)

    def scores(self, runtime="onnx", shard=None, catalogue=None, histories=None) -> np.ndarray:
        model = self.models[runtime]
        catalogue = catalogue or self.catalogue(runtime)
        histories = self.split.histories.rows if histories is None else histories
        return model.scorer(catalogue, histories).score(shard or self.split.read(0))


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    metrics = train(config).metrics
    bundle = bundles.load(config.output, cache)
    models = {runtime: LoadedModel.open(bundle, runtime) for runtime in ("keras", "onnx")}
    inputs = models["onnx"].inputs
    dataset = Dataset.open(config.data, cache, inputs.columns)
    split = dataset.split("validation", inputs.history.size, tuple(inputs.moment))
    if inputs.past is not None:
        (folder := cache / "past").mkdir()
        Past(split, inputs.past, folder).count(inputs.past.state)
    return Trained(bundle, metrics, models, dataset, split)


def assert_same(scores, expected, tolerance=PARITY):
    """Equal, up to a share of the largest entry."""
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(scores, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@dataclass
class Opened:
    """The inputs, sampler and data of a training."""

    inputs: Inputs
    sampler: Sampler
    data: TrainingData


@pytest.fixture(scope="module")
def opened(config, tmp_path_factory):
    architecture = architecture_of(config.model_config)
    inputs = architecture.inputs(config)
    sampler = sampler_of(architecture.sampler, config.npratio)
    data = open_data(config, inputs, lambda split: sampler, tmp_path_factory.mktemp("opened"))
    return Opened(inputs, sampler, data)


def losses(config, opened, precision, weights=None):
    """The losses of one batch before and after a step, with the same dropout; and the weights
    before the step.
    """
    inputs, data = opened.inputs, opened.data
    keras.utils.set_random_seed(1)
    model = build_model(config.model_config, inputs, precision)
    if weights is not None:
        model.set_weights(weights)
    weights = model.get_weights()
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert {layer.dtype_policy.name for layer in model._flatten_layers()} == {precision}
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)
    catalogue = {name: with_unknown(array) for name, array in data.encoded.items()}
    step = make_train_step(model, optimizer, inputs, catalogue, tf.distribute.get_strategy())
    batches = TrainingBatches(data.training, opened.sampler, config.batch_size, config.seed)
    _, batch = next(batches.epoch(Position()))
    drawn = [variable.numpy() for variable in model.non_trainable_variables]
    before = float(step(batch.arrays))
    for variable, value in zip(model.non_trainable_variables, drawn, strict=True):
        variable.assign(value)
    return before, float(step(batch.arrays)), weights


def test_one_step_lowers_the_loss_in_float32_and_in_mixed_precision(config, opened):
    before, after, weights = losses(config, opened, "float32")
    assert after < before
    mixed_before, mixed_after, _ = losses(config, opened, "mixed_bfloat16", weights)
    assert mixed_before == pytest.approx(before, abs=0.05)
    assert mixed_after < mixed_before


@pytest.fixture(scope="module")
def night(config, trained, tmp_path_factory):
    """The folder of a scored night, and its metrics."""
    output = str(tmp_path_factory.mktemp("night") / "out")
    scoring = ScoreConfig(
        model=config.output,
        data=config.data,
        output=output,
        runtime="onnx",
        wandb_mode="disabled",
    )
    return Path(output), score(scoring).metrics


def test_a_bundle_scores_as_its_training_said(trained, night):
    assert night[1]["auc"] == pytest.approx(trained.metrics["auc"], abs=1e-6)


def test_the_saved_model_has_the_flags_that_built_it(config, trained):
    assert trained.bundle.meta["config"]["model"] == config.model
    own = {name: trained.bundle.meta["config"][name] for name in vars(config.model_config)}
    assert type(config.model_config)(**own) == config.model_config


def test_both_runtimes_give_the_same_scores(trained):
    assert trained.bundle.meta["onnx_parity"] <= PARITY
    assert_same(trained.scores("onnx"), trained.scores("keras"))


@pytest.mark.parametrize("runtime", ["keras", "onnx"])
def test_padding_moves_no_score(trained, runtime):
    expected, shard = trained.scores(runtime), trained.split.read(0)
    model, articles = trained.models[runtime], trained.dataset.articles
    # Among others, a reader with a longer history than anybody pads theirs.
    histories = np.pad(trained.split.histories.rows, ((0, 1), (0, 7)))
    histories[-1] = np.arange(1, histories.shape[1] + 1)
    users = shard.user.copy()
    users[0] = len(histories) - 1
    found = trained.scores(runtime, replace(shard, user=users), histories=histories)
    others = slice(shard.offsets[1], None)
    assert_same(found[others], expected[others])

    # And so does an article that nobody saw, by a longer text.
    seen = np.union1d(shard.candidates, trained.split.histories.rows)
    (unseen, *_) = np.setdiff1d(np.arange(1, len(articles) + 1), seen)
    wide = model.inputs.encode(articles)
    for name, spec in model.inputs.specs.items():
        if len(spec.axes) == 2 and isinstance(spec.axes[1], str):
            wide[name] = np.pad(wide[name], ((0, 0), (0, 5)))
            wide[name][unseen - 1] = 1
    catalogue = model.catalogue_of(articles, wide)
    assert_same(trained.scores(runtime, catalogue=catalogue), expected)


def alone(shard: Impressions, i: int) -> Impressions:
    """One impression of a shard."""
    part = slice(shard.offsets[i], shard.offsets[i + 1])
    return replace(
        shard,
        user=shard.user[i : i + 1],
        offsets=np.array([0, part.stop - part.start]),
        candidates=shard.candidates[part],
        per_impression={name: array[i : i + 1] for name, array in shard.per_impression.items()},
        per_candidate={name: array[part] for name, array in shard.per_candidate.items()},
    )


def test_an_impression_scores_alone_as_among_others(trained):
    catalogue, shard = trained.catalogue(), trained.split.read(0)
    expected = trained.scores(catalogue=catalogue)
    for i in range(0, len(shard), 9):
        found = trained.scores(shard=alone(shard, i), catalogue=catalogue)
        part = expected[shard.offsets[i] : shard.offsets[i + 1]]
        np.testing.assert_allclose(found, part, rtol=0, atol=PARITY * np.abs(expected).max())


def test_a_night_gives_what_an_upload_is_given(config, night):
    (behaviors,) = Path(config.data, "validation").glob("behaviors*.parquet")
    (history,) = Path(config.data, "validation").glob("history*.parquet")
    with TestClient(create_app(Settings(model_uri=config.output))) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.01)
        files = {"file": behaviors.read_bytes(), "history": history.read_bytes()}
        answer = client.post("/predict?format=parquet", files=files)
        assert answer.status_code == 200, answer.text
        tried = client.post("/predict/json", json=client.get("/example").json())
        assert tried.status_code == 200, tried.text
    scores = pq.read_table(BytesIO(answer.content))["scores"]
    expected = pq.read_table(night[0] / "part-00000.parquet")["scores"]
    np.testing.assert_array_equal(*(np.concatenate(each.to_numpy()) for each in (scores, expected)))


def test_the_library_gives_what_a_night_gives(config, trained, night):
    model = nrms.load(config.output)
    articles = Path(config.data, "articles.parquet")
    (behaviors,) = Path(config.data, "validation").glob("behaviors*.parquet")
    (history,) = Path(config.data, "validation").glob("history*.parquet")
    assert_frame_equal(
        model.score(articles, history, behaviors),
        pl.read_parquet(night[0] / "part-00000.parquet"),
        check_exact=True,
    )
    if trained.bundle.parts.scoring == "vectors":
        assert len(model.encode(articles)) == len(trained.dataset.articles)
    else:
        with pytest.raises(
            ConfigError, match=r"must have news vectors .* scores lists\. Use score"
        ):
            model.encode(articles)


@pytest.mark.parametrize("name", OWN)
def test_a_model_can_be_one_short_file(name):
    assert len(Path(OWN[name].__file__).read_text().splitlines()) <= 60


def test_a_bundle_has_what_its_model_reads_and_no_more(config, trained):
    meta = trained.bundle.meta
    assert {f"{name}.onnx" for name in meta["graphs"]} <= set(meta["files"])
    if config.model in OWN:
        assert config.model in meta["inputs"]
        assert "title" not in meta["inputs"]
        assert "tokenizer.json" not in meta["files"]


def test_npratio_is_refused_for_a_model_of_lists(tmp_path):
    for flags in ({"model": "age"}, {"context": True}):
        config = TrainConfig(data="data", output=str(tmp_path / "models"), npratio=2, **flags)
        with pytest.raises(ConfigError, match="--npratio must be left out"):
            train(config)


def test_flags_of_stages_are_refused_where_both_models_are_trained_at_once(tmp_path):
    flags = {"data": "data", "output": str(tmp_path / "models"), "context": True}
    with pytest.raises(ConfigError, match=r"--context-training stages. Received: 0\.5"):
        train(TrainConfig(**flags, text_share=0.5))
    ranker = tmp_path / "ranker.toml"
    ranker.write_text("epochs = 3\nranker_blocks = 1\n")
    with pytest.raises(ConfigError, match=r"the ranker's own flags alone.*Received: epochs in"):
        ranker_config(TrainConfig(**flags, context_config=ranker))


@pytest.mark.parametrize("way", ["joint", "stages"])
def test_a_mistake_in_the_rankers_file_is_said_before_any_data_are_read(tmp_path, way):
    ranker = tmp_path / "ranker.toml"
    flags = {"data": "no data", "output": str(tmp_path / "models"), "context_training": way}
    config = TrainConfig(**flags, context=True, context_config=ranker)
    with pytest.raises(ConfigError, match=r"^--context-config must name a file that can be read"):
        train(config)
    ranker.write_text("ranker_dim =")
    with pytest.raises(ConfigError, match=r"^--context-config must name a TOML file"):
        train(config)
