"""Columns with more text than Arrow's 32-bit offsets reach, from files of some kilobytes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nrms import storage
from nrms.data.articles import Articles
from nrms.data.dataset import Dataset
from nrms.data.unreadable import cause
from nrms.errors import SchemaError
from nrms.sources.ebnerd import Ebnerd
from nrms.sources.writer import _join_articles, write_dataset
from tests.small_data import Folder

LIMIT = 2**31
TEXT = "x" * 2**16
ROWS = LIMIT // len(TEXT) + 1_000


def chunks() -> tuple[pa.Array, int]:
    """A text, and the number of its copies that are too long together."""
    text = pa.array(["x" * 2**26])
    return text, LIMIT // 2**26 + 1


def test_articles_are_joined_without_joining_their_text():
    text, count = chunks()
    bodies = pa.chunked_array([text] * count)  # one buffer, however often
    with pytest.raises(pa.ArrowInvalid, match="offset overflow"):
        bodies.take(pa.array([0, count - 1]))
    ids = [1] * (count - 1) + [2]
    incoming = pa.table({"article_id": ids, "title": ["t"] * count, "body": bodies})
    articles, conflicts = _join_articles(incoming.slice(0, 0), incoming, "articles.parquet")
    assert articles["article_id"].to_pylist() == [1, 2]
    assert [len(chunk) for chunk in articles["body"].chunks if len(chunk)] == [1, 1]
    assert conflicts == 0


def test_the_cause_is_told_from_damage():
    text, count = chunks()
    with pytest.raises(pa.ArrowInvalid) as caught:
        pa.chunked_array([text] * count).combine_chunks()
    rule, todo = cause(caught.value)
    assert rule == "A column must have less than 2 GiB of text in one file."
    assert "several files" in todo


def repeated() -> pa.DictionaryArray:
    """The same text in each row. A file holds the text once, and a number for each row."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * ROWS, pa.int32()), pa.array([TEXT]))


def lists() -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(range(ROWS + 1), pa.int32()), repeated())


@pytest.mark.long  # 2 GiB have to be decoded, compressed and written
@pytest.mark.parametrize("values", [repeated, lists])
def test_prepare_passes_columns_of_any_size_through(tmp_path, values):
    folder = Folder(tmp_path / "in", strings=False)
    folder.write_all()
    titles = pa.array(["a"] * ROWS)
    columns = {"article_id": pa.array(range(ROWS)), "title": titles, "body": values()}
    path = folder.write("articles.parquet", columns, store_schema=False)
    assert path.stat().st_size < 2**20
    out = tmp_path / "out"
    write_dataset(
        Ebnerd(str(folder.path), out),
        str(out),
        shard_rows=9,
        overwrite=False,
        progress=lambda *_: None,
    )
    assert len(Dataset.open(str(out), out).articles) == ROWS
    with pq.ParquetFile(out / "articles.parquet") as file:
        first = next(file.iter_batches(1, columns=["body"]))["body"][0].as_py()
    assert first in (TEXT, [TEXT])


@pytest.mark.long
def test_a_column_that_has_to_be_read_at_once_is_named(tmp_path):
    folder = Folder(tmp_path, strings=True)
    folder.write_all()
    ids = pa.array(map(str, range(ROWS)))
    folder.write(
        "train/behaviors.parquet",
        {"impression_id": ids, "user_id": ids, "article_ids_inview": lists()},
        store_schema=False,
    )
    split = folder.split()
    with pytest.raises(
        SchemaError,
        match=r"less than 2 GiB of text.* in column `article_ids_inview` with.*several files",
    ):
        split.read(0)
    titles = {"article_id": ids, "title": repeated()}
    path: Path = folder.write("articles.parquet", titles, store_schema=False)
    with pytest.raises(
        SchemaError, match=r"less than 2 GiB of text.* in column `title` with.*several files"
    ):
        Articles.read(storage.stat(path), tmp_path)
