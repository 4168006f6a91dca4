"""Events to write, and what a log has of them."""

from collections.abc import Iterable

from nrms.data.schema import CLICKS, IN_VIEW
from nrms.events.event import EVENTS, EventLimits, now, read_event
from nrms.events.log import EventLog
from nrms.events.records import Batch

HOUR = 3_600 * 10**6
LIMITS = EventLimits(max_list=100, now=now(), keep_seconds=48 * 3_600, ahead_seconds=300)


def impression(number: int, **columns: object) -> dict:
    """A list of four articles, one of them clicked."""
    articles = [number + place for place in range(4)]
    return {
        "impression_id": number,
        "user_id": number % 7,
        "impression_time": LIMITS.now - HOUR + number,
        IN_VIEW: articles,
        CLICKS: [articles[number % 4]],
        **columns,
    }


def click(number: int, *articles: object, **columns: object) -> dict:
    """Clicks on an earlier impression, in its list's place 3 unless told."""
    return {"impression_id": number, CLICKS: list(articles) or [number + 3], **columns}


def batch(*rows: dict) -> Batch:
    """A request."""
    full = [{column.name: row.get(column.name) for column in EVENTS} for row in rows]
    return Batch.of(
        [read_event(row, f"line {number}", LIMITS) for number, row in enumerate(full, 1)]
    )


def append(log: EventLog, *rows: dict) -> tuple[int, int, int]:
    """Writes a request; accepted, repeated, position."""
    done = log.append(batch(*rows))
    return done.accepted, done.repeated, done.position


def rows(log: EventLog, position: int = 0, limit: int = 10**6) -> list[dict]:
    """What the log has after a position."""
    return log.since(position, limit).to_pylist()


def clicks(log: EventLog, position: int = 0) -> list[tuple[int, bool, list | None]]:
    """Impression, late or not, and clicks of each row after a position."""
    return [(row["impression_id"], row["late"], row[CLICKS]) for row in rows(log, position)]


def positions(found: Iterable[dict]) -> list[int]:
    """Of rows."""
    return [row["position"] for row in found]
