"""The folder that a night's scoring writes: one part for each behaviours file, and the files about
all parts.

<output>/part-NNNNN.parquet    predictions of the behaviours file number N, in the order of their
                               names
<output>/metrics.json, report.html, predictions.zip, ...
<output>/manifest.json, _SUCCESS    see `nrms.storage.commit`
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nrms.data.columns import unnest
from nrms.data.impressions import Impressions
from nrms.inference.table import prediction_table
from nrms.storage import commit, parquet

_OURS = re.compile(r"part-\d{5,}\.parquet|metrics\.json|report\.html|predictions?\.zip")


class NightOutput(commit.Output):
    """One output folder, local or in a bucket.

    Args:
        uri: the folder.
        plan: all that the predictions depend on, JSON-ready. Equal plans mean equal predictions.
    """

    def __init__(self, uri: str, plan: dict[str, Any]) -> None:
        content = "predictions of the same data by the same model"
        super().__init__(uri, {"plan": plan}, _belongs, content)

    def claim(
        self, wanted: Iterable[str] = (), overwrite: bool = False, verify: bool = False
    ) -> bool:
        """See `Output.claim`. Raises ConfigError where the folder holds anything else, even with
        `overwrite`.
        """
        found = commit.look(self.uri)
        commit.refuse_foreign(found, "plan", _belongs, "predictions", "not predictions")
        return super().claim(wanted, overwrite, verify)

    def scores(
        self, number: int, impressions: Impressions, score: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """The scores of a shard: those of its part if the folder holds it whole, or else those of
        `score()`, which are written as its part.

        Args:
            number: the shard's number.
            impressions: the shard, `c` candidates in all.
            score: gives float32 `[c]`.

        Returns:
            Float32 `[c]`, exactly as the part in the folder has them.

        Raises:
            StorageError: reading or writing failed, or a run with another plan took the folder.
        """

        def take(path: Path) -> np.ndarray | None:
            columns = parquet.read(path, ["impression_id", "scores"])
            offsets, values = unnest(columns["scores"].combine_chunks())
            same = np.array_equal(offsets, impressions.offsets) and columns[
                "impression_id"
            ].combine_chunks().equals(impressions.impression_id)
            return values.to_numpy(zero_copy_only=False) if same else None

        def make(path: Path) -> np.ndarray:
            values = score()
            written = self.write_part(path, prediction_table(impressions, values))
            assert written == len(impressions), (
                f"{path.name}: {len(impressions)} rows in, {written} rows out"
            )
            return values

        return self.part(f"part-{number:05}.parquet", take, make)


def _belongs(name: str) -> bool:
    return _OURS.fullmatch(name) is not None
