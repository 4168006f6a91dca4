"""The state of a running service: events are applied as they arrive."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nrms.data.columns import list_rows, times_us, unnest
from nrms.features.context.events import Events, encoded
from nrms.features.context.state import State, alike

# So many lists wait before they are counted. Waiting ones cost each request a little, counting
# costs a pass over the whole state.
_WAITING = 500


@dataclass(frozen=True)
class Rows:
    """Rows of an event log, see `nrms.events.log.EventLog.since`.

    Attributes:
        events: the lists. Of a late click's list those candidates alone are clicked that the click
            is about.
        position: that of the last row.
    """

    events: Events
    position: int

    @classmethod
    def of(cls, table: pa.Table) -> Rows:
        """The rows of a table with at least one."""
        columns = {name: table[name].combine_chunks() for name in table.column_names}
        offsets, candidates = unnest(columns["article_ids_inview"])
        pages = columns["article_id"].cast(candidates.type)
        codes, articles = encoded(pa.concat_arrays([candidates, pages]))
        reader, readers = encoded(columns["user_id"])
        article, page = codes[: len(candidates)], codes[len(candidates) :]
        click_offsets, clicked_ids = unnest(columns["article_ids_clicked"])
        found = pc.index_in(clicked_ids.cast(articles.type), value_set=articles)
        click = pc.fill_null(found, -1).to_numpy()
        size = len(articles) + 1
        keys = list_rows(offsets) * size + article
        clicked = np.isin(keys, list_rows(click_offsets) * size + click)
        time = times_us(columns["impression_time"]).astype("datetime64[us]").astype(np.int64)
        exposed = ~columns["late"].to_numpy(zero_copy_only=False)
        events = Events(time, reader, page, offsets, article, clicked, articles, readers, exposed)
        return cls(events, int(columns["position"][-1].as_py()))


class Live:
    """A state to which rows of an event log are applied, by one thread at a time. Whoever reads
    `state` needs no lock, because it is replaced and never changed.

    Args:
        state: what had happened before.
        start: rows of the log up to this position are no longer there.
        keys: of the state, at most.

    Attributes:
        state: what has happened.
    """

    def __init__(self, state: State, start: int = 0, keys: int | None = None) -> None:
        # A state that was not made from this log may have counted what the log holds of its time.
        self._since = state.latest if len(state) and not state.position else None
        self._keys = keys
        self.state = state if state.position else replace(state, position=start)

    def apply(self, rows: Rows, now: int) -> None:
        """Applies the rows that follow the state's position.

        Args:
            rows: the rows.
            now: the time, microseconds since 1970. What is pending is counted when it is old
                enough at this time, or at that of the newest event, if that is earlier: an event
                that arrives late is then mostly later than what is counted.
        """
        events = rows.events
        if self._since is not None:
            events = events.take(np.flatnonzero(events.time > self._since))
        state, events = alike(self.state, events)
        pending = Events.joined([state.pending, events.distinct()])
        state = replace(state, position=rows.position, pending=pending)
        ready = min(now, int(pending.time.max(initial=0))) - state.rules.longest
        if np.count_nonzero(pending.time < ready) >= _WAITING:
            state = state.decayed(ready)
        self.state = state if self._keys is None else state.capped(self._keys)

    def compact(self) -> None:
        """Lets go of the ids that nothing is known of any more."""
        self.state = self.state.compact()
