"""The door: which files come in, and what a user reads about those that do not."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nrms import storage
from nrms.data.articles import Articles
from nrms.data.columns import list_rows, row_numbers, times_us, unnest
from nrms.data.parquet import open_parquet
from nrms.data.quality import OUTCOMES, DataReport
from nrms.data.schema import ARTICLES, BEHAVIORS, HISTORY, Column
from nrms.errors import SchemaError, StorageError

BEHAVIOR_ROWS = {
    "impression_id": pa.array([1, 2]),
    "user_id": pa.array([7, 8]),
    "article_ids_inview": pa.array([[10, 20], [30]]),
}


def write(path: Path, columns: dict[str, pa.Array]) -> storage.FileInfo:
    pq.write_table(pa.table(columns), path)
    return storage.stat(path)


def read(
    info: storage.FileInfo, contract: tuple[Column, ...], families: dict | None = None
) -> dict[str, pa.Array]:
    with open_parquet(
        info, Path("unused"), contract, {} if families is None else families
    ) as reader:
        return reader.read()


def refused(
    info: storage.FileInfo, contract: tuple[Column, ...], families: dict | None = None
) -> str:
    with pytest.raises(SchemaError) as caught:
        read(info, contract, families)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert info.uri in message
    return message


@pytest.mark.parametrize("contract", [ARTICLES, BEHAVIORS, HISTORY])
def test_each_required_column_is_missed_by_name_with_the_row_count(tmp_path, contract):
    values = {
        "id": pa.array([1, 2, 3]),
        "ids": pa.array([[1], [2], [3]]),
        "text": pa.array(["a", "b", "c"]),
    }
    required = {column.name: values[column.kind] for column in contract if column.required}
    assert read(write(tmp_path / "all", required), contract).keys() == required.keys()
    for name in required:
        rest = {other: array for other, array in required.items() if other != name} | {
            "extra": values["id"]
        }
        message = refused(write(tmp_path / "file", rest), contract)
        assert message.startswith(f"Column `{name}` (")
        assert f"Received: 3 rows of columns {', '.join(rest)}, in" in message


@pytest.mark.parametrize(
    ("name", "array", "rule"),
    [
        (
            "impression_id",
            pa.array([1.0, 2.0]),
            "an integer or a string. Received: double (2 rows)",
        ),
        ("user_id", pa.array([True, False]), "an integer or a string. Received: bool"),
        ("user_id", pa.array([b"a", b"b"]), "an integer or a string. Received: binary"),
        (
            "user_id",
            pa.array([{"a": 1}, {"a": 2}]),
            "an integer or a string. Received: struct<a: int64>",
        ),
        (
            "article_ids_inview",
            pa.array([1, 2]),
            "a list of integers or of strings. Received: int64",
        ),
        (
            "article_ids_inview",
            pa.array([[1.5], []]),
            "a list of integers or of strings. Received: list<",
        ),
        (
            "article_ids_inview",
            pa.array([[[1]], []]),
            "a list of integers or of strings. Received: list<",
        ),
        (
            "article_ids_clicked",
            pa.array(["1", "2"]),
            "a list of integers or of strings. Received: string",
        ),
        ("impression_time", pa.array([1, 2]), "a timestamp. Received: int64"),
        ("impression_time", pa.array([1, 2]).cast(pa.date64()), "a timestamp. Received: date32"),
        ("device_type", pa.array(["phone", "tablet"]), "an integer. Received: string"),
        ("opinions", pa.array([0.1, 0.2]), "a list of floats. Received: double"),
    ],
)
def test_a_wrong_type_is_refused_from_the_footer(tmp_path, name, array, rule):
    contract = (*BEHAVIORS, Column("opinions", "numbers", required=False))
    message = refused(write(tmp_path / "file", BEHAVIOR_ROWS | {name: array}), contract)
    assert message.startswith(f"Column `{name}` must be {rule}")
    assert message.endswith("Cast the column to that type.")


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    table = pa.Table.from_arrays(
        [*BEHAVIOR_ROWS.values(), pa.array([1, 2])], [*BEHAVIOR_ROWS, "user_id"]
    )
    pq.write_table(table, tmp_path / "file")
    message = refused(storage.stat(tmp_path / "file"), BEHAVIORS)
    assert message.startswith(
        "Column `user_id` must be there once. Received: 2 of that name (2 rows), in"
    )


INTEGERS = [
    pa.int8(),
    pa.uint8(),
    pa.int16(),
    pa.uint16(),
    pa.int32(),
    pa.uint32(),
    pa.int64(),
    pa.uint64(),
]
STRINGS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]


@pytest.mark.parametrize("id_type", INTEGERS + STRINGS, ids=str)
@pytest.mark.parametrize("as_list", [pa.list_, pa.large_list, lambda item: pa.list_(item, 2)])
def test_ids_may_be_integers_of_any_width_or_strings_in_any_list(tmp_path, id_type, as_list):
    ids = [3, 1, 2, 1]
    if id_type in STRINGS:
        ids = [f"N{i}" for i in ids]
    inview = pa.array(
        [ids[:2], ids[2:]], as_list(pa.int64() if id_type in INTEGERS else pa.string())
    )
    inview = (
        inview.cast(as_list(id_type)) if id_type in INTEGERS else nested(inview, id_type, as_list)
    )
    info = write(
        tmp_path / "file",
        BEHAVIOR_ROWS | {"user_id": pa.array(ids[:2]).cast(id_type), "article_ids_inview": inview},
    )
    families = {}
    columns = read(info, BEHAVIORS, families)
    offsets, flat = unnest(columns["article_ids_inview"])
    table = pa.array(ids[:3])
    assert columns["user_id"].to_pylist() == ids[:2]
    assert offsets.tolist() == [0, 2, 4]
    assert flat.to_pylist() == ids
    assert row_numbers(flat, table).tolist() == [1, 2, 3, 2]
    assert families["article"] == families["user"] == table.type


def nested(lists: pa.Array, item: pa.DataType, as_list) -> pa.Array:
    values = lists.flatten().cast(item)
    if pa.types.is_fixed_size_list(lists.type):
        return pa.FixedSizeListArray.from_arrays(values, 2)
    kind = pa.LargeListArray if pa.types.is_large_list(lists.type) else pa.ListArray
    return kind.from_arrays(lists.offsets, values)


def test_ids_of_one_thing_must_be_of_one_family(tmp_path):
    info = write(tmp_path / "file", BEHAVIOR_ROWS)
    message = refused(info, BEHAVIORS, {"article": pa.string()})
    assert message.startswith(
        "Column `article_ids_inview` must hold article ids of the same type as the other files"
    )
    assert (
        "(string). Received: list<element: int64> (2 rows); its ids begin 10, 20, 30 (int64), in"
        in message
    )


def test_an_id_beyond_int64_is_refused_with_its_value(tmp_path):
    info = write(
        tmp_path / "file",
        {"article_id": pa.array([2**64 - 1], pa.uint64()), "title": pa.array(["a"])},
    )
    with pytest.raises(SchemaError, match=f"{2**64 - 1}.*{info.uri}"):
        Articles.read(info, tmp_path)


def test_columns_of_no_value_are_read_as_absent_or_empty(tmp_path):
    nothing = pa.nulls(2)
    info = write(
        tmp_path / "file",
        BEHAVIOR_ROWS
        | {
            "article_ids_inview": nothing,
            "article_ids_clicked": nothing,
            "impression_time": nothing,
        },
    )
    columns = read(info, BEHAVIORS)
    assert columns.keys() == BEHAVIOR_ROWS.keys()
    assert unnest(columns["article_ids_inview"])[0].tolist() == [0, 0, 0]


def test_columns_beyond_the_contract_are_never_read(tmp_path):
    path = tmp_path / "file"
    write(
        path,
        BEHAVIOR_ROWS
        | {"odd": pa.array([{"a": [1]}, None]), "user_idea": pa.array([b"\xff", b""])},
    )
    metadata = pq.read_metadata(path).row_group(0)
    odd = next(
        metadata.column(i)
        for i in range(metadata.num_columns)
        if "odd" in metadata.column(i).path_in_schema
    )
    content = bytearray(path.read_bytes())
    content[odd.data_page_offset : odd.data_page_offset + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(OSError, match="page header"):
        pq.read_table(path)
    assert read(storage.stat(path), BEHAVIORS).keys() == BEHAVIOR_ROWS.keys()


def test_text_that_is_not_utf8_is_refused(tmp_path):
    titles = pa.array([b"fine", b"\xff\xfe"]).view(pa.string())
    message = refused(
        write(tmp_path / "file", {"article_id": pa.array([1, 2]), "title": titles}), ARTICLES
    )
    assert "Invalid UTF8" in message


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"impression_id,user_id\n1,2\n", bytes(range(256)) * 8]
)
def test_a_file_that_is_not_parquet_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    message = refused(storage.stat(tmp_path / "file"), BEHAVIORS)
    assert message.startswith(
        f"A file must be whole Parquet with readable values. Received: {len(content):,} bytes"
    )


@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.99])
def test_a_truncated_file_is_refused(tmp_path, part):
    path = tmp_path / "file"
    write(path, BEHAVIOR_ROWS)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    assert "whole Parquet" in refused(storage.stat(path), BEHAVIORS)


@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_any_damage_ends_in_a_schema_error_or_in_readable_values(tmp_path, compression):
    path = tmp_path / "file"
    columns = {
        "article_id": pa.array([str(i) for i in range(40)]),
        "title": pa.array(["Ærø i sol"] * 40),
    }
    pq.write_table(pa.table(columns), path, compression=compression)
    content = path.read_bytes()
    rng = random.Random(0)
    refusals = []
    for _ in range(150):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read(storage.stat(path), ARTICLES)
        except SchemaError as error:
            refusals.append(str(error))
    assert len(refusals) > 50
    assert [message for message in refusals if len(message.splitlines()) > 1] == []


def test_a_file_that_changed_since_it_was_listed_is_refused(tmp_path):
    info = write(tmp_path / "file", BEHAVIOR_ROWS)
    write(tmp_path / "file", BEHAVIOR_ROWS | {"user_id": pa.array([70, 80])})
    with pytest.raises(StorageError, match="replaced"):
        read(info, BEHAVIORS)


@pytest.mark.parametrize(
    "stored",
    [
        pa.timestamp("ms"),
        pa.timestamp("us"),
        pa.timestamp("ns"),
        pa.timestamp("us", "UTC"),
        pa.timestamp("ns", "Europe/Copenhagen"),
    ],
    ids=str,
)
def test_times_of_any_unit_and_zone_become_utc_microseconds(stored):
    instants = np.array(["2023-05-18T07:00:00.123", "NaT"], "datetime64[us]")
    times = times_us(pa.array(instants).cast(stored))
    assert times.dtype == instants.dtype
    np.testing.assert_array_equal(times, instants)


def test_nanoseconds_are_cut_to_microseconds():
    assert times_us(pa.array([1_999], pa.timestamp("ns"))).astype(np.int64).tolist() == [1]


def test_a_time_beyond_microseconds_is_refused(tmp_path):
    far = pa.array([2**62, 0], pa.timestamp("ms"))
    with (
        pytest.raises(SchemaError, match="out of bounds"),
        open_parquet(
            write(tmp_path / "file", BEHAVIOR_ROWS | {"impression_time": far}),
            tmp_path,
            BEHAVIORS,
            {},
        ) as reader,
    ):
        times_us(reader.read()["impression_time"])


@pytest.mark.parametrize("id_type", [pa.int32(), pa.string()], ids=str)
def test_row_numbers_count_from_one_and_unknown_is_zero(id_type):
    table = pa.array([30, 10, 20]).cast(pa.int64() if pa.types.is_integer(id_type) else id_type)
    assert row_numbers(pa.array([10, None, 20, 99, 30]).cast(id_type), table).tolist() == [
        2,
        0,
        3,
        0,
        1,
    ]


def test_unnest_keeps_rows_apart_and_reads_null_lists_as_empty():
    lists = pa.array([[9], [1, 2], None, [], [3]]).slice(1)
    offsets, values = unnest(lists)
    assert offsets.tolist() == [0, 2, 2, 2, 3]
    assert values.to_pylist() == [1, 2, 3]
    assert list_rows(offsets).tolist() == [0, 0, 3]


def test_reports_add_up_and_read_as_sentences():
    report = DataReport({"null_time": 2, "click_not_in_view": 0}) + DataReport(
        {"null_time": 1, "candidates": 4000}
    )
    assert report.as_dict() == {"null_time": 3, "candidates": 4000}
    assert report["null_time"] == 3
    assert report.lines() == ["3 impressions without a time", "4,000 candidates"]
    with pytest.raises(KeyError, match="Received: typo"):
        report.add("typo", 1)
    assert len(set(OUTCOMES.values())) == len(OUTCOMES)
