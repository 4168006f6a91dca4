"""What a model reads of the moment of an impression: the features of each candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from nrms.data.articles import Articles
from nrms.data.columns import list_rows
from nrms.data.histories import Histories
from nrms.data.impressions import Impressions
from nrms.data.schema import schema_error
from nrms.features.context import snapshot
from nrms.features.context.events import Events
from nrms.features.context.features import GROUPS, NAMES, PLACES, VERSION, Request, features
from nrms.features.context.state import NO_ID, Delays, State, alike
from nrms.features.inputs import MomentInput, checked_size, registered

_SECOND = 1_000_000
_CANDIDATES = 200_000  # so many are looked up in histories at once


@registered
class Context(MomentInput):
    """The features of each candidate: float32 `(c, features)`, see `features.NAMES`.

    A shard must know what had happened before it, `Impressions.past`, a `Moment`.

    Args:
        event_delay: seconds until an event counts for articles and pairs.
        reader_delay: seconds until it counts for its own reader.
        readers: whether anything is kept of readers.
        clicks: whether clicks count, or only what was shown.
        max_list: longest list whose candidates are all compared with each other.
        version: that of the features.
        without: groups of features (`features.GROUPS`) that are 0 everywhere.

    Attributes:
        rules: how events count.
        state: what had happened at the end of the training split, once it is fitted or loaded.

    Raises:
        ValueError: a value of a damaged bundle, or the features are those of another release.
    """

    kind: ClassVar[str] = "context"
    reads_past: ClassVar[bool] = True
    name = "context"
    shape = (len(NAMES),)
    files = (snapshot.FILE,)

    def __init__(
        self,
        event_delay: float = 60,
        reader_delay: float = 0,
        readers: bool = True,
        clicks: bool = True,
        max_list: int = 256,
        version: int = VERSION,
        without: Sequence[str] = (),
    ) -> None:
        if version != VERSION:
            raise ValueError(f"features of version {version}; this release has version {VERSION}")
        delays = [float(seconds) for seconds in (event_delay, reader_delay)]
        if not all(0 <= seconds < 1e9 for seconds in delays):
            raise ValueError("a delay must be seconds, not negative")
        self.settings = {
            "event_delay": event_delay,
            "reader_delay": reader_delay,
            "readers": bool(readers),
            "clicks": bool(clicks),
            "max_list": checked_size(max_list),
            "version": version,
            "without": list(without),
        }
        left_out = [name for group in without for name in GROUPS[group] if name != "compared"]
        self._left_out = [PLACES[name] for name in left_out]
        event, reader = (int(seconds * _SECOND) for seconds in delays)
        self.rules = Delays(event, reader, bool(readers), bool(clicks), max_list)
        self.state = State(self.rules)
        self.mean = np.zeros(len(NAMES), np.float32)
        self.deviation = np.ones(len(NAMES), np.float32)

    def fill(
        self,
        columns: Mapping[str, pa.Array],
        impressions: Impressions,
        articles: Articles,
        histories: Histories,
    ) -> np.ndarray | None:
        """See the class; None where nobody told what had happened before. Raises SchemaError: the
        file has no times.
        """
        moment = impressions.past
        if moment is None:
            return None
        assert isinstance(moment, Moment)
        impressions = moment.timed(impressions)
        refuse_untimed(impressions)
        request = _request(impressions, articles, histories)
        features = moment.features(impressions, request)
        features[:, self._left_out] = 0
        return features

    def save(self, folder: Path) -> None:
        """Writes the state."""
        snapshot.save(self.state, folder / snapshot.FILE)

    def load(self, files: Mapping[str, Path]) -> None:
        """Reads the state. Raises ArtifactError: it is damaged, or of other rules."""
        path = files[snapshot.FILE]
        self.state = snapshot.load(path, f"{path.name} of the model")


class Moment:
    """What had happened before a shard, and which of its own rows count for those after them.

    Args:
        state: what had happened before all of its impressions.
        events: what counts beside; None for the shard's own impressions.
        now: the time of impressions in a file without times, microseconds since 1970; None where
            such a file is refused. Where the file's own rows do not count, it is also that of
            single impressions without a time.
        readers: who the readers are, of shape `(n,)`, where the file names them otherwise.

    Attributes:
        own_rows: whether the shard's own impressions count.
    """

    def __init__(
        self,
        state: State,
        events: Events | None = None,
        now: int | None = None,
        readers: pa.Array | None = None,
    ) -> None:
        self._state, self._events, self._now, self._readers = state, events, now, readers
        self.own_rows = events is None

    def timed(self, impressions: Impressions) -> Impressions:
        """The impressions, those without a time at the time that stands for it."""
        if self._now is None:
            return impressions
        now, time = np.array(self._now).astype("datetime64[us]"), impressions.time
        if time is None:
            return replace(impressions, time=np.full(len(impressions), now))
        if self.own_rows:
            return impressions
        return replace(impressions, time=np.where(np.isnat(time), now, time))

    def features(self, impressions: Impressions, request: Request) -> np.ndarray:
        """The features of the shard's candidates, see `features.features`. An impression without a
        time knows of nothing. One before the time of the state knows what is known then.
        """
        if self._readers is not None:
            impressions = replace(impressions, user_id=self._readers)
        assert impressions.time is not None
        timed = ~np.isnat(impressions.time)
        out = np.empty((len(impressions.candidates), len(NAMES)), np.float32)
        candidate_timed = np.repeat(timed, np.diff(impressions.offsets))
        for rows, places, state, own in (
            (np.flatnonzero(timed), candidate_timed, self._state, True),
            (np.flatnonzero(~timed), ~candidate_timed, State(self._state.rules), False),
        ):
            if not len(rows):
                continue
            whole = len(rows) == len(timed)
            lists = Events.of(impressions, None if whole else rows)
            time = np.maximum(lists.time, state.time) if own else np.zeros(len(rows), np.int64)
            lists = replace(lists, time=time)
            state, lists = alike(state, lists)
            events = self._events if self._events is not None and own else lists
            part = request.take(rows, places)
            out[places] = features(state, events if own else Events.empty(), lists, part)
        return out


def refuse_untimed(impressions: Impressions) -> None:
    """Raises SchemaError where a file has no times: nothing then happened before anything."""
    if impressions.time is None:
        raise schema_error(
            "Column `impression_time` must be given for a model that reads what happened before.",
            f"{len(impressions):,} rows without it",
            impressions.uri,
            "Add the times, or take a model without context.",
        )


def _request(impressions: Impressions, articles: Articles, histories: Histories) -> Request:
    candidates = impressions.candidates
    published = np.full(len(candidates), NO_ID)
    if articles.published is not None:
        times = np.append(np.datetime64("NaT", "us"), articles.published)[candidates]
        known = ~np.isnat(times)
        published[known] = times[known].astype("datetime64[us]").astype(np.int64)
    owner = impressions.user[list_rows(impressions.offsets)]
    in_history = np.zeros(len(candidates), bool)
    for start in range(0, len(candidates), _CANDIDATES):
        part = slice(start, start + _CANDIDATES)
        read = histories.rows[owner[part]] == candidates[part, None]
        in_history[part] = read.any(axis=1) & (candidates[part] > 0)
    device = impressions.device
    return Request(
        published,
        in_history,
        histories.lengths[impressions.user].astype(np.int64),
        np.zeros(len(impressions), np.int64) if device is None else device.astype(np.int64),
    )
