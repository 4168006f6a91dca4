"""Times with a zone beside times without one: read as UTC, and said."""

from datetime import timedelta

import pyarrow as pa
import pytest

from nrms.data import joins
from nrms.data.split import check_time_order
from nrms.features.tokenizer import Tokenizer
from tests.small_data import BEHAVIORS, HISTORY, Folder, at

UTC, COPENHAGEN, NAIVE = (
    pa.timestamp("us", "UTC"),
    pa.timestamp("us", "Europe/Copenhagen"),
    pa.timestamp("us"),
)
# Recorded with the impressions at minutes 0 and 5: one click each is as late as the click to
# predict.
LATE = [at(-9, 30), at(35), []]


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path / "data", strings=False)


def impressions(kind: pa.DataType, *minutes: int) -> dict:
    return {"impression_time": pa.array(at(*minutes), kind)}


def history(kind: pa.DataType) -> dict:
    return {"impression_time_fixed": pa.array(LATE, pa.list_(kind))}


@pytest.mark.parametrize(
    "kinds", [(NAIVE, NAIVE), (UTC, UTC), (UTC, COPENHAGEN), (NAIVE, UTC), (COPENHAGEN, NAIVE)]
)
def test_a_time_is_the_same_moment_with_and_without_a_zone(folder, kinds):
    folder.write_all(behaviors=impressions(kinds[0], 0, 5), history=history(kinds[1]))
    split = folder.split()
    assert split.report["late_history"] == 2
    assert split.histories.rows.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    mixed = (kinds[0] == NAIVE) != (kinds[1] == NAIVE)
    assert len(split.warnings) == mixed


def test_local_times_without_a_zone_beside_utc_are_said_as_they_let_clicks_through(folder):
    local = [time + timedelta(hours=1) for time in at(0, 5)]
    folder.write_all(behaviors={"impression_time": pa.array(local, NAIVE)}, history=history(UTC))
    dataset = folder.open()
    split = dataset.split("train", 3)
    split.read(0)
    assert split.report["late_history"] == 0  # nothing tells local time from UTC
    (warning,) = split.warnings
    assert warning.startswith(
        "train: times without a zone are read as UTC: `impression_time` in train/behaviors.parquet "
        "has none, "
        "`impression_time_fixed` in train/history.parquet has one. If the former are local times, "
        "histories can hold"
    )
    tokenizer = Tokenizer.train(["a b c d"], 1)
    assert joins.check(dataset, split, tokenizer.count, {}, 0.1).warnings == [warning]


def test_shards_of_two_kinds_are_said(folder):
    folder.write_all(history={"impression_time_fixed": None})
    folder.write("train/behaviors-2.parquet", BEHAVIORS | impressions(UTC, 0, 5))
    (warning,) = folder.split().warnings
    assert "`impression_time` in train/behaviors.parquet has none" in warning
    assert "`impression_time` in train/behaviors-2.parquet has one" in warning


def test_splits_of_two_kinds_are_said_once(folder):
    folder.write_all()
    folder.write("validation/behaviors.parquet", BEHAVIORS | impressions(UTC, 60, 61))
    folder.write("validation/history.parquet", HISTORY | history(UTC))
    train, validation = folder.split(), folder.split(name="validation")
    assert train.warnings == validation.warnings == []
    assert check_time_order(train, validation)
    (warning,) = validation.warnings
    assert warning.startswith(
        "validation: times without a zone are read as UTC: `impression_time_fixed` in train/"
    )
    assert "in validation/history.parquet has one" in warning

    folder.write("train/history.parquet", HISTORY | history(UTC))
    train, validation = folder.split(), folder.split(name="validation")
    check_time_order(train, validation)
    assert (len(train.warnings), len(validation.warnings)) == (1, 0)
