"""What every log keeps to, whoever keeps the events."""

import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nrms.data.schema import CLICKS, IN_VIEW
from nrms.errors import SchemaError, StorageError
from nrms.events.log import Dropped
from nrms.events.records import Batch
from tests.nrms.events.events import (
    LIMITS,
    append,
    batch,
    click,
    clicks,
    impression,
    positions,
    rows,
)


def test_rows_come_out_as_events_went_in(log):
    sent = [
        impression(1, event_id="first", article_id=17, device_type=2),
        impression(2, **{CLICKS: None}),
        impression(3, **{CLICKS: []}),
    ]
    assert append(log, *sent) == (3, 0, 3)
    found = log.since(0)
    assert found.schema == pa.schema(
        {
            "position": pa.int64(),
            "event_id": pa.string(),
            "late": pa.bool_(),
            "impression_id": pa.int64(),
            "user_id": pa.int64(),
            "impression_time": pa.timestamp("us", "UTC"),
            IN_VIEW: pa.list_(pa.int64()),
            CLICKS: pa.list_(pa.int64()),
            "article_id": pa.int64(),
            "device_type": pa.int64(),
        }
    )
    for row, event in zip(found.to_pylist(), sent, strict=True):
        time = event["impression_time"]
        time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)
        assert row.items() >= (event | {"impression_time": time}).items()
        assert not row["late"]
    assert positions(found.to_pylist()) == [1, 2, 3]
    assert found["event_id"][0].as_py() == "first"
    assert found["article_id"].to_pylist() == [17, None, None]


def test_ids_may_be_texts_and_the_largest_integers(log):
    articles = ["", "å\0\n\"'", "N1", "😀" * 100]
    sent = impression(1, user_id="a b", **{IN_VIEW: articles, CLICKS: articles[1:2]})
    append(log, sent | {"impression_id": -(2**63)}, sent | {"impression_id": 2**63 - 1})
    found = rows(log)
    assert [row["impression_id"] for row in found] == [-(2**63), 2**63 - 1]
    assert found[0][IN_VIEW] == articles
    assert found[0][CLICKS] == articles[1:2]
    assert found[0]["user_id"] == "a b"


def test_an_event_that_is_sent_again_changes_nothing(log):
    sent = [impression(1), impression(2, event_id=7), click(1), click(2, event_id="c"), click(9)]
    assert append(log, *sent) == (5, 0, 4)
    before = rows(log)
    assert append(log, *sent) == (0, 5, 4)
    assert append(log, sent[1] | {"event_id": "7"}, impression(3)) == (1, 1, 5)
    # The same impression under another event id is still the same.
    assert append(log, sent[0] | {"event_id": "other"}) == (0, 1, 5)
    assert rows(log)[:-1] == before
    assert append(log, impression(4), impression(4)) == (1, 1, 6)


