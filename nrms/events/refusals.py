"""What a log refuses, in the same words whoever keeps it."""

from __future__ import annotations

from nrms.data.schema import CLICKS, schema_error
from nrms.errors import SchemaError, StorageError
from nrms.events.records import Record


def another_event(record: Record) -> SchemaError:
    """The error of an event id that stands for another content."""
    return schema_error(
        "An `event_id` must stand for one event.",
        f"{record.event_id!a} again, with another content",
        record.where,
        "Give each event an id of its own, or leave `event_id` out.",
    )


def another_impression(record: Record) -> SchemaError:
    """The error of an impression id that stands for another list, reader, time or clicks."""
    return schema_error(
        "An `impression_id` must stand for one list.",
        f"{record.impression_id!a} again, with another content",
        record.where,
        "Give each impression an id of its own; send its later clicks alone, as `impression_id` "
        f"and `{CLICKS}`.",
    )


def dropped(log: str, position: int, start: int) -> StorageError:
    """The error of a reader whose position lies before what the log still has."""
    return StorageError(
        f"{log}: a reader's position must be {start:,} or later, since earlier rows were removed. "
        f"Received: {position:,}. Start from a newer snapshot."
    )
