"""An unzipped EB-NeRD folder in, sharded Parquet with all its columns out."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from nrms.data.dataset import Dataset
from nrms.data.time_order import shards_in_time_order
from nrms.errors import ConfigError, SchemaError
from nrms.sources.ebnerd import Ebnerd
from nrms.sources.writer import write_dataset

TIME = datetime(2023, 5, 21, 21, 6, 50)

ARTICLES = pl.DataFrame(
    {
        "article_id": [3001353, 3003065, 3012771],
        "title": ["Natascha var ikke den første", "Kun Star Wars tjente mere", None],
        "subtitle": ["Politiet frygter nu", "Biografgængerne strømmer ind", ""],
        "last_modified_time": [TIME] * 3,
        "premium": [False, False, True],
        "body": ["Sagen om den østriske", "Vatikanet har opfordret", "x"],
        "image_ids": [[3150850], None, []],
        "topics": [["Kriminalitet", "Personfarlig kriminalitet"], ["Underholdning"], []],
        "category": [140, 414, 142],
        "sentiment_label": ["Negative", "Positive", None],
    },
    schema_overrides={"article_id": pl.Int32, "category": pl.Int16},
)
BEHAVIORS = pl.DataFrame(
    {
        "impression_id": [48401, 152513, 155390],
        "article_id": [None, 3003065, None],
        "impression_time": [TIME] * 3,
        "read_time": [21.0, 30.0, 45.0],
        "scroll_percentage": [None, 100.0, 5.0],
        "device_type": [2, 1, 1],
        "article_ids_inview": [[3001353, 3003065], [3012771, 3003065, 9], [3001353]],
        "article_ids_clicked": [[3003065], [3012771], [3001353]],
        "user_id": [22779, 150224, 22779],
        "is_sso_user": [False, True, False],
        "gender": [None, 0, None],
        "session_id": [21, 298, 401],
        "next_read_time": [16.0, None, 8.0],
    },
    schema_overrides={
        "impression_id": pl.UInt32,
        "article_id": pl.Int32,
        "read_time": pl.Float32,
        "device_type": pl.Int8,
        "article_ids_inview": pl.List(pl.Int32),
        "article_ids_clicked": pl.List(pl.Int32),
        "user_id": pl.UInt32,
        "gender": pl.Int8,
        "session_id": pl.UInt32,
    },
)
HISTORY = pl.DataFrame(
    {
        "user_id": [22779, 150224],
        "impression_time_fixed": [[TIME, TIME], [TIME]],
        "scroll_percentage_fixed": [[100.0, None], [35.0]],
        "article_id_fixed": [[3001353, 9], [3003065]],
        "read_time_fixed": [[17.0, 12.0], [0.0]],
    },
    schema_overrides={"user_id": pl.UInt32, "article_id_fixed": pl.List(pl.Int32)},
)
TEST = BEHAVIORS.drop("article_ids_clicked", "article_id", "next_read_time").with_columns(
    is_beyond_accuracy=pl.Series([False, False, True])
)


def folder(path: Path, **behaviors: pl.DataFrame) -> str:
    path.mkdir()
    ARTICLES.write_parquet(path / "articles.parquet")
    for split, frame in behaviors.items():
        (path / split).mkdir()
        frame.write_parquet(path / split / "behaviors.parquet", row_group_size=2)
        HISTORY.write_parquet(path / split / "history.parquet")
    return str(path)


def prepare(source: str, output: Path, shard_rows: int = 2) -> list[str]:
    ebnerd = Ebnerd(source, output.parent)
    return write_dataset(
        ebnerd,
        str(output),
        shard_rows=shard_rows,
        overwrite=False,
        progress=lambda split, rows: None,
    )


def test_all_columns_and_rows_pass_through(tmp_path):
    output = tmp_path / "out"
    splits = prepare(
        folder(tmp_path / "in", train=BEHAVIORS, validation=BEHAVIORS, test=TEST), output
    )

    assert splits == ["train", "validation", "test"]
    assert_frame_equal(pl.read_parquet(output / "articles.parquet"), ARTICLES)
    for split, behaviors in (("train", BEHAVIORS), ("validation", BEHAVIORS), ("test", TEST)):
        shards = sorted((output / split).glob("behaviors-*.parquet"))
        assert [len(pl.read_parquet(shard)) for shard in shards] == [2, 1]
        assert_frame_equal(pl.read_parquet(shards), behaviors)
        assert_frame_equal(pl.read_parquet(output / split / "history.parquet"), HISTORY)


def test_shards_are_in_time_order_and_rows_without_a_time_come_last(tmp_path):
    rng = np.random.default_rng(0)
    times = [
        None if rng.random() < 0.1 else TIME + timedelta(seconds=int(s))
        for s in rng.permutation(200) // 3
    ]
    rows = pl.DataFrame(
        {"impression_id": range(200), "impression_time": times, "article_id": [None, 3003065] * 100}
    )
    behaviors = BEHAVIORS[[0] * 200].with_columns(rows.cast(BEHAVIORS.select(rows.columns).schema))
    source = folder(tmp_path / "in", train=behaviors[:90])
    behaviors[90:].write_parquet(tmp_path / "in/train/behaviors2.parquet")
    ebnerd = Ebnerd(source, tmp_path)
    output = tmp_path / "out"
    write_dataset(ebnerd, str(output), shard_rows=30, overwrite=False, progress=lambda *_: None)

    shards = sorted((output / "train").glob("behaviors-*.parquet"))
    assert [len(pl.read_parquet(shard)) for shard in shards] == [30] * 6 + [20]
    expected = behaviors.sort("impression_time", nulls_last=True, maintain_order=True)
    assert_frame_equal(pl.read_parquet(shards), expected)
    split = Dataset.open(str(output), tmp_path / "cache").split("train", 3)
    assert shards_in_time_order(split) == list(range(7))
    assert split.read(0).page_id.to_pylist() == expected["article_id"][:30].to_list()
    untimed = times.count(None)
    assert untimed > 1
    assert ebnerd.notes == [f"train: {untimed} impressions without a time (they come last)"]
    manifest = json.loads((output / "train/manifest.json").read_bytes())
    assert (manifest["rows"], manifest["rows_without_time"]) == (200, untimed)


def test_a_data_set_of_an_earlier_release_is_not_taken_for_one_in_time_order(tmp_path):
    source, output = folder(tmp_path / "in", train=BEHAVIORS), tmp_path / "out"
    prepare(source, output)
    assert prepare(source, output) == []
    manifest = json.loads((output / "train/manifest.json").read_bytes())
    del manifest["parameters"]["order"]
    (output / "train/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        ConfigError, match=r"/train, whose order is nothing and not time\. .*--overw"
    ):
        prepare(source, output)


def test_the_testset_joins_a_data_set_prepared_before(tmp_path):
    output = tmp_path / "out"
    prepare(folder(tmp_path / "ebnerd_small", train=BEHAVIORS, validation=BEHAVIORS), output)
    splits = prepare(folder(tmp_path / "ebnerd_testset", test=TEST), output)

    assert splits == ["test"]
    assert_frame_equal(pl.read_parquet(output / "articles.parquet"), ARTICLES)
    assert_frame_equal(pl.read_parquet(sorted((output / "test").glob("behaviors-*"))), TEST)


@pytest.mark.parametrize(
    "column", ["impression_time", "article_ids_inview", "article_ids_clicked", "user_id"]
)
def test_a_missing_column_is_named(tmp_path, column):
    source = folder(tmp_path / "in", train=BEHAVIORS.drop(column))
    with pytest.raises(SchemaError, match=rf"`{column}` .* is required.*train/behaviors.parquet"):
        Ebnerd(source, tmp_path)


@pytest.mark.parametrize(
    ("missing", "error"),
    [
        ("articles.parquet", "must have the file articles.parquet"),
        (
            "train/history.parquet",
            "must have history.parquet.* Received: behaviors.parquet, in .*/train",
        ),
    ],
)
def test_a_missing_file_is_named(tmp_path, missing, error):
    source = folder(tmp_path / "in", train=BEHAVIORS)
    (tmp_path / "in" / missing).unlink()
    with pytest.raises(SchemaError, match=error):
        Ebnerd(source, tmp_path)


def test_a_folder_without_splits_is_refused(tmp_path):
    with pytest.raises(SchemaError, match="one of the folders train, validation, test"):
        Ebnerd(folder(tmp_path / "in"), tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    source = folder(tmp_path / "in", train=BEHAVIORS)
    path = tmp_path / "in/train/behaviors.parquet"
    data = bytearray(path.read_bytes())
    data[20:200] = bytes(180)  # the footer stays whole
    path.write_bytes(data)
    with pytest.raises(SchemaError, match=r"whole.* Parquet.*train/behaviors.parquet"):
        prepare(source, tmp_path / "out")
    assert not (tmp_path / "out/train/_SUCCESS").exists()


def test_a_split_without_impressions_is_refused(tmp_path):
    with pytest.raises(SchemaError, match="must have impressions"):
        prepare(folder(tmp_path / "in", train=BEHAVIORS.clear()), tmp_path / "out")
