"""Files as other people's tools write them, through the three doors: a data set, `jobs.prepare`,
and an upload.

Each kind gives the same by all three: the rows of the plain files, or one line that names the
column and the remedy.
"""

import base64
import gzip
import shutil
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from api.uploads.contract import Task
from api.uploads.parquet_files import decode
from nrms import storage
from nrms.data.articles import Articles
from nrms.data.dataset import Dataset
from nrms.data.split import Split
from nrms.errors import SchemaError
from nrms.sources.ebnerd import Ebnerd
from nrms.sources.writer import write_dataset
from tests import thrift
from tests.small_data import (
    ARTICLES,
    BEHAVIORS,
    CANDIDATES,
    CLICKED,
    HISTORIES,
    HISTORY,
    Folder,
    at,
)

Change = Callable[[Folder], object]
PLAIN = {"candidates": CANDIDATES, "clicked": CLICKED, "histories": HISTORIES, "time": at(0, 5)}
NS, MS = pa.timestamp("ns"), pa.timestamp("ms")
NAMES = {
    "articles.parquet": ARTICLES,
    "train/behaviors.parquet": BEHAVIORS,
    "train/history.parquet": HISTORY,
}


def by_data_set(folder: Folder) -> Split:
    return folder.split()


def by_prepare(folder: Folder) -> Split:
    out = folder.path / "prepared"
    write_dataset(
        Ebnerd(str(folder.path), out),
        str(out),
        shard_rows=9,
        overwrite=False,
        progress=lambda *_: None,
    )
    return Dataset.open(str(out), out).split("train", 3)


def by_upload(folder: Folder) -> Split:
    """As the service reads an upload, but in this process."""
    upload = folder.path / "scratch"
    upload.mkdir()
    for name, given in (
        ("file", "train/behaviors"),
        ("history", "train/history"),
        ("articles", "articles"),
    ):
        shutil.copy(folder.path / f"{given}.parquet", upload / name)
    limits = dict.fromkeys(
        ("max_impressions", "max_candidates", "max_entries", "max_articles"), 1_000
    )
    decode(
        Task(
            folder=str(upload),
            events=False,
            strings=folder.strings,
            memory_bytes=1 << 30,
            seconds=9.0,
            **limits,
        )
    )
    info = storage.stat(upload / "articles.parquet")
    return Dataset(str(upload), upload, info, Articles.read(info, upload)).split("upload", 3)


DOORS = {"data set": by_data_set, "prepare": by_prepare, "upload": by_upload}


def written(name: str, columns: dict, **options: object) -> Change:
    """A change of one file: other columns, or other options of the writer."""
    return lambda folder: folder.write(name, NAMES[name] | columns, **options)


def replaced(name: str, content: Callable[[bytes], bytes]) -> Change:
    def change(folder: Folder) -> None:
        path = folder.path / name
        path.write_bytes(content(path.read_bytes()))

    return change


def encrypted(name: str, column: str, plaintext_footer: bool = True) -> Change:
    class Kms(pe.KmsClient):
        def wrap_key(self, key, master):
            return base64.b64encode(key)

        def unwrap_key(self, key, master):
            return base64.b64decode(key)

    def change(folder: Folder) -> None:
        options = pe.EncryptionConfiguration(
            "k",
            column_keys={"k": [column]},
            plaintext_footer=plaintext_footer,
            double_wrapping=False,
        )
        properties = pe.CryptoFactory(lambda _: Kms()).file_encryption_properties(
            pe.KmsConnectionConfig(), options
        )
        table = pq.read_table(folder.path / name)
        with pq.ParquetWriter(
            folder.path / name, table.schema, encryption_properties=properties
        ) as writer:
            writer.write_table(table)

    return change


def codec(name: str, column: int, number: int) -> Change:
    def change(metadata: thrift.Struct) -> None:
        thrift.put(thrift.chunk(metadata, column), thrift.CODEC, number)

    return replaced(name, lambda content: thrift.forged(content, change))


