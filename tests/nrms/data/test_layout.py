"""Which files of a split are read, and that none is passed over in silence."""

import json
from datetime import datetime

import polars as pl
import pyarrow as pa
import pytest

from nrms import storage
from nrms.data.dataset import Dataset
from nrms.data.partitions import partition_keys
from nrms.errors import SchemaError
from nrms.sources.ebnerd import Ebnerd
from nrms.sources.writer import write_dataset
from tests.small_data import BEHAVIORS, HISTORY, Folder


@pytest.fixture
def integers(tmp_path) -> Folder:
    return Folder(tmp_path / "data", strings=False)


def rows(table: dict, *which: int) -> dict:
    return {name: [values[row] for row in which] for name, values in table.items()}


def scattered(folder: Folder, behaviors: list[str], history: list[str]) -> Folder:
    """The two impressions in two files, and the three readers in two."""
    folder.write_all()
    (folder.path / "train/behaviors.parquet").unlink()
    (folder.path / "train/history.parquet").unlink()
    for name, row in zip(behaviors, (0, 1), strict=True):
        folder.write(f"train/{name}", rows(BEHAVIORS, row))
    for name, which in zip(history, ((0,), (1, 2)), strict=True):
        folder.write(f"train/{name}", rows(HISTORY, *which))
    return folder


PLACES = {
    "shards": ("{}-0.parquet", "{}-1.parquet"),
    "folder": ("{}/a.parquet", "{}/b.parquet"),
    "a file beside a folder": ("{}-0.parquet", "{}/b.parquet"),
    "partitions": ("{}/date=2026-03-02/part-0.parquet", "{}/date=2026-03-03/part-0.parquet"),
    "partitions beside files": ("{}/a.parquet", "{}/date=2026-03-02/part-0.parquet"),
    "partitions of partitions": (
        "{}/year=2026/month=3/x.parquet",
        "{}/year=2026/month=4/x.parquet",
    ),
    "as Spark names the folder": (
        "{}.parquet/date=2026-03-02/part-0.parquet",
        "{}.parquet/part-0.snappy.parquet",
    ),
}


@pytest.mark.parametrize("places", PLACES)
def test_every_shard_is_read_wherever_it_lies(integers, places):
    """Straight from the folder, and by way of jobs.prepare."""
    names = [[place.format(stem) for place in PLACES[places]] for stem in ("behaviors", "history")]
    scattered(integers, *names)
    split = integers.split()
    assert list(split.files) == [*names[0], *names[1]]
    assert [split.read(i).impression_id.to_pylist() for i in range(len(split))] == [[1], [2]]
    assert split.histories.users.to_pylist() == [7, 8, 9]
    assert split.histories.rows.tolist() == [[0, 0, 0], [1, 3, 0], [4, 0, 0], [0, 0, 0]]
    assert split.warnings == []

    out = integers.path.parent / "out"
    write_dataset(
        Ebnerd(str(integers.path), out),
        str(out),
        shard_rows=9,
        overwrite=False,
        progress=lambda *_: None,
    )
    prepared = Dataset.open(str(out), out).split("train", 3)
    impressions = prepared.read(0)
    assert impressions.impression_id.to_pylist() == [1, 2]
    assert impressions.candidates.tolist() == [1, 2, 3, 2, 4]
    assert prepared.histories.rows.tolist() == split.histories.rows.tolist()
    manifest = json.loads((out / "train/manifest.json").read_bytes())
    assert list(manifest["parameters"]["input"]) == ["articles.parquet", *names[0], *names[1]]


def test_a_bucket_is_laid_out_as_a_folder_is(integers, bucket, tmp_path):
    places = ["behaviors/device_type=1/a.parquet", "behaviors/device_type=2/a.parquet"]
    scattered(integers, places, ["history/h=a/a.parquet", "history/h=b/b.parquet"])
    for path in integers.path.rglob("*.parquet"):
        storage.upload(path, f"{bucket}/{path.relative_to(integers.path).as_posix()}")
    split = Dataset.open(bucket, tmp_path / "cache").split("train", 3)
    assert [split.read(i).device.tolist() for i in range(2)] == [[1], [2]]
    storage.write_bytes(b"", f"{bucket}/train/behaviors/_temporary/0/x")
    with pytest.raises(SchemaError, match="_temporary/0/x: the work of a Spark"):
        Dataset.open(bucket, tmp_path / "cache").split("train", 3)


STRAY = {
    "a folder within the folder": "behaviors/part2/x.parquet",
    "a key after a folder": "behaviors/part2/date=2026-03-02/x.parquet",
    "another folder": "old/behaviors.parquet",
    "another name": "predictions.parquet",
    "a name in capitals": "Behaviors-2.parquet",
    "a suffix in capitals": "behaviors-2.PARQUET",
    "another suffix": "history-2.parq",
    "packed": "behaviors-2.parquet.gz",
    "still being written": "behaviors/part-2.parquet.tmp",
}


