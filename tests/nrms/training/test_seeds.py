"""The same training with several seeds."""

import numpy as np
import pytest

from jobs.train import main
from nrms import bundles
from nrms.errors import ConfigError
from nrms.evaluation.ranking import METRICS
from nrms.training.config import TrainConfig
from nrms.training.run import train
from nrms.training.seeds import spread, train_seeds
from tests.nrms.models.test_contract import write_data

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def config(shared, tmp_path_factory):
    return TrainConfig(
        data=str(shared.folder("contract", write_data)),
        output=str(tmp_path_factory.mktemp("seeds") / "models"),
        model="nrms_docvec",
        history_size=5,
        epochs=1,
        seed=7,
        seeds=2,
        promote="always",
        wandb_mode="disabled",
    )


def test_each_seed_is_a_training_of_its_own_and_the_first_goes_live(config, tmp_path):
    results = train_seeds(config)
    assert list(results) == [7, 8]
    assert results[7].metrics["auc"] != results[8].metrics["auc"]
    assert [result.promoted for result in results.values()] == [True, False]
    live = bundles.load(config.output, tmp_path)
    assert live.uri == results[7].model_uri
    assert live.meta["config"]["seed"] == 7


def test_the_command_prints_mean_and_deviation(config, capsys):
    main(config)
    printed = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in printed.splitlines() if line}
    aucs = [
        float(line.split()[2])
        for line in printed.splitlines()
        if line.startswith(("nrms_docvec 7", "nrms_docvec 8"))
    ]
    assert len(aucs) == 2
    assert [float(rows["auc"][at]) for at in (1, 3)] == pytest.approx(
        [np.mean(aucs), abs(aucs[0] - aucs[1]) / np.sqrt(2)], abs=2e-4
    )


def test_spread_is_the_sample_deviation():
    values = [{name: value for name in METRICS} for value in (1.0, 2.0, 4.0)]
    mean, deviation = spread(values)["auc"]
    assert mean == pytest.approx(7 / 3)
    assert deviation == pytest.approx(np.sqrt((16 / 9 + 1 / 9 + 25 / 9) / 2))


def test_a_single_training_refuses_seeds(config):
    with pytest.raises(ConfigError, match="--seeds must be left out"):
        train(config)
