"""Which events are refused, and in which words."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from nrms.data.schema import CLICKS, IN_VIEW
from nrms.errors import SchemaError
from nrms.events.event import EVENTS, microseconds, read_event
from tests.nrms.events.events import HOUR, LIMITS, click, impression


def read(row: dict):
    return read_event({c.name: row.get(c.name) for c in EVENTS}, "line 3", LIMITS)


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (impression(1, impression_id=None), "An event must name its impression."),
        (impression(1, user_id=None), "An impression must name its reader."),
        (impression(1, impression_time=None), "An impression must say when it was shown."),
        (impression(1, event_id=""), "`event_id` must not be empty."),
        (impression(1, impression_id=2**63), "must hold integers below 2^63"),
        (impression(1, **{IN_VIEW: None, CLICKS: None}), "An event must say what was shown"),
        (impression(1, **{IN_VIEW: [], CLICKS: []}), "An event must say what was shown"),
        (click(1) | {CLICKS: []}, "An event must say what was shown"),
        (impression(1, **{IN_VIEW: [1, None]}), f"`{IN_VIEW}` must not hold nulls."),
        (click(1, 2, None), f"`{CLICKS}` must not hold nulls."),
        (impression(1, **{IN_VIEW: [*range(101)]}), f"`{IN_VIEW}` may hold 100 articles."),
        (click(1, *range(101)), f"`{CLICKS}` may hold 100 articles."),
        (impression(9, **{CLICKS: [0, 1, 0, 0]}), "must hold the ids of the clicked articles"),
        (
            impression(1, impression_time=LIMITS.now + 301 * 10**6),
            "`impression_time` may be 300 seconds in the future.",
        ),
        (
            impression(1, impression_time=LIMITS.now - 49 * HOUR),
            "`impression_time` may be 48 hours old.",
        ),
    ],
)
def test_what_breaks_a_rule_is_refused_with_its_place(row, rule):
    with pytest.raises(SchemaError) as refused:
        read(row)
    assert rule in refused.value.parts["rule"]
    assert refused.value.parts["where"] == "line 3"
    assert all(refused.value.parts.values())
    assert "\n" not in str(refused.value)


def test_what_keeps_the_rules_is_read():
    found = read(impression(4, event_id=7, article_id=5, device_type=2))
    assert (found.event_id, found.page, found.device, found.clicked) == ("7", 5, 2, [4])
    assert read(impression(1, impression_time=LIMITS.now + 299 * 10**6)).time > LIMITS.now
    assert read(impression(1, impression_time=LIMITS.now - 47 * HOUR)).time < LIMITS.now
    assert read(impression(1, device_type=2**31)).device is None
    # A click on something that was not shown is ignored later, as in the data of a night.
    assert read(impression(9, **{CLICKS: [77]})).clicked == [77]
    assert read(impression(0, **{CLICKS: [0, 1, 2, 3]})).clicked == [0, 1, 2, 3]
    late = read(click(4, 7) | {IN_VIEW: []})
    assert (late.in_view, late.clicked, late.user_id) == (None, [7], None)


def test_a_time_without_a_zone_is_utc():
    time = datetime(2026, 5, 1, 12, 0, 0, 123456)
    expected = 1_777_636_800_123_456
    assert microseconds(time) == microseconds(time.replace(tzinfo=UTC)) == expected
    abroad = time.replace(tzinfo=timezone(timedelta(hours=2)))
    assert microseconds(abroad) == expected - 2 * HOUR
