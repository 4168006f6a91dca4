"""Events that come as a Parquet file: `decode` checks it in a child process, because a hostile file
may kill it, and `read_file` reads what that has written.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from api.uploads.contract import FILE, Decoded, Task
from api.uploads.parquet_files import limit_rows, limit_values, write_plain
from nrms import storage
from nrms.data.columns import times_us
from nrms.data.parquet import open_parquet
from nrms.data.schema import CLICKS, IN_VIEW, Families, schema_error
from nrms.events.event import EVENTS, Event, EventLimits, read_event
from nrms.storage import parquet

_PLAIN = "events.parquet"


def decode(task: Task) -> Decoded:
    """Reads a file of events and writes it as plain Parquet.

    Raises:
        SchemaError: it breaks the contract or a limit.
    """
    folder = Path(task.folder)
    families: Families = {}
    if task.strings is not None:
        families["article"] = pa.string() if task.strings else pa.int64()
    file = folder / FILE
    with open_parquet(storage.stat(file), folder, EVENTS, families) as reader:
        limit_rows(reader, task.max_impressions, "events", task.memory_bytes)
        hints = reader.hints()
        if not reader.present & {IN_VIEW, CLICKS}:
            hint = hints.get(IN_VIEW) or hints.get(CLICKS) or "Add one of them."
            raise schema_error(
                f"Events must have a column `{IN_VIEW}` or `{CLICKS}`.",
                "a file without them",
                FILE,
                hint[0].upper() + hint[1:],
            )
        columns = reader.read()
    limit_values([(FILE, columns)], task)
    write_plain(columns, folder / _PLAIN)
    return Decoded(False, {}, [f"{FILE}: {hint}" for hint in hints.values()])


def count_rows(folder: Path) -> int:
    """How many events `decode` has written."""
    return parquet.rows(folder / _PLAIN)


def read_file(folder: Path, limits: EventLimits) -> list[Event]:
    """The events that `decode` has written.

    Args:
        folder: see `api.uploads`.
        limits: of each event.

    Raises:
        SchemaError: one of them breaks a rule.
    """
    table = pq.read_table(folder / _PLAIN)
    columns = {column.name: [None] * len(table) for column in EVENTS}
    for name in table.column_names:
        values = table[name].combine_chunks()
        if pa.types.is_timestamp(values.type):
            values = pa.array(times_us(values)).cast(pa.int64())
        columns[name] = values.to_pylist()
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return [read_event(row, f"row {number:,} (from 0)", limits) for number, row in enumerate(rows)]
