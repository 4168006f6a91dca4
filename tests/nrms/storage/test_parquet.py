"""Our Parquet files on damage: whatever bit is flipped, the file is not taken for whole, and any
reader reads them.
"""

import random
from contextlib import suppress

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nrms.errors import StorageError
from nrms.storage import parquet
from tests.damage import flip

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", None, "z"], "c": [[0.5], [], None]})


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.parquet"
    assert parquet.write(path, TABLE, {b"nrms.plan": b"p"}) == 3
    return path


def test_what_is_written_is_read_and_says_what_it_is(path):
    assert parquet.read(path).equals(TABLE)
    assert parquet.read(path, ["b"]).equals(TABLE.select(["b"]))
    assert parquet.metadata(path)[b"nrms.plan"] == b"p"
    assert parquet.rows(path) == 3


def test_any_reader_reads_it_and_may_verify_its_pages(path):
    assert pq.read_table(path, page_checksum_verification=True).equals(TABLE)
    assert pl.read_parquet(path).to_arrow().column("a").to_pylist() == [1, 2, 3]


def test_tables_are_written_one_after_the_other_and_the_same_bytes_each_time(tmp_path):
    for name in ("x", "y"):
        assert (
            parquet.write(tmp_path / name, iter([TABLE, TABLE.slice(1)]), compression="none") == 5
        )
    assert parquet.read(tmp_path / "x").equals(pa.concat_tables([TABLE, TABLE.slice(1)]))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_what_a_file_said_of_itself_does_not_go_on_to_the_next_one(path, tmp_path):
    table = parquet.read(path).replace_schema_metadata(
        {**parquet.read(path).schema.metadata, b"theirs": b"t"}
    )
    parquet.write(tmp_path / "next", table)
    said = parquet.metadata(tmp_path / "next")
    assert said[b"theirs"] == b"t"
    assert b"nrms.plan" not in said


def test_no_flipped_bit_is_overlooked(path):
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        flip(path, content, bit)
        assert parquet.metadata(path) is None, f"bit {bit} of {8 * len(content)}"


def test_what_can_be_read_of_a_damaged_file_is_what_was_written(path):
    content = path.read_bytes()
    rng = random.Random(0)
    for bit in rng.sample(range(8 * len(content)), 500):
        flip(path, content, bit)
        with suppress(StorageError):  # it is whole where the bit was in the name of the checksum
            assert parquet.read(path).equals(TABLE)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no Parquet at all", b"\xff\xff\xff\xffPAR1"])
def test_what_is_no_parquet_is_neither_whole_nor_read(path, content):
    path.write_bytes(content)
    assert parquet.metadata(path) is None
    with pytest.raises(StorageError, match=r"x\.parquet: is damaged"):
        parquet.read(path)


def test_a_file_cut_short_or_of_somebody_else_is_not_whole(path):
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    assert parquet.metadata(path) is None
    pq.write_table(TABLE, path)
    assert parquet.metadata(path) is None
    assert parquet.read(path).equals(TABLE)
    path.unlink()
    assert parquet.metadata(path) is None