def views(name: str, **kinds: pa.DataType) -> Change:
    """Columns as views, beside one of bytes and one of a list of text, which nobody reads."""

    def change(folder: Folder) -> None:
        table = pq.read_table(folder.path / name)
        for column, kind in kinds.items():
            array = pa.array(table[column].to_pylist(), kind)
            table = table.set_column(table.column_names.index(column), column, array)
        rows = len(table)
        table = table.append_column("blob", pa.array([b"b"] * rows, pa.binary_view()))
        table = table.append_column("topics", pa.array([["t"]] * rows, pa.list_(pa.string_view())))
        pq.write_table(table, folder.path / name)

    return change


def history_times(kind: pa.DataType) -> Change:
    return written(
        "train/history.parquet",
        {"impression_time_fixed": pa.array(HISTORY["impression_time_fixed"], kind)},
    )


FAR = [[datetime(9999, 12, 31), at(-8)[0]], at(-7), []]
# what counts of a history that begins with FAR
LATE = {"histories": [[0, 0, 0], [3, 0, 0], [4, 0, 0], [0, 0, 0]]}
READ: dict[str, tuple[Change, dict]] = {
    "far future": (written("train/history.parquet", {"impression_time_fixed": FAR}), LATE),
    "far future as INT96": (
        written(
            "train/history.parquet",
            {"impression_time_fixed": FAR},
            use_deprecated_int96_timestamps=True,
        ),
        LATE,
    ),
    "far future as INT96, of impressions": (
        written(
            "train/behaviors.parquet",
            {"impression_time": [at(0)[0], datetime(9999, 12, 31)]},
            use_deprecated_int96_timestamps=True,
        ),
        {"time": [at(0)[0], datetime(9999, 12, 31)]},
    ),
    "nanoseconds": (
        written(
            "train/history.parquet",
            {"impression_time_fixed": pa.array(HISTORY["impression_time_fixed"], pa.list_(NS))},
        ),
        {},
    ),
    "milliseconds in large lists": (
        written(
            "train/history.parquet",
            {
                "impression_time_fixed": pa.array(
                    HISTORY["impression_time_fixed"], pa.large_list(MS)
                )
            },
        ),
        {},
    ),
    "titles as views": (views("articles.parquet", title=pa.string_view()), {}),
    "views beside the contract's columns": (views("train/behaviors.parquet"), {}),
    "a device beyond 32 bits": (
        written("train/behaviors.parquet", {"device_type": pa.array([2**40, 2])}),
        {"device": [0, 2], "unknown_device": 1},
    ),
    "a device beyond 63 bits": (
        written("train/behaviors.parquet", {"device_type": pa.array([2**64 - 1, 2], pa.uint64())}),
        {"device": [0, 2], "unknown_device": 1},
    ),
    "impressions beyond int64": (
        written(
            "train/behaviors.parquet", {"impression_id": pa.array([1, 2**64 - 1], pa.uint64())}
        ),
        {"impression_id": [1, 2**64 - 1]},
    ),
    "unsigned ids": (
        written("train/behaviors.parquet", {"user_id": pa.array([7, 8], pa.uint64())}),
        {},
    ),
    "times of two zones": (
        history_times(pa.list_(pa.timestamp("us", "Europe/Copenhagen"))),
        {"warnings": 1},
    ),
}


def found(split: Split) -> dict[str, object]:
    (impressions,) = [split.read(i) for i in range(len(split))]
    return {
        "candidates": impressions.candidates.tolist(),
        "clicked": impressions.clicked.tolist(),
        "time": impressions.time.tolist(),
        "histories": split.histories.rows.tolist(),
        "impression_id": impressions.impression_id.to_pylist(),
        "device": None if impressions.device is None else impressions.device.tolist(),
        "unknown_device": split.report["unknown_device"],
        "warnings": len(split.warnings),
    }


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", READ)
def test_it_is_read_the_same_through_each_door(tmp_path, case, door):
    change, expected = READ[case]
    folder = Folder(tmp_path, strings=False)
    folder.write_all()
    change(folder)
    nothing = {"impression_id": [1, 2], "device": None, "unknown_device": 0, "warnings": 0}
    assert found(DOORS[door](folder)) == PLAIN | nothing | expected