@pytest.mark.parametrize("case", STRAY)
@pytest.mark.parametrize("door", ["the data set", "jobs.prepare"])
def test_a_parquet_file_that_would_not_be_read_is_refused_by_name(integers, case, door):
    integers.write_all()
    integers.write(f"train/{STRAY[case]}", BEHAVIORS)
    with pytest.raises(SchemaError, match=r"Every Parquet file of a split must be") as caught:
        integers.split() if door == "the data set" else Ebnerd(str(integers.path), integers.path)
    assert (
        f"Received: 1 that would not be read: {STRAY[case]}, in {integers.path}/train. Move"
        in str(caught.value)
    )


SIGNS = {
    "Delta": (
        "behaviors/_delta_log/00000000000000000000.json",
        "a Delta table",
        "polars.read_delta",
    ),
    "Delta of the split": (
        "_delta_log/00000000000000000000.json",
        "a Delta table",
        "polars.read_delta",
    ),
    "Iceberg": ("history/metadata/v2.metadata.json", "an Iceberg table", "polars.scan_iceberg"),
    "Hudi": ("behaviors/.hoodie/hoodie.properties", "a Hudi table", "with Spark"),
    "a Spark stream": ("behaviors/_spark_metadata/0", "the log of a Spark stream", "batch job"),
    "an unfinished Spark job": (
        "behaviors/_temporary/0/task/part-1.parquet",
        "has not ended",
        "remove that folder",
    ),
}


@pytest.mark.parametrize("case", SIGNS)
def test_a_table_whose_files_are_not_its_rows_is_refused_with_the_remedy(integers, case):
    sign, what, todo = SIGNS[case]
    integers.write_all()
    path = integers.path / "train" / sign
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{}")
    with pytest.raises(
        SchemaError, match=rf"must be plain Parquet files\. Received: {sign}: .*{what}.*{todo}"
    ):
        integers.split()


def test_checksums_of_a_job_that_may_not_have_ended_are_refused_until_it_has(integers):
    scattered(
        integers,
        ["behaviors/a.parquet", "behaviors/b.parquet"],
        ["history-0.parquet", "history-1.parquet"],
    )
    folder = integers.path / "train/behaviors"
    (folder / ".a.parquet.crc").touch()
    with pytest.raises(
        SchemaError, match=r"must have the file _SUCCESS\. Received: behaviors/\.a\.parquet\.crc"
    ):
        integers.split()
    (folder / "_SUCCESS").touch()
    assert integers.split().rows == 2


def test_what_a_folder_holds_beside_parquet_is_said(integers):
    integers.write_all()
    for name in ("behaviors-2.csv", "history.tsv.gz", "README.txt", ".behaviors-3.csv"):
        (integers.path / "train" / name).touch()
    (warning,) = integers.split().warnings
    assert warning == "train: not read, being no Parquet: behaviors-2.csv, history.tsv.gz."
    for path in (integers.path / "train").glob("behaviors*.parquet"):
        path.unlink()
    with pytest.raises(
        SchemaError,
        match=r"Received: README\.txt, behaviors-2\.csv, history\.parquet, history\.tsv\.gz, in",
    ):
        integers.split()


def test_what_lies_where_a_data_set_should_be_is_described(integers, tmp_path):
    def refusal(path: object) -> str:
        with pytest.raises(SchemaError, match=r"must have the file articles\.parquet") as caught:
            Dataset.open(str(path), tmp_path / "cache")
        return str(caught.value)

    integers.write_all()
    assert "Received: a file, not a folder, in" in refusal(integers.path / "articles.parquet")
    assert "Received: no such folder, in" in refusal(integers.path / "missing")
    (tmp_path / "empty").mkdir()
    assert "Received: an empty folder, in" in refusal(tmp_path / "empty")
    (integers.path / "articles.parquet").rename(integers.path / "articles.csv")
    assert (
        "Received: a folder of articles.csv, train/behaviors.parquet, train/history.parquet, in"
        in refusal(integers.path)
    )


def test_a_split_of_another_name_is_offered(integers):
    integers.write_all()
    (integers.path / "train").rename(integers.path / "valid")
    with pytest.raises(
        SchemaError, match=r"no such folder; splits beside it: valid, in .*--validation-split"
    ):
        integers.split(name="validation")


def test_articles_may_lie_beside_the_split(integers):
    integers.write_all()
    (integers.path / "articles.parquet").rename(integers.path / "train/articles.parquet")
    dataset = Dataset.open(str(integers.path / "train"), integers.path)
    assert dataset.split(".", 3).rows == 2


