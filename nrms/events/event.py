"""One event: an impression, or clicks on an earlier impression; and the rules that it must keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from nrms.data.schema import CLICKS, IN_VIEW, Column, schema_error
from nrms.errors import SchemaError

Id = int | str

# The columns of behaviours, of which a late click has only some, and what events have beside them.
EVENTS = (
    Column("event_id", "id", required=False),
    Column("impression_id", "id", names="impression"),
    Column("user_id", "id", required=False, names="user"),
    Column("impression_time", "time", required=False),
    Column(IN_VIEW, "ids", required=False, names="article"),
    Column(CLICKS, "ids", required=False, names="article"),
    Column("article_id", "id", required=False, names="article"),
    Column("device_type", "integer", required=False),
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES = {int: "int64", str: "string"}
_WORDS = {"int64": "integers", "string": "strings"}

# The type of the ids of each thing, "int64" or "string", and where the first of them was.
Families = dict[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Event:
    """An impression, or a late click.

    Attributes:
        where: the place in the request, for messages: "line 3".
        event_id: by which a repetition is known; None for the one that follows from the content.
        impression_id: the impression, or the one that was clicked.
        clicked: ids of the clicked articles; None where it is not known whether there were any.
        in_view: ids of the articles shown; None for a late click, which has none of the following.
        user_id: the reader.
        time: when the list was shown, in microseconds since 1970, UTC.
        page: id of the article on whose page the list stood; None for the front page.
        device: `device_type`; None where not known.
    """

    where: str
    event_id: str | None
    impression_id: Id
    clicked: list[Id] | None
    in_view: list[Id] | None = None
    user_id: Id | None = None
    time: int | None = None
    page: Id | None = None
    device: int | None = None


@dataclass(frozen=True)
class EventLimits:
    """How long the lists of events may be, and how far their times from the clock of whoever takes
    them.

    Attributes:
        max_list: candidates of an impression at most, and also clicks.
        now: that clock, in microseconds since 1970, UTC.
        keep_seconds: so old an event may be. Ids of events are kept for as long, so an event that
            is sent once more is either known or too old, whenever that is.
        ahead_seconds: so far in the future, since clocks differ.
    """

    max_list: int
    now: int
    keep_seconds: float
    ahead_seconds: float


def microseconds(time: datetime) -> int:
    """Microseconds since 1970; a time without a zone is UTC."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def now() -> int:
    """This machine's clock, in microseconds since 1970, UTC."""
    return microseconds(datetime.now(UTC))


def read_event(row: Mapping[str, Any], where: str, limits: EventLimits) -> Event:
    """The event in a row whose values have the types of `EVENTS`.

    Args:
        row: by column; null where a column is absent. Times are microseconds since 1970, UTC.
        where: the row's place, for messages.
        limits: see there.

    Raises:
        SchemaError: it breaks a rule.
    """
    if row["impression_id"] is None:
        raise _error("impression_id", "An event must name its impression.", where)
    if isinstance(row["impression_id"], int) and row["impression_id"] >= 2**63:
        raise schema_error(
            "Column `impression_id` must hold integers below 2^63, or strings.",
            str(row["impression_id"]),
            where,
            "Cast all impression ids to strings.",
        )
    event_id = None if row["event_id"] is None else str(row["event_id"])
    if event_id == "":
        raise schema_error(
            "`event_id` must not be empty.",
            "an empty text",
            where,
            "Leave it out, or give each event an id of its own.",
        )
    in_view, clicked = row[IN_VIEW] or None, row[CLICKS]
    for name, ids in ((IN_VIEW, in_view), (CLICKS, clicked)):
        if ids is not None and len(ids) > limits.max_list:
            raise schema_error(
                f"`{name}` may hold {limits.max_list:,} articles.",
                f"{len(ids):,}",
                where,
                "Cut the list.",
            )
        if ids is not None and None in ids:
            raise schema_error(
                f"`{name}` must not hold nulls.", "a null in it", where, "Remove the null."
            )
    if in_view is None:
        if not clicked:
            raise schema_error(
                f"An event must say what was shown, `{IN_VIEW}`, or what was clicked, `{CLICKS}`.",
                "neither",
                where,
                "Add one of them, or leave the event out.",
            )
        return Event(where, event_id, row["impression_id"], clicked)
    if row["user_id"] is None:
        raise _error("user_id", "An impression must name its reader.", where)
    if row["impression_time"] is None:
        raise _error("impression_time", "An impression must say when it was shown.", where)
    _check_time(row["impression_time"], where, limits)
    if clicked and _is_mask(clicked, in_view):
        raise schema_error(
            f"`{CLICKS}` must hold the ids of the clicked articles.",
            "a 0/1 mask, as long as the candidates",
            where,
            "Write the ids of those candidates whose mask is 1.",
        )
    return Event(
        where,
        event_id,
        row["impression_id"],
        clicked,
        in_view,
        row["user_id"],
        row["impression_time"],
        row["article_id"],
        _device(row["device_type"]),
    )


def families(events: Iterable[Event]) -> Families:
    """Whether the ids of articles, readers and impressions are integers or strings.

    Raises:
        SchemaError: the ids of one thing are both.
    """
    found: Families = {}
    for event in events:
        articles = [*(event.in_view or ()), *(event.clicked or ()), event.page]
        for thing, ids in (
            ("impression", (event.impression_id,)),
            ("user", (event.user_id,)),
            ("article", articles),
        ):
            for kind in {_TYPES[type(one)] for one in ids if one is not None}:
                before = found.setdefault(thing, (kind, event.where))
                if before[0] != kind:
                    raise mixed(thing, before, (kind, event.where))
    return found


def mixed(thing: str, before: tuple[str, str], now: tuple[str, str]) -> SchemaError:
    """The error of ids that are integers in one place and strings in another.

    Args:
        thing: whose ids.
        before: the type that they must have, and where that is settled.
        now: the type of the one that differs, and its place in the request.
    """
    return schema_error(
        f"The ids of all {thing}s must be integers, or all strings.",
        f"{_WORDS[now[0]]}, after {_WORDS[before[0]]} in {before[1]}",
        now[1],
        f"Write all {thing} ids as {_WORDS[before[0]]}.",
    )


def _check_time(time: int, where: str, limits: EventLimits) -> None:
    age = (limits.now - time) / 1e6
    if -limits.ahead_seconds <= age <= limits.keep_seconds:
        return
    if age < 0:
        rule = f"`impression_time` may be {limits.ahead_seconds:g} seconds in the future."
        received = f"a time {-age:,.0f} seconds in the future"
        todo = "Send UTC, and set the clock of the sender."
    else:
        rule = f"`impression_time` may be {limits.keep_seconds / 3600:g} hours old."
        received = f"a time {age / 3600:,.1f} hours ago"
        todo = "Send events as they happen; older ones belong into the data of the nights."
    raise schema_error(rule, received, where, todo)


def _is_mask(clicked: list[Id], in_view: list[Id]) -> bool:
    return (
        len(clicked) == len(in_view)
        and {str(one) for one in clicked} == {"0", "1"}
        and not set(clicked) & set(in_view)
    )


def _device(value: int | None) -> int | None:
    """As in the data of a night, a device beyond int32 is not known."""
    return value if value is not None and -(2**31) <= value < 2**31 else None


def _error(column: str, rule: str, where: str) -> SchemaError:
    return schema_error(rule, f"no `{column}`", where, "Add it.")
