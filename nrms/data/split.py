"""A split that `Dataset.split` has opened: its shards are read one by one."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nrms import storage
from nrms.data.articles import Articles
from nrms.data.footers import Footers, mixed_zones
from nrms.data.histories import Histories
from nrms.data.impressions import Impressions, ShardInput, read_impressions
from nrms.data.layout import SplitFiles
from nrms.data.leakage import LateClicks, TimeRange
from nrms.data.quality import DataReport
from nrms.data.schema import schema_error
from nrms.errors import SchemaError

logger = logging.getLogger(__name__)


class Split:
    """The impressions of one split and the histories of its users.

    Attributes:
        name: The split's folder.
        files: Every file of the split by its path inside the folder, generations pinned.
        cache: Folder for local copies of what lies in a bucket.
        shards: The behaviours files, in order.
        history_files: The history files, in order.
        rows: Impressions in all shards, from the Parquet footers.
        file_rows: Rows of each file by its uri, as the footers say.
        zones: An example of a column of times with a zone (True), and of one without (False), if
            there is one.
        warnings: What may make the results wrong, one line each.
        bad: The error of each shard that was set aside, by uri. Only the other shards can be read.
        histories: The last clicks of each user before the user's first impression.
        in_view: Which articles were in view in the shards read so far, bool of shape `(articles +
            1,)`.
        shard_times: First and last impression time of each shard that has times, datetime64[us] in
            UTC, by uri.
        inputs: What fills the named arrays of impressions that are read.
        past_of: Gives what had happened before a shard, by its number; None where no model asks.
    """

    def __init__(
        self,
        name: str,
        uri: str,
        cache: Path,
        *,
        articles: Articles,
        inputs: Sequence[ShardInput],
        found: SplitFiles,
        footers: Footers,
        bad: dict[str, SchemaError],
        shard_times: dict[str, TimeRange],
        histories: Histories,
        late_clicks: LateClicks,
        history_report: DataReport,
    ) -> None:
        self.name, self.uri, self.cache = name, uri, cache
        self._articles, self.inputs = articles, tuple(inputs)
        shards, history_files = found.files["behaviors"], found.files["history"]
        self.files = shards | history_files
        self.shards, self.history_files = list(shards.values()), list(history_files.values())
        self.file_rows, self.zones = footers.rows, footers.zones
        self.rows = sum(self.file_rows.get(info.uri, 0) for info in self.shards)
        self.warnings = found.warnings + footers.warnings
        self.bad = bad
        self.shard_times = shard_times
        self.histories = histories
        self._late_clicks, self._history_report = late_clicks, history_report
        self.in_view = np.zeros(len(articles) + 1, bool)
        self.past_of: Callable[[int], object] | None = None
        self._shard_reports: dict[int, DataReport] = {}

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def time_range(self) -> TimeRange | None:
        """First and last impression time, datetime64[us] in UTC; None without times."""
        if not self.shard_times:
            return None
        first, last = zip(*self.shard_times.values(), strict=True)
        return min(first), max(last)

    @property
    def first_time(self) -> int | None:
        """The time of the first impression, microseconds since 1970 in UTC; None without times."""
        return None if self.time_range is None else _microseconds(self.time_range[0])

    @property
    def last_time(self) -> int | None:
        """That of the last impression."""
        return None if self.time_range is None else _microseconds(self.time_range[1])

    @property
    def good(self) -> list[storage.FileInfo]:
        """The shards that are not set aside, in order."""
        return [info for info in self.shards if info.uri not in self.bad]

    def read(self, i: int) -> Impressions:
        """Read shard i.

        Raises:
            SchemaError: the shard breaks the contract.
            StorageError: the file changed since the split was opened.
        """
        impressions = read_impressions(
            self.shards[i],
            self.cache,
            self._articles,
            self.histories,
            self.inputs,
            None if self.past_of is None else self.past_of(i),
        )
        if i not in self._shard_reports:
            self._late_clicks.add(impressions.user, impressions.clicks)
        self._shard_reports[i] = impressions.report
        self.in_view[impressions.candidates] = True
        return impressions

    @property
    def report(self) -> DataReport:
        """What was counted in the histories and in the shards read so far, each shard once."""
        late = DataReport({"late_history_clicked": self._late_clicks.count})
        return sum(self._shard_reports.copy().values(), self._history_report + late)


def _microseconds(time: np.datetime64) -> int:
    return int(time.astype("datetime64[us]").astype(np.int64))


def check_time_order(train: Split, validation: Split) -> bool:
    """Make sure that validation does not start before training ends. Adds to the warnings of
    `validation`.

    Returns:
        Whether it could be checked: False when either split has no times.

    Raises:
        SchemaError: the first validation impression is earlier than the last training impression.
    """
    if train.time_range is None or validation.time_range is None:
        logger.warning("Time order of %s and %s not checked: no times.", train.uri, validation.uri)
        return False
    if len(train.zones) == len(validation.zones) == 1:  # otherwise there is a warning already
        validation.warnings += mixed_zones(validation.name, train.zones | validation.zones)
    end, start = train.time_range[1], validation.time_range[0]
    if start < end:
        raise schema_error(
            f"The split {validation.name} must not start before the split {train.name} ends.",
            f"{validation.name} from {start}, {train.name} until {end}",
            validation.uri,
            "Split the impressions by time.",
        )
    return True