# --- the keys of folders as columns


def test_keys_come_from_the_folders_of_the_table_alone():
    assert partition_keys("data/train/behaviors/a=1/b=x%3Ay/part-0.parquet") == {
        "a": "1",
        "b": "x:y",
    }
    assert partition_keys("train/history.parquet/c=__HIVE_DEFAULT_PARTITION__/x.parquet") == {
        "c": None
    }
    assert partition_keys("user_id=1/train/behaviors/a.parquet") == {}
    assert partition_keys("date=2026-03-02/articles.parquet") == {}


def test_a_key_stands_for_a_column_that_the_file_lacks(integers):
    folder = scattered(
        integers,
        [
            "behaviors/device_type=2/user_id=7/a.parquet",
            "behaviors/device_type=3/user_id=8/a.parquet",
        ],
        ["history/user_id=7/a.parquet", "history/user_id=9/a.parquet"],
    )
    for row, path in enumerate(sorted((folder.path / "train/behaviors").rglob("*.parquet"))):
        folder.write(str(path.relative_to(folder.path)), rows(BEHAVIORS, row) | {"user_id": None})
    folder.write("train/history/user_id=9/a.parquet", rows(HISTORY, 2) | {"user_id": None})
    folder.write("train/history/user_id=7/a.parquet", rows(HISTORY, 0) | {"user_id": None})
    split = folder.split()
    assert split.histories.users.to_pylist() == [7, 9]
    assert [split.read(i).user_id.to_pylist() for i in range(2)] == [[7], [8]]
    assert [split.read(i).user.tolist() for i in range(2)] == [[1], [0]]
    assert [split.read(i).device.tolist() for i in range(2)] == [[2], [3]]
    assert [split.read(i).device.dtype for i in range(2)] == ["int32"] * 2


def test_keys_are_ids_as_the_other_files_have_them(tmp_path):
    folder = Folder(tmp_path, strings=True)
    folder.write_all()
    (folder.path / "train/behaviors.parquet").unlink()
    for user in ("N7", "007"):
        folder.write(
            f"train/behaviors/user_id={user}/a.parquet", rows(BEHAVIORS, 0) | {"user_id": None}
        )
    split = folder.split()
    assert [split.read(i).user_id.to_pylist() for i in range(2)] == [["007"], ["N7"]]
    assert [split.read(i).user.tolist() for i in range(2)] == [[0], [1]]


def test_a_time_may_be_a_key_and_a_null_key_is_null(integers):
    integers.write_all()
    (integers.path / "train/behaviors.parquet").unlink()
    for name in (
        "impression_time=2023-05-18 07%3A00%3A00",
        "impression_time=__HIVE_DEFAULT_PARTITION__",
    ):
        integers.write(f"train/behaviors/{name}/a.parquet", BEHAVIORS | {"impression_time": None})
    times = [impressions.time for impressions in map(integers.split().read, range(2))]
    assert times[0].tolist() == [datetime(2023, 5, 18, 7)] * 2
    assert times[1] is None


def test_the_file_s_own_column_counts_whatever_the_folder_says(integers):
    places = ["behaviors/user_id=99/a.parquet", "behaviors/user_id=99/b.parquet"]
    split = scattered(integers, places, ["history-0.parquet", "history-1.parquet"]).split()
    assert [split.read(i).user_id.to_pylist() for i in range(2)] == [[7], [8]]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (
            "device_type=phone",
            "Column `device_type` must be an integer. Received: the folder device_type=phone",
        ),
        (
            "impression_time=today",
            "Column `impression_time` must be a timestamp. Received: the folder",
        ),
    ],
)
def test_a_key_that_is_no_value_of_its_column_is_refused(integers, name, rule):
    integers.write_all()
    integers.write(f"train/behaviors/{name}/a.parquet", BEHAVIORS | {"impression_time": None})
    with pytest.raises(SchemaError, match=rule):
        integers.split()


def test_prepare_keeps_every_key_as_a_column_and_what_one_shard_lacks_as_null(integers):
    integers.write_all()
    (integers.path / "train/behaviors.parquet").unlink()
    integers.write("train/behaviors/a.parquet", rows(BEHAVIORS, 0) | {"session_id": pa.array([5])})
    integers.write("train/behaviors/country=dk/b.parquet", rows(BEHAVIORS, 1))
    out = integers.path / "out"
    write_dataset(
        Ebnerd(str(integers.path), out),
        str(out),
        shard_rows=9,
        overwrite=False,
        progress=lambda *_: None,
    )
    written = pl.read_parquet(out / "train/behaviors-00000.parquet")
    assert written.select("impression_id", "session_id", "country").rows() == [
        (1, 5, None),
        (2, None, "dk"),
    ]
