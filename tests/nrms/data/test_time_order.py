"""The shards of a split by time, and what is said of those that overlap."""

import pytest

from nrms.data.time_order import shards_in_time_order
from nrms.errors import SchemaError
from tests.small_data import BEHAVIORS, Folder, at


@pytest.fixture
def folder(tmp_path) -> Folder:
    folder = Folder(tmp_path / "data", strings=False)
    folder.write_all()
    (folder.path / "train/behaviors.parquet").unlink()
    return folder


def write(folder: Folder, *shards: tuple[int | None, int | None]) -> Folder:
    """A shard of two impressions for each pair of minutes."""
    for number, minutes in enumerate(shards):
        times = {"impression_time": at(*minutes)}
        folder.write(f"train/behaviors-{number}.parquet", BEHAVIORS | times)
    return folder


def test_shards_are_ordered_by_time_whatever_their_names(folder):
    split = write(folder, (30, 31), (None, None), (0, 9), (20, None), (15, 12)).split()
    assert shards_in_time_order(split) == [2, 4, 3, 0, 1]


@pytest.mark.parametrize(
    "shards", [[(0, 5), (5, 9)], [(5, 9), (5, 5), (0, 5)], [(5, 5), (5, 5)], [(4, 4)]]
)
def test_shards_that_touch_do_not_overlap(folder, shards):
    split = write(folder, *shards).split()
    order = shards_in_time_order(split)
    assert sorted(order) == list(range(len(shards)))
    moments = [minute for i in order for minute in shards[i]]
    assert moments == sorted(moments)


@pytest.mark.parametrize(
    ("shards", "first", "second"),
    [
        ([(0, 5), (4, 9)], "0.parquet from 2023-05-18T07:00:00", "1.parquet from 2023-05-18T07:04"),
        ([(20, 21), (8, 9), (10, 30), (0, 5)], "2.parquet from 2023-05-18T07:10", "0.parquet from"),
        ([(0, 9), (1, 8)], "0.parquet from", "1.parquet from"),
    ],
)
def test_shards_that_overlap_are_named_with_the_command_that_mends_it(
    folder, shards, first, second
):
    split = write(folder, *shards).split()  # which other models read
    with pytest.raises(SchemaError) as caught:
        shards_in_time_order(split)
    message = str(caught.value)
    assert message.startswith("The files of a split must not overlap in time for a model")
    assert f"Received: behaviors-{first}" in message
    assert f", behaviors-{second}" in message
    assert "behaviors-3" not in message
    assert f"`python -m jobs.prepare --source ebnerd --input {folder.path} --output" in message
    assert "\n" not in message


def test_a_shard_that_is_set_aside_overlaps_with_none(folder):
    write(folder, (0, 9), (5, 20), (30, 31))
    split = folder.split()
    split.bad[split.shards[1].uri] = SchemaError("bad")
    assert shards_in_time_order(split) == [0, 2]


def test_a_split_without_times_keeps_the_order_of_its_names(folder):
    split = write(folder, (None, None), (None, None)).split()
    assert split.time_range is None
    assert shards_in_time_order(split) == [0, 1]
