"""An external sort gives what a sort in memory gives, in the memory of a few runs."""

from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from nrms.sources import time_sort
from nrms.sources.time_sort import sorted_by_time

START = datetime(2026, 3, 1)
STRUCT = pa.struct({"a": pa.int32(), "b": pa.list_(pa.int32())})


def minutes(values) -> list[datetime | None]:
    return [None if value is None else START + timedelta(minutes=int(value)) for value in values]


def tables(times: list, sizes: list[int]) -> list[pa.Table]:
    """The rows in tables of these sizes, each with its number and columns of many types."""
    found, start = [], 0
    for size in sizes:
        rows = range(start, start + size)
        columns = {
            "row": (rows, pa.uint32()),
            "impression_time": (times[start : start + size], pa.timestamp("ms")),
            "ids": ([[str(row)] * (row % 4) or None for row in rows], pa.list_(pa.string())),
            # Each table has another dictionary.
            "kind": ([f"k{row % 7}" for row in rows], pa.dictionary(pa.int32(), pa.string())),
            "structs": ([{"a": row, "b": [row]} for row in rows], STRUCT),
            "map": ([[("x", row)] for row in rows], pa.map_(pa.string(), pa.int32())),
            "price": ([Decimal(row) for row in rows], pa.decimal128(9, 2)),
        }
        found.append(pa.table({name: pa.array(*column) for name, column in columns.items()}))
        start += size
    return found


def in_memory(parts: list[pa.Table]) -> list[dict]:
    rows = [row for part in parts for row in part.to_pylist()]
    return sorted(rows, key=lambda row: row["impression_time"] or datetime.max)


@pytest.fixture(params=[(10, 2), (10, 3), (40, 4), (100_000, 64)], ids=str)
def small(request, monkeypatch):
    """Runs of so few rows, and so few of them merged at once."""
    monkeypatch.setattr(time_sort, "_RUN_ROWS", request.param[0])
    monkeypatch.setattr(time_sort, "_WAYS", request.param[1])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("order", ["random", "sorted", "reversed", "blocks", "equal", "untimed"])
def test_it_is_a_stable_sort_whatever_the_order(tmp_path, order):
    rng = np.random.default_rng(1)
    times = {
        "random": rng.integers(0, 60, 300).tolist(),
        "sorted": sorted(rng.integers(0, 60, 300).tolist()),
        "reversed": list(range(300, 0, -1)),
        "blocks": [minute + 30 * (7 - block) for block in range(10) for minute in range(30)],
        "equal": [5] * 300,
        "untimed": [None] * 300,
    }[order]
    holes = rng.random(300) < 0.1
    times = minutes(
        None if hole and order != "equal" else time for time, hole in zip(times, holes, strict=True)
    )
    parts = tables(times, [0, 7, 1, 0, 92, 100, 3, 97])
    found = list(sorted_by_time(parts, tmp_path))
    assert {part.schema for part in found} == {parts[0].schema}
    assert [row for part in found for row in part.to_pylist()] == in_memory(parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [None, pa.null()])
def test_without_times_rows_stay_as_they_came(tmp_path, kind):
    parts = [part.drop_columns("impression_time") for part in tables([None] * 20, [15, 5])]
    if kind is not None:
        parts = [part.append_column("impression_time", pa.nulls(len(part))) for part in parts]
    assert pa.concat_tables(sorted_by_time(parts, tmp_path)).equals(pa.concat_tables(parts))
    assert list(sorted_by_time([], tmp_path)) == []


@pytest.mark.parametrize("order", ["sorted", "random"])
def test_memory_is_that_of_a_few_runs(tmp_path, monkeypatch, order):
    monkeypatch.setattr(time_sort, "_RUN_ROWS", 1_000)
    monkeypatch.setattr(time_sort, "_WAYS", 8)
    rng = np.random.default_rng(2)
    size = 0

    def arriving():
        nonlocal size
        for start in range(0, 100_000, 500):
            moments = np.arange(start, start + 500) if order == "sorted" else rng.permutation(500)
            ids = pa.array(rng.integers(0, 9, 10 * 500))
            part = pa.table(
                {
                    "impression_time": pa.array(moments, pa.timestamp("us")),
                    "ids": pa.FixedSizeListArray.from_arrays(ids, 10),
                }
            )
            size += part.nbytes
            yield part

    pool = pa.default_memory_pool()
    before, most, rows = pool.bytes_allocated(), 0, 0
    for part in sorted_by_time(arriving(), tmp_path):
        most = max(most, pool.bytes_allocated() - before)
        rows += len(part)
    assert rows == 100_000
    assert most < size / 25  # four runs of a hundred


def test_another_column_can_be_sorted_by(small, tmp_path):
    keys = np.random.default_rng(0).integers(-20, 20, 100)
    parts = [
        pa.table({"key": keys[start : start + 7], "row": range(start, min(100, start + 7))})
        for start in range(0, 100, 7)
    ]
    rows = pa.concat_tables(sorted_by_time(parts, tmp_path, by="key"))
    order = np.argsort(keys, kind="stable")
    assert rows["row"].to_pylist() == order.tolist()
    assert rows["key"].to_pylist() == keys[order].tolist()
