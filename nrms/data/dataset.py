"""A data set in the Parquet contract, local or in a bucket, read shard by shard.

    <uri>/articles.parquet
    <uri>/<split>/behaviors*.parquet    one file, several shards, or a folder `behaviors/` of
                                        shards; see `layout`
    <uri>/<split>/history*.parquet      the same

Every file's generation is pinned when its split is opened: a run reads the same bytes to its end,
or fails.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa

from nrms import storage
from nrms.data.articles import Articles
from nrms.data.histories import read_histories, read_users
from nrms.data.impressions import Impressions, read_impressions
from nrms.data.layout import describe, find_files
from nrms.data.leakage import count_clicked, first_impressions
from nrms.data.mistakes import first
from nrms.data.parquet import open_parquet
from nrms.data.quality import DataReport
from nrms.data.schema import BEHAVIORS, HISTORY, Families, schema_error, set_aside
from nrms.errors import ObjectNotFound, SchemaError
from nrms.storage.commit import fingerprint

logger = logging.getLogger(__name__)


class Dataset:
    """The articles of a data set, and the way to its splits.

    Example:
        dataset = Dataset.open("gs://bucket/ebnerd_small", cache)
        train = dataset.split("train", history_size=20)
        for i in range(len(train)):
            impressions = train.read(i)
    """

    def __init__(
        self, uri: str, cache: Path, articles_file: storage.FileInfo, articles: Articles
    ) -> None:
        self.uri = uri
        self.cache = cache
        self.articles_file = articles_file
        self.articles = articles

    @classmethod
    def open(cls, uri: str, cache: Path) -> "Dataset":
        """Open the data set at `uri`; objects of a bucket are downloaded into `cache`.

        Raises:
            SchemaError: there is no `articles.parquet`, or it breaks the contract.
            StorageError: no such bucket, no access, no connection.
        """
        try:
            info = storage.stat(storage.join(uri, "articles.parquet"))
        except ObjectNotFound:
            # A missing bucket is an error of its own, which the listing raises.
            raise schema_error(
                "A data set must have the file articles.parquet.",
                describe(uri),
                uri,
                "Give the folder that holds it and the splits, or run jobs.prepare.",
            ) from None
        return cls(uri, cache, info, Articles.read(info, cache))

    def split(self, name: str, history_size: int, set_aside_bad: bool = False) -> "Split":
        """Open the split in the folder `name`, keeping the last `history_size` clicks of each user.

        With `set_aside_bad`, a behaviours file that breaks the contract is noted in `Split.bad`,
        not raised.

        Raises:
            SchemaError: no behaviours or history file, or one that breaks the contract.
        """
        return Split(self, name, history_size, set_aside_bad)

    def fingerprint(self, splits: Iterable["Split"]) -> str:
        """sha256 (hex) of what these splits read: name, size and crc32c of every file.

        Equal for the same data in a folder and in a bucket; any changed byte changes it.
        """
        files = {"articles.parquet": self.articles_file}
        for split in splits:
            files |= {f"{split.name}/{name}": info for name, info in split.files.items()}
        found = [(name, fingerprint(info, self.cache)) for name, info in sorted(files.items())]
        lines = [f"{name} {file['size']} {file['crc32c']}\n" for name, file in found]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


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
        zones: An example of a column of times with a zone (True) and of one without (False), where
            there are.
        warnings: What may make an answer wrong, one line each.
        bad: The error of each shard that was set aside, by uri. Only the shards left out of it can
            be read.
        histories: The last clicks of each user, none of them from after the user's first
            impression.
        in_view: Which articles were in view in the shards read so far, bool of shape `(articles +
            1,)`.
        time_range: First and last impression time, datetime64[us] in UTC; None without times.
    """

    def __init__(
        self, dataset: Dataset, name: str, history_size: int, set_aside_bad: bool = False
    ) -> None:
        self.name = str(PurePosixPath(name))  # as it is in names of files, however it was written
        self.uri = storage.join(dataset.uri, self.name)
        self.cache, self._articles = dataset.cache, dataset.articles
        found = find_files(self.uri, but=dataset.articles_file.uri)
        shards, history_files = found.files["behaviors"], found.files["history"]
        self.warnings = found.warnings
        self.files = shards | history_files
        self.shards = list(shards.values())

        families: Families = {"article": self._articles.ids.type}
        self.bad: dict[str, SchemaError] = {}
        bad = self.bad if set_aside_bad else None
        self.file_rows: dict[str, int] = {}
        self.zones: dict[bool, str] = {}
        hints: dict[str, str] = {}
        for contract, files in ((HISTORY, history_files), (BEHAVIORS, shards)):
            for path, info in files.items():
                with (
                    set_aside(info, bad if contract is BEHAVIORS else None),
                    _beside(self._articles.ids),
                    open_parquet(info, self.cache, contract, families) as reader,
                ):
                    for column, hint in reader.hints().items():
                        hints.setdefault(column, f"{name}/{path}: {hint}")
                    self.file_rows[info.uri] = reader.rows
                    for column, zone in reader.zones.items():
                        self.zones.setdefault(zone is not None, f"`{column}` in {name}/{path}")
        self.rows = sum(self.file_rows.get(info.uri, 0) for info in self.shards)
        self.warnings += [*hints.values(), *_mixed_zones(name, self.zones)]

        self.history_files = list(history_files.values())
        users = read_users(self.history_files, self.cache, families.get("user", pa.int64()))
        first_impression, self.time_range = first_impressions(self.good, self.cache, users, bad)
        self.histories, late, self._history_report = read_histories(
            self.history_files, self.cache, self._articles, users, first_impression, history_size
        )
        if len(late):
            clicked = count_clicked(late, self.good, self.cache, users, self._articles, bad)
            self._history_report.add("late_history_clicked", clicked)
        self.in_view = np.zeros(len(dataset.articles) + 1, bool)
        self._shard_reports: dict[int, DataReport] = {}

    def __len__(self) -> int:
        return len(self.shards)

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
        impressions = read_impressions(self.shards[i], self.cache, self._articles, self.histories)
        self._shard_reports[i] = impressions.report
        self.in_view[impressions.candidates] = True
        return impressions

    @property
    def report(self) -> DataReport:
        """What was counted in the histories and in the shards read so far, each shard once."""
        return sum(self._shard_reports.copy().values(), self._history_report)


@contextmanager
def _beside(articles: pa.Array) -> Iterator[None]:
    """Show the first articles beside ids of another type."""
    try:
        yield
    except SchemaError as error:
        parts = error.parts
        if "article ids of the same type" not in parts.get("rule", ""):
            raise
        received = f"{parts['received']}; articles begin {first(articles)}"
        raise schema_error(parts["rule"], received, parts["where"], parts["todo"]) from error


def _mixed_zones(split: str, zones: dict[bool, str]) -> list[str]:
    """A warning where some times have a zone and others have none."""
    if len(zones) < 2:
        return []
    return [
        f"{split}: times without a zone are read as UTC: {zones[False]} has none, {zones[True]} "
        "has one. If the former are local times, histories can hold the clicks to predict, or lack "
        "others. Write all times in UTC."
    ]


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
    if len(train.zones) == len(validation.zones) == 1:  # else it is said already
        validation.warnings += _mixed_zones(validation.name, train.zones | validation.zones)
    end, start = train.time_range[1], validation.time_range[0]
    if start < end:
        raise schema_error(
            f"The split {validation.name} must not start before the split {train.name} ends.",
            f"{validation.name} from {start}, {train.name} until {end}",
            validation.uri,
            "Split the impressions by time.",
        )
    return True
