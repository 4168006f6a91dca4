"""The features against their definitions, written out event by event, and the laws that the state
keeps.
"""

import gc
import math
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from nrms.data.impressions import behaviors_contract
from nrms.data.schema import HISTORY
from nrms.evaluation.baselines import INPUTS
from nrms.features.context import pairs, scan
from nrms.features.context import state as state_module
from nrms.features.context.events import Events
from nrms.features.context.features import NAMES, PLACES, Request, features
from nrms.features.context.input import Context
from nrms.features.context.state import HALF_LIVES, KINDS, SESSION, Delays, Happened, State
from nrms.features.context.table import DAY, HOUR, MINUTE, Runs, Timeline

START = 1_700_000_000_000_000
GAP = 7 * DAY
USUAL = Delays()
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture(params=["sorted", "hashed"], autouse=True)
def form(request, monkeypatch):
    """Pairs are counted in both forms, whatever there is of them."""
    if request.param == "sorted":
        monkeypatch.setattr(state_module, "_MANY_PAIRS", 1 << 62)
    else:
        monkeypatch.setattr(state_module, "_MANY_PAIRS", -1)
        assert pairs.compiled() is not None
    return request.param


def site(lists: int = 400, seed: int = 0, days: float = 1.0, strings: bool = False) -> Events:
    """A small busy site, with lists of the same second, repeated candidates and an empty list."""
    rng = np.random.default_rng(seed)
    time = START + rng.integers(0, int(days * 86_400), lists) * 1_000_000
    time[lists // 2 : lists // 2 + 5] = time[lists // 2]
    lengths = rng.integers(1, 9, lists)
    lengths[3] = 0
    offsets = np.append(0, np.cumsum(lengths))
    article = rng.integers(0, 25, offsets[-1])
    clicked = rng.random(len(article)) < 0.2
    page = np.where(rng.random(lists) < 0.3, rng.integers(0, 25, lists), -1)
    ids = [f"N{number}" for number in range(25)] if strings else list(range(100, 350, 10))
    readers = rng.integers(0, 30, lists)
    return Events(
        *(time, readers, page, offsets, article, clicked, pa.array(ids)),
        pa.array([f"u{reader}" for reader in range(30)] if strings else list(range(30))),
    )


@dataclass
class Slow:
    """What the definitions count for one list, event by event, from the last event backwards."""

    events: Events
    delays: Delays
    rows: list[tuple[int, int, int, dict]] = field(default_factory=list)

    def __post_init__(self) -> None:
        events = self.events
        for row in np.argsort(events.time, kind="stable"):
            inside = slice(events.offsets[row], events.offsets[row + 1])
            clicked: dict[int, bool] = {}
            for article, click in zip(events.article[inside], events.clicked[inside], strict=True):
                clicked[int(article)] = clicked.get(int(article), False) or bool(click)
            self.rows.append(
                (int(events.time[row]), int(events.reader[row]), int(events.page[row]), clicked)
            )

    def sums(self, happened: list[tuple[int, float]], now: int, half_life: float) -> float:
        """The decayed sum of (time, weight) of one key, until it was forgotten."""
        total, later = 0.0, now
        for time, weight in reversed(happened):
            if later - time > GAP:
                break
            total += weight * 2 ** (-(now - time) / half_life)
            later = time
        return total

    def key(self, now: int, delay: int, weight) -> list[tuple[int, float]]:
        """The events of one key before `now`; weight gives None for events of other keys."""
        found = []
        for row in self.rows:
            if row[0] + delay < now and (value := weight(row)) is not None:
                found.append((row[0], value))
        return found


def slow_features(events: Events, delays: Delays, row: int, request: Request) -> np.ndarray:
    """The features of one list's candidates by their definitions."""
    slow, e = Slow(events, delays), events
    now, reader, page = int(e.time[row]), int(e.reader[row]), int(e.page[row])
    inside = range(e.offsets[row], e.offsets[row + 1])
    candidates = [int(e.article[place]) for place in inside]
    n, out = len(candidates), np.zeros((len(candidates), len(NAMES)))

    def length(happened) -> float:
        return math.log(len(happened[3]))

    def shown(x, z=None):
        return lambda r: 1.0 if x in r[3] and (z is None or z in r[3]) else None

    def won(x, z):
        return lambda r: float(r[3][x]) if x in r[3] and z in r[3] else None

    own = slow.key(now, delays.reader, lambda r: 1.0 if r[1] == reader else None)
    lengths = slow.key(now, delays.reader, lambda r: length(r) if r[1] == reader and r[3] else None)
    lists = slow.sums(own, now, math.inf)
    before = own[-1][0] if own and now - own[-1][0] <= GAP else None
    session = None
    if own and now - own[-1][0] <= SESSION:
        session = own[-1][0]
        for time, _ in reversed(own):
            if session - time > SESSION:
                break
            session = time
    clicks_of_reader = [
        (r[0], x)
        for r in slow.rows
        if r[0] + delays.reader < now and r[1] == reader
        for x, click in r[3].items()
        if click
    ]
    last_click = max(clicks_of_reader, default=None)
    if last_click and now - last_click[0] > GAP:
        last_click = None
    held_before = []
    for place, x in enumerate(candidates):
        values: dict[str, float] = {}
        for label, half_life in zip(("30min", "4h", "24h"), HALF_LIVES, strict=True):

            def total(weight, half_life=half_life) -> float:
                return slow.sums(slow.key(now, delays.event, weight), now, half_life)

            def rate(y, total=total) -> float:
                return (total(won(y, y)) + 0.72) / (total(shown(y)) + 8)

            shown_x, clicked_x = total(shown(x)), total(won(x, x))
            ln_length = total(lambda r, x=x: length(r) if x in r[3] else None)
            depth = ln_length / shown_x if shown_x > 1e-9 else math.log(n)
            others = [z for z in candidates if z != x]
            pairs = [(z, total(shown(x, z)), total(won(x, z)), total(won(z, x))) for z in others]
            win = [(w + 0.5) / (w + lost + 1) for _, _, w, lost in pairs]
            mean = lambda these, alone=0.0: sum(these) / len(these) if these else alone  # noqa: E731
            with_x = [(c + 0.05) / (shown_x + 0.5) for _, c, _, _ in pairs]
            with_others = mean([(c + 0.05) / (total(shown(z)) + 0.5) for z, c, _, _ in pairs])
            ours = mean([(w + rate(x)) / (c + 1) for _, c, w, _ in pairs], 1.0)
            theirs = mean([(lost + rate(z)) / (c + 1) for z, c, _, lost in pairs], 1.0)
            values |= {
                f"win_mean_{label}": mean(win, 0.5),
                f"win_least_{label}": min(win, default=0.5),
                f"log_odds_{label}": mean(
                    [math.log((w + 0.3) / (lost + 0.3)) for _, _, w, lost in pairs]
                ),
                f"log_ratio_{label}": math.log(ours / theirs),
                f"shown_{label}": math.log1p(shown_x),
                f"clicked_{label}": math.log1p(clicked_x),
                f"rate_{label}": rate(x),
                f"with_mean_{label}": mean(with_x),
                f"with_others_{label}": with_others,
                f"with_difference_{label}": mean(with_x) - with_others,
                f"with_least_{label}": min(with_x, default=0.0),
                f"missing_{label}": math.log1p(max(0, math.exp(depth) - 1 - sum(with_x))),
                f"depth_{label}": depth,
                f"depth_difference_{label}": depth - math.log(n),
            }
        out[place, [PLACES[name] for name in values]] = list(values.values())

        def seconds(time, now=now) -> float:
            return math.log1p(30 * 86_400 if time is None else (now - time) / 1e6)

        times = [time for time, _ in slow.key(now, delays.event, shown(x))]
        times = [] if times and now - times[-1] > GAP else times
        run = list(times)
        for index in range(len(times) - 1, 0, -1):
            if times[index] - times[index - 1] > GAP:
                run = times[index:]
                break
        first = run[0] if run else None
        published = (
            None if request.published[inside[place]] < 0 else request.published[inside[place]]
        )
        ids = e.articles.to_pylist()
        seen = [ids[y] for r in slow.rows if r[0] + delays.event < now for y in r[3]]
        newer = max(0, max(seen) - ids[x]) if seen and isinstance(ids[x], int) else 0
        reader_x = slow.key(
            now, delays.reader, lambda r, x=x: 1.0 if r[1] == reader and x in r[3] else None
        )
        clicks_x = slow.key(
            now, delays.reader, lambda r, x=x: 1.0 if r[1] == reader and r[3].get(x) else None
        )
        last_x = reader_x[-1][0] if reader_x and now - reader_x[-1][0] <= GAP else None
        click_x = clicks_x[-1][0] if clicks_x and now - clicks_x[-1][0] <= GAP else None
        held = last_x is not None and last_x == before
        held_before.append(held)
        on_page = page >= 0
        page_shown = slow.key(
            now,
            delays.event,
            lambda r, x=x, on_page=on_page: 1.0 if on_page and r[2] == page and x in r[3] else None,
        )
        page_click = slow.key(
            now,
            delays.event,
            lambda r, x=x, on_page=on_page: (
                1.0 if on_page and r[2] == page and r[3].get(x) else None
            ),
        )
        page_e = slow.sums(page_shown, now, 24 * HOUR)
        # A page's article is forgotten by what was shown, not by what was clicked.
        page_k = slow.sums(
            [(t, 1.0 if (t, 1.0) in page_click else 0.0) for t, _ in page_shown], now, 24 * HOUR
        )
        after = 0.0
        if last_click:
            lc = last_click[1]
            alone = slow.sums(slow.key(now, delays.event, shown(lc)), now, 24 * HOUR)
            both = slow.sums(slow.key(now, delays.event, shown(lc, x)), now, 24 * HOUR)
            after = both / max(alone, 1e-9)
        more = {
            "since_first": seconds(first),
            "since_last": seconds(times[-1] if times else None),
            "since_published": seconds(published if published is not None else first),
            "newer_ids": math.log1p(newer),
            "reader_shown": math.log1p(slow.sums(reader_x, now, math.inf)),
            "reader_clicked": math.log1p(slow.sums(clicks_x, now, math.inf)),
            "reader_since": seconds(last_x),
            "in_session": session is not None and last_x is not None and last_x >= session,
            "in_list_before": held + (click_x is not None and click_x == before),
            "in_history": request.in_history[inside[place]],
            "is_page": x == page,
            "page_clicked": math.log1p(page_k),
            "page_rate": (page_k + 0.72) / (page_e + 8),
            "after_click": after,
        }
        out[place, [PLACES[name] for name in more]] = list(more.values())
    angle = now % DAY / DAY * 2 * math.pi
    mean_length = slow.sums(lengths, now, math.inf) / lists if lists else math.log(n)
    of_list = {
        "ln_length": math.log(n),
        "length_difference": math.log(n) - mean_length,
        "front_page": page < 0,
        **{f"device_{device}": request.device[row] == device for device in (1, 2, 3)},
        "hour_sine": math.sin(angle),
        "hour_cosine": math.cos(angle),
        "ln_history": math.log1p(request.history[row]),
        "reader_lists": math.log1p(lists),
        "share_before": sum(held_before) / n,
        "since_list": math.log1p(30 * 86_400 if before is None else (now - before) / 1e6),
        "activity": math.log1p(slow.sums(own, now, 24 * HOUR)),
        "compared": 1.0,
    }
    out[:, [PLACES[name] for name in of_list]] = list(of_list.values())
    return out


def request_of(events: Events, seed: int = 9) -> Request:
    rng, c, n = np.random.default_rng(seed), len(events.article), len(events)
    published = START - rng.integers(0, 10**12, c)
    published[rng.random(c) < 0.3] = -(2**63)
    return Request(published, rng.random(c) < 0.2, rng.integers(0, 60, n), rng.integers(0, 4, n))


def told(events: Events, delays: Delays = USUAL, request: Request | None = None) -> np.ndarray:
    return features(
        State(delays),
        events,
        events,
        request or Request.unknown(len(events), len(events.article)),
    )


@pytest.mark.parametrize(
    ("days", "strings", "delays"),
    [
        pytest.param(1.0, False, Delays(), id="a busy day"),
        pytest.param(1.0, True, Delays(), id="ids of text"),
        pytest.param(80.0, False, Delays(), id="weeks, in which keys are forgotten"),
        pytest.param(1.0, False, Delays(event=5 * MINUTE, reader=2 * MINUTE), id="longer delays"),
    ],
)
def test_every_feature_is_what_its_definition_says(days, strings, delays):
    events = site(days=days, strings=strings, seed=int(days))
    request = request_of(events)
    got = told(events, delays, request)
    for row in np.random.default_rng(5).permutation(len(events))[:60]:
        inside = slice(events.offsets[row], events.offsets[row + 1])
        wanted = slow_features(events, delays, int(row), request)
        for name in NAMES:
            np.testing.assert_allclose(
                got[inside, PLACES[name]],
                wanted[:, PLACES[name]],
                **CLOSE,
                err_msg=f"{name} of list {row}",
            )


def cut(events: Events, times: list[int]) -> list[Events]:
    events = events.in_order()
    edges = [0, *np.searchsorted(events.time, times), len(events)]
    return [events.cut(a, b) for a, b in pairwise(edges)]


def equal_states(one: State, other: State) -> None:
    """Whatever the order of their codes."""
    assert one.time == other.time
    names = [
        {
            kind.name: {
                _named(state, kind.name, int(key)): (
                    *np.round(table.sums[:, row], 9),
                    table.start[row],
                    table.last[row],
                    table.value[row]
                    if table.value[row] < 0
                    else state.articles.ids[table.value[row]],
                )
                for row, key in enumerate(table.key)
            }
            for kind in KINDS
            for table in [state.tables[kind.name]]
        }
        for state in (one, other)
    ]
    assert {name: len(rows) for name, rows in names[0].items()} == {
        name: len(rows) for name, rows in names[1].items()
    }
    for kind in KINDS:
        left, right = names[0][kind.name], names[1][kind.name]
        assert left.keys() == right.keys()
        for key, row in left.items():
            np.testing.assert_allclose(row[:-1], right[key][:-1], rtol=1e-9)
            assert row[-1] == right[key][-1]


def _named(state: State, kind: str, key: int) -> object:
    article, reader = state.articles.ids.to_pylist(), state.readers.ids.to_pylist()
    high, low = key >> 32, key & 0xFFFFFFFF
    if kind == "articles":
        return article[key]
    if kind == "pairs":
        return frozenset((article[high], article[low]))
    if kind == "pages":
        return article[high], article[low]
    if kind in ("shown", "clicked"):
        return reader[high], article[low]
    return reader[key]


@pytest.mark.parametrize("days", [1.0, 40.0])
@pytest.mark.parametrize("parts", [2, 7])
def test_however_events_are_cut_features_are_equal(days, parts):
    events = site(days=days, seed=3).in_order()
    whole = told(events)
    edges = [int(START + days * DAY * part / parts) for part in range(1, parts)]
    # A cut between events of the same second: neither is the other's past.
    edges[0] = int(events.time[len(events) // 2])
    state, found = State(Delays()), []
    for part in cut(events, sorted(edges)):
        found.append(features(state, part, part, Request.unknown(len(part), len(part.article))))
        state = state + State.of(part, Delays())
    np.testing.assert_allclose(np.concatenate(found), whole, **CLOSE)
    equal_states(state, State.of(events, Delays()))


def test_sums_of_deltas_are_associative():
    parts = cut(site(days=20, seed=4), [START + 6 * DAY, START + 14 * DAY])
    one, two, three = (State.of(part, Delays()) for part in parts)
    equal_states((one + two) + three, one + (two + three))


@pytest.mark.parametrize("days", [1.0, 90.0])
def test_requests_know_what_is_pending_as_if_it_were_given(days):
    events = site(days=days, seed=8).in_order().distinct()
    state = replace(State(Delays()), pending=events)
    rng = np.random.default_rng(2)
    for row in rng.integers(0, len(events), 40):
        asked = events.cut(row, row + 1)
        asked = replace(asked, time=asked.time + rng.integers(0, 3 * DAY, 1)).compact()
        request = Request.unknown(1, len(asked.article))
        found = features(state, Events.empty(), asked, request)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(
            found, features(State(Delays()), events, asked, request), **CLOSE
        )


def test_chunks_do_not_move_a_feature(monkeypatch):
    events = site(seed=5)
    whole = told(events)
    monkeypatch.setattr(scan, "_PAIRS", 500)
    monkeypatch.setattr(scan, "_HASHED_PAIRS", 500)
    np.testing.assert_allclose(told(events), whole, **CLOSE)


def test_what_a_chunk_needs_is_gone_with_it():
    events = site()
    gc.collect()
    gc.disable()  # it is not left to the collector, which does not see how large arrays are
    try:
        told(events)
        left = [one for one in gc.get_objects() if isinstance(one, Runs | Timeline | Happened)]
    finally:
        gc.enable()
    assert left == []


def test_the_order_of_rows_and_of_candidates_does_not_matter():
    events = site(seed=6)
    whole = told(events)
    rows = np.random.default_rng(0).permutation(len(events))
    shuffled = events.take(rows)
    places = np.concatenate(
        [np.arange(events.offsets[row], events.offsets[row + 1]) for row in rows]
    )
    np.testing.assert_allclose(told(shuffled), whole[places], **CLOSE)
    turned = np.concatenate(
        [np.arange(a, b)[::-1] for a, b in zip(events.offsets, events.offsets[1:], strict=False)]
    )
    reverse = Events(
        *(events.time, events.reader, events.page, events.offsets),
        *(events.article[turned], events.clicked[turned], events.articles, events.readers),
    )
    np.testing.assert_allclose(told(reverse), whole[turned], **CLOSE)


def test_what_happens_later_moves_no_bit():
    events = site(seed=7).in_order()
    rng = np.random.default_rng(1)
    now = int(events.time[250])
    later = list(np.flatnonzero(events.time >= now))
    changed_lists, changed_clicks = events.article.copy(), events.clicked.copy()
    first = events.offsets[later[0]]
    changed_lists[first:] = rng.permutation(changed_lists[first:])
    changed_clicks[first:] = rng.permutation(changed_clicks[first:])
    changed = Events(
        *(events.time, events.reader, events.page, events.offsets),
        *(changed_lists, changed_clicks, events.articles, events.readers),
    )
    assert not np.array_equal(told(changed)[first:], told(events)[first:])
    np.testing.assert_array_equal(told(changed)[:first], told(events)[:first])


def test_own_clicks_are_no_input():
    events = site(seed=8)
    asked = events.take(np.arange(len(events)))
    asked.clicked[:] = False
    request = Request.unknown(len(events), len(events.article))
    np.testing.assert_array_equal(
        features(State(Delays()), events, asked, request), told(events, request=request)
    )


def test_one_list_asked_alone_has_the_features_that_it_has_among_all():
    """This is what the service does: events of others, and one list."""
    events = site(seed=9).in_order()
    whole, half = told(events), len(events) // 2
    state = State.of(events.cut(0, half), Delays())
    for row in range(half, len(events), 11):
        one = events.cut(row, row + 1)
        got = features(
            state, events.cut(half, len(events)), one, Request.unknown(1, len(one.article))
        )
        np.testing.assert_allclose(
            got, whole[events.offsets[row] : events.offsets[row + 1]], **CLOSE
        )


def test_without_readers_only_what_is_known_of_readers_is_missing():
    events = site(seed=10)
    with_, without = told(events), told(events, Delays(readers=False))
    of_readers = [
        PLACES[name]
        for name in (
            *("reader_shown", "reader_clicked", "reader_since", "in_session", "in_list_before"),
            *("after_click", "length_difference", "reader_lists", "share_before", "since_list"),
            "activity",
        )
    ]
    others = [place for place in range(len(NAMES)) if place not in of_readers]
    np.testing.assert_array_equal(with_[:, others], without[:, others])
    assert np.ptp(without[:, PLACES["reader_shown"]]) == 0
    state = State.of(events, Delays(readers=False))
    assert not len(state.readers) or not any(
        len(state.tables[kind.name]) for kind in KINDS if kind.of_reader
    )


def test_without_clicks_only_what_was_shown_counts():
    events = site(seed=11)
    none = events.take(np.arange(len(events)))
    none.clicked[:] = False
    np.testing.assert_array_equal(told(events, Delays(clicks=False)), told(none))


def test_long_lists_are_compared_with_what_was_shown_most():
    rng = np.random.default_rng(2)
    few = site(seed=12)
    long = Events(
        np.array([START + 2 * DAY]),
        np.zeros(1, np.int64),
        np.array([-1]),
        np.array([0, 3000]),
        rng.permutation(3000),
        np.zeros(3000, bool),
        pa.array([100 + 10 * number for number in range(3000)]),
        few.readers.slice(0, 1),
    )
    state = State.of(few, Delays()).decayed(START + 2 * DAY - MINUTE)
    request = Request.unknown(1, 3000)
    got = features(state, Events.empty(), long, request)
    assert np.isfinite(got).all()
    turned = Events(
        *(long.time, long.reader, long.page, long.offsets),
        *(long.article[::-1], long.clicked, long.articles, long.readers),
    )
    np.testing.assert_allclose(features(state, Events.empty(), turned, request), got[::-1], **CLOSE)
    # Up to the limit all of the list counts.
    short = long.articles.to_numpy()[long.article[:256]]
    by_limit = features(
        state,
        Events.empty(),
        Events(
            *(long.time, long.reader, long.page, np.array([0, 256])),
            *(long.article[:256], long.clicked[:256], long.articles, long.readers),
        ),
        Request.unknown(1, 256),
    )
    assert len(short) == 256
    assert np.isfinite(by_limit).all()
    # Of a list that nobody can have seen whole only the articles count, no pairs.
    after = state + State.of(long, Delays())
    assert len(after.decayed(START + 3 * DAY).tables["pairs"]) <= len(state.tables["pairs"])
    assert len(after.decayed(START + 3 * DAY).tables["articles"]) == 3000


def test_a_state_forgets_what_is_a_week_old():
    events = site(seed=13)
    state = State.of(events, Delays())
    last = int(events.time.max())
    assert any(len(table) for table in state.decayed(last + 7 * DAY - HOUR).tables.values())
    empty = state.decayed(last + 8 * DAY).compact()
    assert not any(len(table) for table in empty.tables.values())
    assert not len(empty.articles)
    assert not len(empty.readers)


def test_compacting_keeps_what_is_known():
    events = site(days=20, seed=14)
    state = State.of(events, Delays())
    unknown = state.articles.extended(pa.array([1, 2, 3]))
    wide = State(state.rules, state.time, unknown, state.readers, state.tables, state.pending)
    equal_states(wide.compact(), state)
    assert len(wide.compact().articles) < len(unknown)


def leaking(of_delays, events: Events) -> set[str]:
    """Names of the features of early lists that change when what happens later does."""
    events = events.in_order()
    now = int(events.time[len(events) // 2])
    first = events.offsets[np.searchsorted(events.time, now)]
    changed = events.clicked.copy()
    changed[first:] = ~changed[first:]
    other = replace(events, clicked=changed, article=events.article.copy())
    other.article[first:] = (other.article[first:] + 1) % len(events.articles)
    before, after = (told(one, of_delays)[:first] for one in (events, other))
    return {name for name in NAMES if (before[:, PLACES[name]] != after[:, PLACES[name]]).any()}


def test_a_planted_leak_is_caught_by_name():
    events = site(lists=2000, seed=15, days=0.01)  # some lists a second
    assert leaking(USUAL, events) == set()
    names = leaking(Delays(event=-1_500_000, reader=-1_500_000), events)
    assert {"clicked_30min", "log_odds_4h", "shown_24h", "reader_shown"} <= names
    assert not names & {"ln_length", "in_history", "hour_sine", "device_1"}


def test_nothing_that_is_known_after_the_click_is_read():
    read = {column.name for column in behaviors_contract((Context(), *INPUTS))}
    assert "impression_time" in read
    after = re.compile("read_time|scroll|next_")
    assert not [name for name in read if after.match(name)]
    assert not [column.name for column in HISTORY if after.match(column.name)]


@pytest.mark.system
def test_features_of_shards_are_the_same_by_one_process_and_by_two():
    parts = cut(site(seed=16), [START + DAY // 3, START + 2 * DAY // 3])
    states = [State(USUAL)]
    for part in parts:
        states.append(states[-1] + State.of(part, USUAL))
    requests = [Request.unknown(len(part), len(part.article)) for part in parts]
    work = [states[:-1], parts, parts, requests]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(features, *work))
    for one, other in zip(found, map(features, *work), strict=True):
        np.testing.assert_array_equal(one, other)
