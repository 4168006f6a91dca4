"""The state of a running service: rows that arrive, in whatever pieces and types, and its bound."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from nrms.features.context.events import Events
from nrms.features.context.features import Request, features
from nrms.features.context.live import Live, Rows
from nrms.features.context.state import KINDS, Delays, State, alike
from nrms.features.context.table import DAY
from tests.nrms.features.context.test_features import CLOSE, START, USUAL, site

NOW = START + 2 * DAY


def asked(state: State, lists: Events) -> np.ndarray:
    """The features of lists that know of a state alone."""
    return features(state, Events.empty(), lists, Request.unknown(len(lists), len(lists.article)))


def later(events: Events) -> Events:
    """Some lists of the same articles and readers, an hour after the last one."""
    lists = events.in_order().cut(0, 20)
    return replace(lists, time=np.full(20, int(events.time.max()) + DAY // 24))


@pytest.mark.parametrize("pieces", [1, 7, 400])
def test_the_pieces_in_which_rows_arrive_change_nothing(pieces):
    events = site(lists=1_200).in_order()
    live = Live(State(USUAL))
    edges = np.linspace(0, len(events), pieces + 1).astype(int)
    for start, stop in pairwise(edges):
        live.apply(Rows(events.cut(start, stop), int(stop)), NOW)
    assert live.state.position == len(events)
    lists = later(events)
    np.testing.assert_allclose(
        asked(live.state, lists), asked(State.of(events, USUAL), lists), **CLOSE
    )


def test_what_the_models_state_has_counted_is_not_counted_again():
    events = site(lists=800).in_order()
    live = Live(State.of(events.cut(0, 500), USUAL))
    live.apply(Rows(events, 800), NOW)
    lists = later(events)
    np.testing.assert_allclose(
        asked(live.state, lists), asked(State.of(events, USUAL), lists), **CLOSE
    )


def test_a_log_whose_first_rows_are_gone_is_read_from_the_first_that_is_there():
    assert Live(State(USUAL), start=70).state.position == 70
    assert Live(State(USUAL, position=90), start=70).state.position == 90


def test_a_clock_that_is_ahead_of_the_events_forgets_nothing():
    events = site(lists=1_200)
    live = Live(State(USUAL))
    live.apply(Rows(events, 1_200), NOW + 100 * DAY)
    assert len(live.state.tables["articles"]) == 25


def test_ids_of_other_types_are_compared_as_texts():
    events = site()
    texts = replace(
        events, readers=events.readers.cast(pa.string()), articles=events.articles.cast(pa.string())
    )
    expected = asked(State.of(texts, USUAL), later(texts))
    for first, second in ((events, texts), (texts, events)):
        state, lists = alike(State.of(first, USUAL), later(second))
        np.testing.assert_allclose(asked(state, lists), expected, **CLOSE)
    live = Live(State.of(events.in_order().cut(0, 200), USUAL))
    live.apply(Rows(texts, 400), NOW)
    np.testing.assert_allclose(asked(live.state, later(texts)), expected, **CLOSE)


def test_a_bound_on_keys_takes_the_oldest_of_the_largest_tables():
    whole = State.of(site(lists=2_000), Delays(event=0))
    most = len(whole) // 2
    state = whole.capped(most)
    assert most - len(KINDS) <= len(state) <= most
    sizes = {name: len(table) for name, table in state.tables.items()}
    for name, table in whole.tables.items():
        kept = np.isin(table.key, state.tables[name].key)
        assert kept.all() or sizes[name] == max(sizes.values())
        if not kept.all():
            assert table.last[~kept].max() <= table.last[kept].min()
            np.testing.assert_array_equal(state.tables[name].sums, table.sums[:, kept])
    assert state.capped(most) is state
