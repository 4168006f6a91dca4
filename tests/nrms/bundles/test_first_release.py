"""A bundle that the first release (0.1.0) wrote is loaded, and scores as it did then.

`tests/data/first_release` is that release's own work: a model of made-up data, a part of its
validation split, and `scores.parquet`, what its `jobs.score` gave for it by each runtime. One
reader there (`user_id` 1) has no history, and one candidate (`article_id` 1) is no article.
"""

import shutil

import numpy as np
import polars as pl
import pytest

from nrms import bundles
from nrms.data.dataset import Dataset
from nrms.inference.loaded_model import LoadedModel
from nrms.nights.config import ScoreConfig
from nrms.nights.scoring import score
from tests.service import RunningService
from tests.small_training import REPOSITORY

DATA = REPOSITORY / "tests" / "data" / "first_release"
STRANGER, NO_READER = 1, 1


@pytest.fixture
def models(tmp_path):
    """The model root; a copy, because scoring leaves article vectors beside the version."""
    return str(shutil.copytree(DATA / "models", tmp_path / "models"))


def assert_as_then(scores, runtime):
    """Known candidates have that release's scores, which give an unknown one 0; it is put at the
    mean of its impression since.
    """
    given = pl.read_parquet(DATA / "data" / "validation" / "behaviors.parquet")
    candidates, readers = given["article_ids_inview"], given["user_id"]
    then = pl.read_parquet(DATA / "scores.parquet")[runtime]
    lists = zip(candidates, readers, then, scores, strict=True)
    strangers = 0
    for articles, reader, before, now in lists:
        known = (articles != STRANGER).to_numpy()
        before, now = np.array(before, np.float32), np.array(now, np.float32)
        if reader == NO_READER:
            assert not before.any()
        else:
            assert np.ptp(before[known]) > 0.01
        # Digit for digit on the machine where these were made. Processors of another kind add in
        # another order.
        np.testing.assert_allclose(now[known], before[known], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(now[~known], now[known].mean(), rtol=1e-6, atol=1e-6)
        strangers += np.count_nonzero(~known)
    assert strangers == 1
    assert (readers == NO_READER).sum() == 1


def test_loading_it_says_what_is_filled_in(models, tmp_path, caplog):
    bundle = bundles.load(models, tmp_path, ["onnx"])
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (
        "WARNING",
        f"{bundle.uri}: is of an earlier release. Filled in: inputs and graphs, by those of NRMS "
        "on titles; prior.npy, so that readers without a history see no order; joins, by shares "
        "of 0, so that warnings about a split come sooner. Train again to have them.",
    )
    assert sorted(bundle.files) == ["news_encoder.onnx", "tokenizer.json", "user_encoder.onnx"]
    assert bundle.parts.inputs["history"]["settings"] == {"size": 10}


@pytest.mark.parametrize("runtime", ["keras", "onnx"])
def test_it_scores_as_the_first_release_did(models, tmp_path, runtime):
    model = LoadedModel.open(bundles.load(models, tmp_path, [runtime]), runtime)
    dataset = Dataset.open(str(DATA / "data"), tmp_path, model.inputs.columns)
    validation = dataset.split("validation", model.inputs.history.size)
    impressions = validation.read(0)
    scorer = model.scorer(model.catalogue(dataset.articles), validation.histories.rows)
    scores = scorer.score(impressions)
    assert_as_then(np.split(scores, impressions.offsets[1:-1]), runtime)


@pytest.mark.system
def test_a_night_scores_as_one_of_the_first_release(models, tmp_path):
    output = tmp_path / "night"
    flags = {"output": str(output), "runtime": "onnx", "wandb_mode": "disabled"}
    score(ScoreConfig(model=models, data=str(DATA / "data"), **flags))
    assert_as_then(pl.read_parquet(output / "part-00000.parquet")["scores"], "onnx")


@pytest.mark.system
def test_an_upload_is_scored_as_by_the_first_release(models, tmp_path):
    articles = DATA / "data" / "articles.parquet"
    parts = [
        (DATA / "data" / "validation" / f"{name}.parquet").read_bytes()
        for name in ("behaviors", "history")
    ]
    with RunningService(tmp_path / "log", MODEL_URI=models, ARTICLES_URI=articles) as service:
        answer = service.predict(*parts, format="parquet")
        assert answer.status_code == 200, answer.text
    path = tmp_path / "answer.parquet"
    path.write_bytes(answer.content)
    assert_as_then(pl.read_parquet(path)["scores"], "onnx")
