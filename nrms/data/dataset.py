"""A data set in the Parquet contract, local or in a bucket, read shard by shard.

    <uri>/articles.parquet
    <uri>/<split>/behaviors*.parquet    one file, several shards, or a folder `behaviors/` of
                                        shards; see `layout`
    <uri>/<split>/history*.parquet      the same

The generation of every file is pinned when its split is opened, so a run reads the same bytes to
its end, or fails.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from nrms import storage
from nrms.data.articles import Articles
from nrms.data.footers import Footers
from nrms.data.histories import read_histories, read_users
from nrms.data.impressions import ShardInput, behaviors_contract
from nrms.data.layout import SplitFiles, describe, find_files
from nrms.data.leakage import LateClicks, first_impressions
from nrms.data.schema import Column, schema_error
from nrms.data.split import Split
from nrms.errors import ObjectNotFound, SchemaError
from nrms.storage.commit import fingerprint


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
    def open(cls, uri: str, cache: Path, columns: Sequence[Column] = ()) -> "Dataset":
        """Open the data set at `uri`; objects of a bucket are downloaded into `cache`. Of the
        articles, `columns` beyond the contract are read as well.

        Raises:
            SchemaError: there is no `articles.parquet`, or it breaks the contract.
            StorageError: no such bucket, no access, no connection.
        """
        try:
            info = storage.stat(storage.join(uri, "articles.parquet"))
        except ObjectNotFound:
            # If the bucket is missing, this listing raises the error that says so.
            raise schema_error(
                "A data set must have the file articles.parquet.",
                describe(uri),
                uri,
                "Give the folder that holds it and the splits, or run jobs.prepare.",
            ) from None
        return cls(uri, cache, info, Articles.read(info, cache, columns))

    def split(
        self,
        name: str,
        history_size: int,
        inputs: Sequence[ShardInput] = (),
        set_aside_bad: bool = False,
        files: SplitFiles | None = None,
    ) -> Split:
        """Open the split in the folder `name`: each history file twice, each behaviours file once.

        Args:
            name: The split's folder.
            history_size: Clicks kept for each user, the last ones.
            inputs: What fills the named arrays of its impressions.
            set_aside_bad: Whether a behaviours file that breaks the contract is noted in
                `Split.bad`, not raised.
            files: Its files, where they do not lie in its folder.

        Raises:
            SchemaError: no behaviours or history file, or one that breaks the contract.
        """
        name = str(PurePosixPath(name))  # as it is in names of files, however it was written
        uri = storage.join(self.uri, name)
        bad: dict[str, SchemaError] = {}
        found = files or find_files(uri, but=self.articles_file.uri)
        shards, history_files = found.files["behaviors"], found.files["history"]
        footers = Footers(name, self.cache, self.articles.ids)
        users = read_users(history_files, footers)
        first_impression, shard_times = first_impressions(
            shards, behaviors_contract(inputs), footers, users, bad if set_aside_bad else None
        )
        histories, late_entries, report = read_histories(
            list(history_files.values()),
            self.cache,
            self.articles,
            users.cast(footers.user_type),
            first_impression,
            history_size,
        )
        return Split(
            name,
            uri,
            self.cache,
            articles=self.articles,
            inputs=inputs,
            found=found,
            footers=footers,
            bad=bad,
            shard_times=shard_times,
            histories=histories,
            late_clicks=LateClicks(late_entries, self.articles),
            history_report=report,
        )

    def fingerprint(self, splits: Iterable[Split]) -> str:
        """sha256 (hex) of what these splits read: name, size and crc32c of every file.

        Equal for the same data in a folder and in a bucket; any changed byte changes it.
        """
        files = {"articles.parquet": self.articles_file}
        for split in splits:
            files |= {f"{split.name}/{name}": info for name, info in split.files.items()}
        found = [(name, fingerprint(info, self.cache)) for name, info in sorted(files.items())]
        lines = [f"{name} {file['size']} {file['crc32c']}\n" for name, file in found]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
