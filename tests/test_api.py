"""The service as its users meet it: uploads, JSON, errors, health, OpenAPI; every answer of a real process."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest

from nrms.batch_scoring import score
from nrms.config import ScoreConfig
from tests.service import parquet


@pytest.fixture(scope="session")
def night(world, tmp_path_factory):
    """What the nightly job makes of the first behaviours file."""
    output = tmp_path_factory.mktemp("night")
    score(ScoreConfig(model=world.models, data=world.data, output=str(output), wandb_mode="disabled", overwrite=True))
    return pq.read_table(output / "part-00000.parquet")


def flat(table, column="scores"):
    return table[column].combine_chunks().flatten().to_numpy()


def test_scores_equal_the_nightly_jobs(service, world, night):
    answer = service.predict(parquet(world.behaviors(len(night))), parquet(world.history()), format="parquet")
    assert answer.status_code == 200, answer.text
    table = pq.read_table(io.BytesIO(answer.content))
    assert table.column_names == night.column_names
    np.testing.assert_allclose(flat(table), flat(night), atol=1e-6)
    for name in set(table.column_names) - {"scores", "ranks"}:
        assert table[name].combine_chunks() == night[name].combine_chunks()
