"""What had happened before each shard of a split: counted apart, joined in the order of time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nrms.data.impressions import Impressions
from nrms.data.schema import schema_error
from nrms.data.split import Split
from nrms.data.time_order import shards_in_time_order
from nrms.features.context import snapshot
from nrms.features.context.events import Events
from nrms.features.context.input import Context, Moment, refuse_untimed
from nrms.features.context.state import State


class Past:
    """Counts the shards of a split, then tells each what had happened before it.

    The pass that reads each shard first gives it to `add`. After `join`, `split.read` fills the
    features. What the shards count, and their states, lie in files, so memory does not grow with
    the number of shards. The last shard is counted only if what comes after it is asked for.

    Args:
        split: the split.
        context: the input of the model.
        folder: an existing local folder for the files.
        frozen: whether the clicks of this split do not count, only what it shows.
    """

    def __init__(self, split: Split, context: Context, folder: Path, frozen: bool = False) -> None:
        self._split, self._context, self._folder = split, context, folder
        self._frozen = frozen
        self._shards: set[int] = set()
        self._newest: tuple[int, Events] | None = None  # of the shards so far; not counted yet

    def add(self, shard: int, impressions: Impressions) -> None:
        """Counts a shard.

        Raises:
            SchemaError: it has no times, or no clicks, which the model counts.
        """
        refuse_untimed(impressions)
        assert impressions.time is not None
        rules = self._context.rules
        if impressions.clicked is None and rules.clicks and not self._frozen and len(impressions):
            raise schema_error(
                "The clicks of a split must be given for a model that counts them.",
                f"{len(impressions):,} impressions without clicks",
                impressions.uri,
                "Give --context-clicks frozen, which counts clicks until the split begins (scores "
                "get worse the longer it is), or train with --context-clicks false.",
            )
        events = Events.of(impressions, np.flatnonzero(~np.isnat(impressions.time)))
        if not len(events):
            return
        self._shards.add(shard)
        known = [(shard, events), *([] if self._newest is None else [self._newest])]
        *older, self._newest = sorted(
            known, key=lambda one: (one[1].time.min(), one[1].time.max(), one[0])
        )
        for number, counted in older:
            snapshot.save(State.of(counted, rules), self._delta(number))

    def count(self, start: State) -> State:
        """Adds all shards, joins them, and gives what has happened after them."""
        for i in range(len(self._split)):
            self.add(i, self._split.read(i))
        self.join(start)
        return self.after()

    def join(self, start: State) -> None:
        """Joins the shards in the order of time, and lets the split tell each its state.

        Args:
            start: what had happened before the split.

        Raises:
            SchemaError: two shards overlap in time.
        """
        state = start
        for shard in shards_in_time_order(self._split):
            if shard in self._shards:
                snapshot.save(state, self._start(shard))
            if self._delta(shard).exists():
                state = state + snapshot.load(self._delta(shard), "a shard's count")
                self._delta(shard).unlink()
        self._last = state
        self._split.past_of = self._moment

    def after(self) -> State:
        """What has happened after the split, once it is joined."""
        if self._newest is None:
            return self._last.settled()
        return (self._last + State.of(self._newest[1], self._context.rules)).settled()

    def _moment(self, shard: int) -> Moment:
        if shard not in self._shards:
            return Moment(State(self._context.rules))
        return Moment(snapshot.load(self._start(shard), "a shard's start"))

    def _delta(self, shard: int) -> Path:
        return self._folder / f"delta-{shard}.parquet"

    def _start(self, shard: int) -> Path:
        return self._folder / f"start-{shard}.parquet"
