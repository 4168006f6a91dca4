"""The predictions that a scoring left in a folder, read back part by part."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa

from nrms import storage
from nrms.data.layout import describe
from nrms.data.schema import schema_error
from nrms.storage import commit, parquet
from nrms.storage.commit import MANIFEST, SUCCESS
from nrms.storage.scratch import scratch_folder

_PART = re.compile(r"part-(\d{5,})\.parquet")


class Predictions:
    """A finished folder of predictions, local or in a bucket.

    Args:
        uri: the folder.

    Attributes:
        uri: the folder, in its normal form.
        version: the version of the model that scored.
        parts: the manifest's entries of the parts, in order: name, rows, size, crc32c.

    Raises:
        SchemaError: the folder holds no finished predictions, or they are damaged.
        StorageError: it cannot be read.
    """

    def __init__(self, uri: str) -> None:
        self.uri = storage.normal(uri)
        found = commit.look(self.uri)
        if found.manifest and found.success is None:
            received = f"{MANIFEST} without {SUCCESS}, so the scoring has not ended"
            raise self._error(received, "Run its jobs.score again.")
        if found.manifest and not found.is_complete():
            raise self._error("files that are missing or damaged", "Run its jobs.score again.")
        parts = {
            int(name[1]): entry
            for entry in found.manifest.get("files", [])
            if (name := _PART.fullmatch(entry["name"]))
        }
        if not parts:
            raise self._error(describe(self.uri), "Give the --output of a jobs.score.")
        self._files = found.files
        self.parts = [parts[number] for number in sorted(parts)]
        self.version = str(found.manifest.get("model", {}).get("version"))

    @property
    def rows(self) -> int:
        """Impressions in all parts."""
        return sum(entry["rows"] for entry in self.parts)

    def tables(self) -> Iterator[pa.Table]:
        """Each part, with `impression_id`, `user_id`, `article_ids_inview`, `scores` and, where
        clicks were given, `article_ids_clicked`.
        """
        names = ["impression_id", "user_id", "article_ids_inview", "scores", "article_ids_clicked"]
        for entry in self.parts:
            with scratch_folder() as folder:
                path = storage.fetch(self._files[entry["name"]], folder)
                yield parquet.read(path, names)

    def _error(self, received: str, todo: str) -> Exception:
        return schema_error(
            "Predictions must be a folder that jobs.score has finished.", received, self.uri, todo
        )
