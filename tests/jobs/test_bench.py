import itertools

import keras
import numpy as np
import pytest

from jobs.bench import models, score, train
from jobs.bench.naive import NaiveNRMS, naive_weights, shared_weights
from nrms.architectures.nrms import NrmsConfig
from nrms.errors import ConfigError
from tests.encoders import small_model

pytestmark = pytest.mark.system


@pytest.mark.parametrize("train_word_vectors", [True, False])
def test_the_naive_form_is_the_same_model(train_word_vectors):
    keras.utils.set_random_seed(3)
    config = NrmsConfig(
        word_dim=5,
        heads=2,
        head_dim=3,
        attention_dim=4,
        dropout=0.0,
        train_word_vectors=train_word_vectors,
    )
    ours = small_model(config, 30)
    rng = np.random.default_rng(3)
    ours.set_weights([rng.normal(size=weight.shape) for weight in ours.get_weights()])
    titles = rng.integers(1, 30, (20, 7)).astype(np.int32)
    titles = np.where(np.arange(7) < rng.integers(1, 8, 20)[:, None], titles, 0).astype(np.int32)
    titles[0] = 0
    history, candidates = (
        rng.integers(0, 20, (6, 4)).astype(np.int32),
        rng.integers(0, 20, (6, 3)).astype(np.int32),
    )
    history.sort()
    history = history[:, ::-1].copy()  # padding at the end

    naive = NaiveNRMS(ours)
    inputs = titles[history], titles[candidates]
    naive(inputs)
    naive.set_weights(naive_weights(ours.get_weights()))
    np.testing.assert_allclose(
        naive(inputs),
        ours({"title": titles}, {"history": history, "candidates": candidates}),
        rtol=1e-4,
        atol=1e-4,
    )
    for before, after in zip(ours.get_weights(), shared_weights(naive.get_weights()), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.long
def test_the_benchmark_gives_a_row_for_each_case(monkeypatch, capsys):
    cases = dict(itertools.islice(train.CASES.items(), 2))
    monkeypatch.setattr(train, "CASES", cases)
    monkeypatch.setattr(train, "ROUND_SECONDS", 0.1)
    monkeypatch.setattr(train, "matmul_peak", lambda dtype: 100.0)
    rows = train.run_benchmark(
        train.Options(
            articles=500, users=100, impressions=400, rounds=1, auc_batches=2, history_size=3
        )
    )
    assert [row["name"].partition(" ")[0] for row in rows] == [
        *["train,"] * len(cases),
        "peak",
        "loader",
        "time",
    ]
    assert all(row.keys() == {"name", "ours", "naive", "ratio", "unit"} for row in rows)
    assert all(row["ours"] > 0 for row in rows)
    assert "time to validation AUC" in capsys.readouterr().out


@pytest.mark.long
def test_the_scoring_benchmark_gives_a_row_for_each_case(monkeypatch, capsys):
    monkeypatch.setattr(score, "matmul_peak", lambda: 100.0)
    monkeypatch.setattr(score, "HISTORY_SIZES", (3,))
    rows = score.run_benchmark(
        score.Options(articles=500, users=100, impressions=200, naive_impressions=20, rounds=1)
    )
    speeds = [
        f"score, history 3, {way}, article vectors {state}"
        for way in score.RUNTIMES
        for state in ("cold", "warm")
    ]
    assert [row["name"] for row in rows] == [*speeds, "peak memory, keras", "peak memory, onnx"]
    assert all(row["ours"] > 0 and row["naive"] > 0 for row in rows)
    assert "of the matrix-multiply peak" in capsys.readouterr().out


def test_models_are_measured_on_the_same_data(capsys):
    options = models.Options(
        models="nrms_docvec,context", impressions=300, epochs=1, history_size=3
    )
    rows = models.run_benchmark(options)
    assert [row["name"] for row in rows] == [
        f"{model}: {what}"
        for model in ("nrms_docvec", "context")
        for what in ("auc", "trained", "scored")
    ]
    assert all(row["ours"] > 0 for row in rows)
    printed = capsys.readouterr().out.splitlines()
    assert len({line.count("|") for line in printed}) == 1
    assert [line.split(" ")[1] for line in printed[2:]] == ["nrms_docvec", "context"]


def test_a_model_that_is_not_registered_is_not_measured():
    with pytest.raises(ConfigError, match=r"--models must be of .*naml.* Received: 'name'"):
        models.run_benchmark(models.Options(models="naml:title+body,name"))
