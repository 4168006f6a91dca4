"""Events that come as JSON lines."""

from __future__ import annotations

import reprlib

from pydantic import ValidationError

from api.schemas import EventIn
from api.uploads.contract import ID_LENGTH
from nrms.data.mistakes import near_name
from nrms.data.schema import CLICKS, IN_VIEW, schema_error
from nrms.errors import SchemaError
from nrms.events.event import Event, EventLimits, microseconds, read_event

_ID = f"an integer of 64 bits or a text of at most {ID_LENGTH} characters"
_MUST_BE = {
    "event_id": _ID,
    "impression_id": _ID,
    "user_id": _ID,
    "impression_time": "a time with date, such as 2026-05-01T12:00:00Z",
    IN_VIEW: f"a list whose entries are each {_ID}",
    CLICKS: f"a list whose entries are each {_ID}",
    "article_id": _ID,
    "device_type": "an integer of 64 bits",
}


def read_lines(lines: list[tuple[int, bytes]], limits: EventLimits) -> list[Event]:
    """The events in the lines of a body.

    Args:
        lines: number, from 1, and content.
        limits: of each event.

    Raises:
        SchemaError: one of them is no event or breaks a rule.
    """
    return [_read_line(line, f"line {number:,}", limits) for number, line in lines]


def split_lines(body: bytes) -> list[tuple[int, bytes]]:
    """The lines that hold something, each with its number, from 1."""
    lines = enumerate(body.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1)
    return [(number, line) for number, line in lines if line.strip()]


def _read_line(line: bytes, where: str, limits: EventLimits) -> Event:
    try:
        event = EventIn.model_validate_json(line)
    except ValidationError as error:
        raise _refusal(error, where) from None
    row = dict(event)
    if event.impression_time is not None:
        row["impression_time"] = microseconds(event.impression_time)
    return read_event(row, where, limits)


def _refusal(error: ValidationError, where: str) -> SchemaError:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        near = near_name(name, EventIn.model_fields)
        return schema_error(
            f"An event may have {', '.join(EventIn.model_fields)}.",
            name[:ID_LENGTH],
            where,
            f"Write {near}." if near else "Leave it out.",
        )
    if not name:
        return schema_error(
            "A line must be an event, one JSON object in UTF-8.",
            first["msg"].replace(" at line 1 column", " at column"),
            where,
            "Write each event as JSON on one line of its own.",
        )
    return schema_error(
        f"`{name}` must be {_MUST_BE[name]}.",
        "nothing" if first["type"] == "missing" else reprlib.repr(first["input"]),
        where,
        "See /docs for what an event holds.",
    )
