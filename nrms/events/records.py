"""The form in which a log keeps an event: JSON texts, which people and every program can read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from nrms.data.schema import CLICKS, IN_VIEW
from nrms.events.event import Event, Families, Id, families

_DIGEST_BYTES = 16


class Record(NamedTuple):
    """An event as a log keeps it.

    Attributes:
        where: its place in the request, for messages.
        event_id: by which a repetition is known.
        digest: of the content, 32 hex digits: equal for equal events.
        impression_id: as it came.
        time: of the impression, microseconds since 1970, UTC; None for a late click.
        shown: the impression without its clicks, a JSON object; None for a late click.
        clicked: JSON texts of the clicked articles' ids, each once; None where not known.
    """

    where: str
    event_id: str
    digest: str
    impression_id: Id
    time: int | None
    shown: str | None
    clicked: tuple[str, ...] | None


@dataclass(frozen=True)
class Batch:
    """The events of one request.

    Attributes:
        records: in the order of the request.
        families: the types of their ids.
    """

    records: Sequence[Record]
    families: Families

    @classmethod
    def of(cls, events: Sequence[Event]) -> Batch:
        """Raises SchemaError where ids of one thing are integers and strings."""
        return cls([_record(event) for event in events], families(events))


def _record(event: Event) -> Record:
    shown = None
    if event.in_view is not None:
        shown = json.dumps(
            {
                "impression_id": event.impression_id,
                "user_id": event.user_id,
                "impression_time": event.time,
                IN_VIEW: event.in_view,
                "article_id": event.page,
                "device_type": event.device,
            },
            separators=(",", ":"),
        )
    clicked = None
    if event.clicked is not None:
        clicked = tuple(json.dumps(one) for one in dict.fromkeys(event.clicked))
    content = [shown or json.dumps(event.impression_id), clicks_json(clicked)]
    digest = hashlib.blake2b("\n".join(content).encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return Record(
        event.where,
        digest if event.event_id is None else event.event_id,
        digest,
        event.impression_id,
        event.time,
        shown,
        clicked,
    )


def clicks_json(clicked: Iterable[str] | None) -> str:
    """The clicked ids as one JSON text."""
    return "null" if clicked is None else f"[{','.join(clicked)}]"


def clicks_of(text: str) -> list[str]:
    """The clicked ids of a row of the log, as JSON texts."""
    return [json.dumps(one) for one in json.loads(text) or ()]


class Row(NamedTuple):
    """A row of a log: its position, and an event's texts, see `Record`."""

    position: int
    event_id: str
    late: bool
    shown: str
    clicked: str


def table(rows: Sequence[Row], types: dict[str, str]) -> pa.Table:
    """The rows as `EventLog.since` gives them.

    Args:
        rows: in the log's order.
        types: by thing, the name of the type of its ids; int64 where it has none yet.
    """
    article, user, impression = (
        pa.type_for_alias(types.get(thing, "int64")) for thing in ("article", "user", "impression")
    )
    shown = json.loads(f"[{','.join(row.shown for row in rows)}]")
    clicked = json.loads(f"[{','.join(row.clicked for row in rows)}]")

    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([each[name] for each in shown], kind)

    return pa.table(
        {
            "position": pa.array([row.position for row in rows], pa.int64()),
            "event_id": pa.array([row.event_id for row in rows], pa.string()),
            "late": pa.array([bool(row.late) for row in rows], pa.bool_()),
            "impression_id": column("impression_id", impression),
            "user_id": column("user_id", user),
            "impression_time": column("impression_time", pa.int64()).cast(
                pa.timestamp("us", "UTC")
            ),
            IN_VIEW: column(IN_VIEW, pa.list_(article)),
            CLICKS: pa.array(clicked, pa.list_(article)),
            "article_id": column("article_id", article),
            "device_type": column("device_type", pa.int64()),
        }
    )