class Refused(NamedTuple):
    change: Change
    rule: str
    received: str
    todo: str


def ids(name: str, column: str, array: pa.Array) -> Refused:
    rule = f"Column `{column}` must hold integers below 2^63, or strings."
    return Refused(written(name, {column: array}), rule, f"{2**64 - 1} (", "ids to strings")


def looks(
    name: str, content: Callable[[bytes], bytes], like: str, todo: str = "Write it as Parquet"
) -> Refused:
    return Refused(
        replaced(name, content),
        "A file must be whole Parquet",
        f"look like {like}, not Parquet",
        todo,
    )


B, H, A = "train/behaviors.parquet", "train/history.parquet", "articles.parquet"
BIG = pa.array([7, 2**64 - 1], pa.uint64())
CSV = pl.DataFrame({"impression_id": [1], "user_id": ["é"]}).write_csv().encode()
REFUSED = {
    "users beyond int64": ids(B, "user_id", BIG),
    "readers beyond int64": ids(H, "user_id", pa.array([7, 8, 2**64 - 1], pa.uint64())),
    "articles beyond int64": ids(A, "article_id", pa.array([10, 20, 30, 2**64 - 1], pa.uint64())),
    "candidates beyond int64": ids(
        B, "article_ids_inview", pa.array([[10, 2**64 - 1], [20]], pa.list_(pa.uint64()))
    ),
    "clicks beyond int64": ids(
        B, "article_ids_clicked", pa.array([[2**64 - 1], [20]], pa.list_(pa.uint64()))
    ),
    "history beyond int64": ids(
        H, "article_id_fixed", pa.array([[10, 2**64 - 1], [40], []], pa.large_list(pa.uint64()))
    ),
    "milliseconds out of range": Refused(
        written(B, {"impression_time": pa.array([2**62, 0], MS)}),
        "Column `impression_time` must hold times that fit in microseconds.",
        "out of bounds timestamp: 4611686018427387904' (timestamp[ms])",
        "Write null for what is no time",
    ),
    "milliseconds of a history out of range": Refused(
        written(H, {"impression_time_fixed": pa.array([[0, 2**62], [1], []], pa.list_(MS))}),
        "Column `impression_time_fixed` must hold times that fit in microseconds.",
        "out of bounds timestamp",
        "Write null for what is no time",
    ),
    "an encrypted footer": Refused(
        encrypted(B, "user_id", plaintext_footer=False),
        "A file must not be encrypted.",
        "fail with",
        "without encryption",
    ),
    "an encrypted column": Refused(
        encrypted(B, "user_id"),
        "A file must not be encrypted.",
        "fail in column `user_id` with",
        "without encryption",
    ),
    "an encrypted column of a history": Refused(
        encrypted(H, "article_id_fixed.list.element"),
        "A file must not be encrypted.",
        "fail in column `article_id_fixed` with",
        "without encryption",
    ),
    "a codec that is not built in": Refused(
        codec(A, 1, 3),
        "A file must use encodings and codecs",
        "fail in column `title` with",
        "zstd or snappy",
    ),
    "a codec of tomorrow": Refused(
        codec(H, 0, 99),
        "A file must use encodings and codecs",
        "fail in column `user_id` with",
        "zstd or snappy",
    ),
    "CSV": looks(B, lambda _: CSV, "CSV"),
    "CSV with a byte order mark": looks(H, lambda _: b"\xef\xbb\xbf" + CSV, "CSV"),
    "CSV of Windows": looks(A, lambda _: CSV.decode().encode("utf-16"), "CSV"),
    "TSV": looks(B, lambda _: CSV.replace(b",", b"\t"), "TSV", "jobs.prepare --source mind"),
    "JSON": looks(H, lambda _: b'[{"user_id": 1}]', "JSON"),
    "text": looks(B, lambda _: b"hello\n", "text"),
    "HTML": looks(
        B, lambda _: b"\n<!DOCTYPE html><html>", "HTML or XML", "Download the file itself"
    ),
    "gzip": looks(A, gzip.compress, "gzip", "Unpack it"),
    "zip": looks(B, lambda content: b"PK\3\4" + content, "a zip or Excel file", "Unpack it"),
    "Feather": looks(B, lambda content: b"ARROW1" + content, "Arrow IPC or Feather"),
    "Git LFS": looks(
        B,
        lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "a pointer of Git LFS",
        "git lfs pull",
    ),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_the_same_words_at_each_door(tmp_path, case, door):
    change, rule, received, todo = REFUSED[case]
    folder = Folder(tmp_path, strings=False)
    folder.write_all()
    change(folder)
    with pytest.raises(SchemaError) as caught:
        found(DOORS[door](folder))
    parts = caught.value.parts
    assert parts["rule"].startswith(rule)
    assert received in parts["received"]
    assert todo in parts["todo"]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("door", DOORS)
def test_ids_of_text_may_be_views(tmp_path, door):
    folder = Folder(tmp_path, strings=True)
    folder.write_all()
    lists = pa.list_(pa.string_view())
    views(A, article_id=pa.string_view(), title=pa.string_view())(folder)
    views(B, user_id=pa.string_view(), article_ids_inview=lists, article_ids_clicked=lists)(folder)
    views(H, user_id=pa.string_view(), article_id_fixed=lists)(folder)
    split = DOORS[door](folder)
    assert found(split)["candidates"] == CANDIDATES
    assert split.read(0).user_id.to_pylist() == ["N7", "N8"]
    assert split.histories.rows.tolist() == HISTORIES


@pytest.mark.parametrize("door", ["data set", "upload"])
def test_an_encrypted_column_that_nobody_reads_is_none_of_our_business(tmp_path, door):
    folder = Folder(tmp_path, strings=False)
    folder.write_all(behaviors={"secret": [1, 2]})
    encrypted(B, "secret")(folder)
    assert found(DOORS[door](folder))["candidates"] == CANDIDATES


def test_prepare_keeps_every_column_so_an_encrypted_one_is_refused_by_name(tmp_path):
    folder = Folder(tmp_path, strings=False)
    folder.write_all(behaviors={"secret": [1, 2]})
    encrypted(B, "secret")(folder)
    with pytest.raises(SchemaError, match=r"must not be encrypted.*in column `secret`"):
        by_prepare(folder)


def test_views_pass_through_prepare_as_plain_text_and_lists(tmp_path):
    folder = Folder(tmp_path, strings=False)
    folder.write_all()
    views(A, title=pa.string_view())(folder)
    by_prepare(folder)
    written = pq.read_table(tmp_path / "prepared/articles.parquet")
    assert written.to_pydict() == ARTICLES | {"blob": [b"b"] * 4, "topics": [["t"]] * 4}
    assert written.schema.field("title").type == pa.string()


def test_prepare_joins_views_to_articles_of_another_split(tmp_path):
    folder = Folder(tmp_path, strings=False)
    folder.write_all()
    by_prepare(folder)
    shutil.rmtree(tmp_path / "train")
    folder.write("validation/behaviors.parquet", BEHAVIORS)
    folder.write("validation/history.parquet", HISTORY)
    folder.write(A, {"article_id": [40, 50], "title": pa.array(["other", "e"], pa.string_view())})
    out = tmp_path / "prepared"
    source = Ebnerd(str(tmp_path), out)
    write_dataset(source, str(out), shard_rows=9, overwrite=False, progress=lambda *_: None)
    assert pq.read_table(out / "articles.parquet").to_pydict() == {
        "article_id": [10, 20, 30, 40, 50],
        "title": ["a", "b", "c", "d", "e"],
    }
    assert source.notes == ["1 articles with another title than before (the first is kept)"]
