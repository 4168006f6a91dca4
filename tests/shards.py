"""Shards of impressions for tests, without files."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from nrms.data.impressions import Impressions
from nrms.data.quality import DataReport

SECOND = np.timedelta64(1_000_000, "us")


def random_shard(rng, n, articles=8, start="2024-01-01T00:00:00", seconds=3600 * 48, longest=6):
    """n impressions over `seconds` from `start`, in no order, with ties, unknown articles and
    one-class ones.
    """
    lengths = rng.integers(0, longest + 1, n)
    candidates = rng.integers(0, articles + 1, lengths.sum()).astype(np.int32)
    return Impressions(
        impression_id=pa.array(np.arange(n)),
        user_id=pa.array(np.arange(n)),
        time=np.datetime64(start, "us") + rng.integers(0, seconds, n) * SECOND,
        user=np.arange(n, dtype=np.int32),
        offsets=np.append(0, np.cumsum(lengths)),
        candidates=candidates,
        clicked=rng.random(len(candidates)) < 0.3,
        candidate_ids=pa.array(candidates.astype(np.int64)),
        device=None,
        clicks=None,
        report=DataReport(),
    )


def without_time(shard, rows=slice(None)):
    """The shard with NaT for these rows."""
    time = shard.time.copy()
    time[rows] = np.datetime64("NaT")
    return replace(shard, time=time)