@pytest.mark.parametrize(
    ("second", "rule"),
    [
        (impression(2, event_id="a"), "An `event_id` must stand for one event."),
        (click(1, event_id="a"), "An `event_id` must stand for one event."),
        (impression(1, user_id=5), "An `impression_id` must stand for one list."),
        (impression(1, **{CLICKS: None}), "An `impression_id` must stand for one list."),
        (impression(2, impression_id="2"), "The ids of all impressions must be integers"),
        (impression(2, user_id="5"), "The ids of all users must be integers"),
        (impression(2, **{IN_VIEW: ["5"], CLICKS: None}), "The ids of all articles must be"),
        (impression(2, article_id="5"), "The ids of all articles must be integers"),
        (click(1, "5"), "The ids of all articles must be integers"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_what_contradicts_the_log_is_refused_with_its_place_and_all_that_came_with_it(
    log, second, rule, together
):
    first = impression(1, event_id="a")
    if not together:
        append(log, first)
    before = rows(log)
    sent = [impression(5), click(5), *([first] if together else []), second, impression(6)]
    with pytest.raises(SchemaError) as refused:
        append(log, *sent)
    assert refused.value.parts["rule"].startswith(rule)
    assert refused.value.parts["where"] == f"line {sent.index(second) + 1}"
    assert rows(log) == before
    assert log.state().waiting == 0
    # What was refused has left nothing behind, not even an id.
    sent.remove(second)
    assert append(log, *sent)[0] == len(sent)


def test_a_late_click_comes_with_the_list_reader_and_time_of_its_impression(log):
    append(log, impression(1, **{CLICKS: None}), impression(2))
    append(log, click(1, 2, 3, event_id="late"))
    first, _, late = rows(log)
    assert late == first | {"position": 3, "event_id": "late", "late": True, CLICKS: [2, 3]}


def test_an_article_is_clicked_once_in_an_impression(log):
    append(log, click(1, 2, 9, 9), impression(1, **{CLICKS: [1, 1, 2]}), click(1, 2, 3))
    append(log, click(1, 3, 4))
    assert clicks(log) == [(1, False, [1, 2]), (1, True, [9]), (1, True, [3]), (1, True, [4])]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
@pytest.mark.parametrize("together", [True, False])
def test_late_clicks_come_in_any_order(log, order, together):
    """Whatever comes first: an article is clicked once, after its list was shown, and nobody who
    waits is forgotten.
    """
    sent = [impression(1, **{CLICKS: [1]}), click(1, 2), click(1, 3), click(8, 9)]
    requests = [[sent[place] for place in order]]
    for request in requests if together else [[event] for event in requests[0]]:
        assert append(log, *request)[0] == len(request)
    found = clicks(log)
    assert found[0] == (1, False, [1])
    seen = [sent[place] for place in order if place in (1, 2)]
    assert found[1:] == [(1, True, event[CLICKS]) for event in seen]
    assert positions(rows(log)) == [1, 2, 3]
    assert log.state().waiting == 1


def test_pages_are_the_whole(log):
    chance = random.Random(4)
    sent = [make(number) for number in range(40) for make in (impression, click)]
    chance.shuffle(sent)

    @settings(deadline=None, database=None, derandomize=True, max_examples=30)
    @given(st.lists(st.integers(1, 50), min_size=1))
    def every(sizes):
        whole, pages, position = log.since(0), [], 0
        for size in itertools.cycle(sizes):
            page = log.since(position, size)
            if not len(page):
                break
            pages.append(page)
            position = page["position"][-1].as_py()
        assert pa.concat_tables(pages) == whole

    for start in range(0, len(sent), 16):
        append(log, *sent[start : start + 16])
    assert positions(rows(log)) == list(range(1, 81))
    assert rows(log, 80) == []
    every()


KINDS = st.sampled_from(["impression", "click", "again"])


@settings(
    deadline=None,
    database=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(st.tuples(KINDS, st.integers(0, 5), st.integers(0, 3)), max_size=25), st.data())
def test_a_log_holds_what_a_simple_one_would(fresh, steps, data):
    """Against dictionaries: which clicks each list has, and who waits."""
    log = fresh()
    shown, clicked, sent = set(), {}, []
    for kind, number, place in steps:
        event = impression(number, **{CLICKS: []})
        if kind == "click":
            event = click(number, number + place)
        elif kind == "again" and sent:
            event = data.draw(st.sampled_from(sent))
        new = event not in sent
        sent.append(event)
        if event.get(IN_VIEW):
            shown.add(event["impression_id"])
        else:
            clicked.setdefault(event["impression_id"], set()).update(event[CLICKS])
        assert append(log, event)[:2] == (new, not new)
    found: dict[int, list] = {}
    for impression_id, late, articles in clicks(log):
        assert late == (impression_id in found)  # the list first, and once
        found.setdefault(impression_id, []).extend(articles)
    assert {key: sorted(value) for key, value in found.items()} == {
        key: sorted(clicked.get(key, ())) for key in shown
    }
    assert log.state().waiting == sum(
        len(articles) for key, articles in clicked.items() if key not in shown
    )


def test_many_threads_append_at_once(log):
    """All that is acknowledged is there once, requests whole and in one piece."""
    together = threading.Barrier(8)

    def send(thread: int) -> int:
        together.wait()
        accepted = 0
        for number in range(30):
            base = 1_000 * (1 + number)  # half of what each sends is sent by another one, too
            own = [impression(base + 10 * (thread // 2 * 2) + place) for place in range(3)]
            own.append(impression(100_000 * (1 + thread) + number))
            accepted += append(log, *own)[0]
        return accepted

    with ThreadPoolExecutor(8) as pool:
        accepted = sum(pool.map(send, range(8)))
    found = rows(log)
    assert accepted == len(found) == 30 * (4 * 3 + 8) == log.state().end
    assert positions(found) == list(range(1, len(found) + 1))
    assert len({row["impression_id"] for row in found}) == len(found)


def test_two_open_logs_are_one(opened):
    first, second = opened(), opened()
    append(first, impression(1), click(2))
    assert append(second, impression(1), impression(2)) == (1, 1, 3)
    assert rows(first) == rows(second)
    assert clicks(first) == [(1, False, [2]), (2, False, [4]), (2, True, [5])]


def test_a_log_is_there_again_after_it_was_closed(opened):
    log = opened()
    assert log.since(0).num_rows == 0
    append(log, impression(1), click(7))
    before, state = rows(log), log.state()
    log.close()
    log = opened()
    assert rows(log) == before
    assert log.state().waiting == state.waiting == 1
    assert log.state().newest == state.newest == impression(1)["impression_time"]
    assert append(log, impression(1), impression(7)) == (1, 1, 3)


def test_the_newest_time_is_that_of_an_impression_whatever_comes_after(log):
    assert log.state().newest is None
    append(log, impression(5), impression(3))
    append(log, impression(4), click(3))
    assert log.state().newest == impression(5)["impression_time"]


def test_what_a_snapshot_holds_is_dropped_when_it_is_old_and_nothing_else(opened):
    log = opened(keep_seconds=3_600)
    append(log, *map(impression, range(10)), click(99))
    assert log.compact(7) == Dropped(0, 0)  # ids and impressions are still needed
    assert append(log, impression(1), click(1)) == (1, 1, 11)
    soon = opened(keep_seconds=0)
    assert soon.compact(7) == Dropped(7, 1)
    assert positions(rows(log, 7)) == [8, 9, 10, 11]
    state = log.state()
    assert (state.start, state.end, state.waiting) == (7, 11, 0)
    with pytest.raises(StorageError, match="position must be 7 or later"):
        log.since(6)
    assert soon.compact(11) == Dropped(4, 0)
    assert append(log, impression(20)) == (1, 0, 12)
    assert positions(rows(log, 11)) == [12]


def test_many_rows_are_dropped_whole(opened):
    log = opened(keep_seconds=0)
    append(log, *map(impression, range(3_500)))
    assert log.compact(3_400).rows == 3_400
    assert positions(rows(log, 3_400)) == list(range(3_401, 3_501))


def test_a_request_that_was_given_up_is_written_or_not_and_harms_nobody(log):
    futures = [log.submit(batch(impression(number))) for number in range(200)]
    given_up = [future.cancel() for future in futures]
    append(log, impression(1_000))
    done = sum(not gone for gone in given_up)
    assert len(rows(log)) == done + 1


def test_an_empty_request_is_answered(log):
    append(log, impression(1))
    assert log.append(Batch.of([])) == log.append(batch())
    assert append(log) == (0, 0, 1)


def test_times_stay_what_they_were_to_the_microsecond(log):
    append(log, impression(1, impression_time=LIMITS.now - 1))
    (row,) = rows(log)
    assert (row["impression_time"] - datetime(1970, 1, 1, tzinfo=UTC)) == timedelta(
        microseconds=LIMITS.now - 1
    )
