"""A state in a file: what is read is what was written, or it is refused."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nrms.errors import ArtifactError
from nrms.features.context import snapshot
from nrms.features.context.input import Context
from nrms.features.context.state import Delays, State
from nrms.features.context.table import DAY
from nrms.storage import parquet
from tests.nrms.features.context.test_features import equal_states, site


@pytest.fixture(params=[False, True], ids=["numbers", "text"])
def state(request):
    return replace(State.of(site(strings=request.param), Delays()), position=17)


def test_a_state_comes_back_as_it_was(state, tmp_path):
    snapshot.save(state, tmp_path / "state")
    found = snapshot.load(tmp_path / "state", "it")
    equal_states(found, state)
    assert (found.position, found.newest, found.rules) == (17, state.newest, state.rules)
    assert len(found.pending) == len(state.pending) > 0
    later = state.latest + DAY
    equal_states(found.decayed(later), state.decayed(later))


def test_no_flipped_bit_is_taken_over(state, tmp_path):
    path = tmp_path / "state"
    snapshot.save(state, path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for bit in rng.integers(0, 8 * len(whole), 60):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(damaged))
        with pytest.raises(Exception, match=r"must be a state|is damaged") as raised:
            snapshot.load(path, "it")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("pairs.key", lambda values: values[::-1]),
        ("pairs.key", lambda values: values + (1 << 40)),
        ("articles.sum0", lambda values: values * np.nan),
        ("articles.sum0", lambda values: -values),
        ("last_clicks.value", lambda values: values + 10_000),
        ("pending.article", lambda values: values + 10_000),
        ("pending.offsets", lambda values: values[::-1].copy()),
    ],
)
def test_a_file_of_strangers_that_does_not_fit_itself_is_refused(state, tmp_path, column, change):
    path = tmp_path / "state"
    snapshot.save(state, path)
    table, about = parquet.read(path), parquet.metadata(path)
    values = change(table[column].combine_chunks().flatten().to_numpy())
    lists = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), pa.array(values))
    forged = table.set_column(table.column_names.index(column), column, lists)
    parquet.write(path, forged, {b"nrms.context": about[b"nrms.context"]})
    with pytest.raises(ArtifactError, match="must be a state of the moment"):
        snapshot.load(path, "it")


def test_another_parquet_file_is_refused(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "state")
    with pytest.raises(ArtifactError, match="must be a state of the moment that this release"):
        snapshot.load(tmp_path / "state", "it")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"version": 99}, "features of version 99"),
        ({"max_list": 0}, "a size must be"),
        ({"event_delay": -1}, "a delay must be seconds"),
        ({"event_delay": float("nan")}, "a delay must be seconds"),
    ],
)
def test_a_damaged_declaration_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Context(**settings)
