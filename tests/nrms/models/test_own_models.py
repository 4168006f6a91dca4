"""Two models, each in a file of its own: they train, are exported, score a night, serve uploads."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.settings import Settings
from nrms import bundles
from nrms.nights.config import ScoreConfig
from nrms.nights.scoring import score
from nrms.training.config import TrainConfig
from nrms.training.run import train
from tests.nrms.models import age_model, category_model

pytestmark = pytest.mark.system

MODELS = {"category": category_model, "age": age_model}


@pytest.fixture(scope="module", params=MODELS)
def published(request, demo, tmp_path_factory):
    """A training of one epoch; the name of the model, and what the training leaves."""
    folder = tmp_path_factory.mktemp(request.param)
    config = TrainConfig(
        model=request.param,
        data=demo,
        output=str(folder / "models"),
        history_size=10,
        epochs=1,
        promote="always",
        wandb_mode="disabled",
    )
    return config, train(config)


def night(config, folder, runtime):
    """The scores of the validation split by one runtime."""
    result = score(
        ScoreConfig(
            model=config.output,
            data=config.data,
            output=str(folder),
            runtime=runtime,
            wandb_mode="disabled",
        )
    )
    parts = [pq.read_table(path) for path in sorted(Path(folder).glob("part-*.parquet"))]
    return result.metrics, pa.concat_tables(parts)


def test_a_model_of_its_own_file_trains_and_is_exported(published, tmp_path):
    config, result = published
    assert result.epochs[0]["loss"] < 10
    meta = bundles.load(config.output, tmp_path).meta
    assert meta["config"]["model"] == config.model
    assert "title" not in meta["inputs"]
    assert "tokenizer.json" not in meta["files"]
    assert config.model in meta["inputs"]
    assert {f"{name}.onnx" for name in meta["graphs"]} <= set(meta["files"])
    assert meta["onnx_parity"] <= 1e-5
    assert meta["config"]["lr"] == 1e-2


def test_a_night_and_an_upload_give_the_same_scores(published, tmp_path):
    config, result = published
    metrics, by_onnx = night(config, tmp_path / "onnx", "onnx")
    assert metrics["auc"] == pytest.approx(result.metrics["auc"], abs=1e-5)
    _, by_keras = night(config, tmp_path / "keras", "keras")
    scores = [
        table["scores"].combine_chunks().flatten().to_numpy() for table in (by_onnx, by_keras)
    ]
    np.testing.assert_allclose(*scores, atol=1e-5)
    assert len(np.unique(scores[0])) > 10

    (path, *_) = sorted(Path(config.data, "validation").glob("behaviors*.parquet"))
    (history,) = Path(config.data, "validation").glob("history*.parquet")
    settings = Settings(model_uri=config.output, articles_uri=f"{config.data}/articles.parquet")
    with TestClient(create_app(settings)) as client:
        while client.get("/readyz").status_code != 200:
            pass
        files = {"file": path.read_bytes(), "history": history.read_bytes()}
        answer = client.post("/predict?format=parquet", files=files)
        assert answer.status_code == 200, answer.text
        example = client.get("/example").json()
        tried = client.post("/predict/json", json=example)
        assert tried.status_code == 200, tried.text
    upload = pq.read_table(BytesIO(answer.content))
    ours = by_onnx.slice(0, len(upload))
    assert upload["impression_id"].to_pylist() == ours["impression_id"].to_pylist()
    np.testing.assert_allclose(
        upload["scores"].combine_chunks().flatten().to_numpy(),
        ours["scores"].combine_chunks().flatten().to_numpy(),
        atol=1e-6,
    )


@pytest.mark.parametrize("model", MODELS.values())
def test_a_model_is_one_short_file(model):
    assert len(Path(model.__file__).read_text().splitlines()) <= 60


def test_npratio_is_refused_for_a_model_of_lists(demo, tmp_path):
    config = TrainConfig(model="age", data=demo, output=str(tmp_path / "models"), npratio=2)
    with pytest.raises(Exception, match="--npratio must be left out"):
        train(config)
