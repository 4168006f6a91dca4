"""The zip file of ranks that a challenge takes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nrms.data.impressions import Impressions
from nrms.data.schema import schema_error
from nrms.evaluation.ranking import ranks

# The zip file that --submission writes, and the one file in it.
SUBMISSIONS = {
    "ebnerd": ("predictions.zip", "predictions.txt"),
    "mind": ("prediction.zip", "prediction.txt"),
}
_LINE_BREAK = r"[\n\v\f\r\x1c-\x1e\x85\x{2028}\x{2029}]"
# a fixed time for the file in the zip, so that equal ranks give equal bytes
_EPOCH = (1980, 1, 1, 0, 0, 0)


def refuse_line_breaks(impressions: Impressions, uri: str) -> None:
    """Refuses ids with line breaks, because a submission has one line for each impression."""
    ids = impressions.impression_id
    if pa.types.is_integer(ids.type):
        return
    broken = pc.match_substring_regex(ids.cast(pa.large_string()), _LINE_BREAK)
    if pc.any(broken).as_py():
        first = ids.filter(broken)[0].as_py()
        raise schema_error(
            "Column `impression_id` must hold no line break where a submission is written.",
            f"{first!r}, the first of {pc.sum(broken).as_py():,}",
            uri,
            "Rename the impressions, or leave --submission out.",
        )


@contextmanager
def submission(
    folder: Path, names: tuple[str, str]
) -> Iterator[Callable[[Impressions, np.ndarray], None]]:
    """Writes the zip file of a challenge, shard by shard, with a line `impression_id [rank,...]`
    for each impression.
    """
    archive, member = names
    entry = zipfile.ZipInfo(member, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    with (
        zipfile.ZipFile(folder / archive, "w") as file,
        file.open(entry, "w", force_zip64=True) as stream,
    ):

        def write(impressions: Impressions, scores: np.ndarray) -> None:
            offsets = pa.array(impressions.offsets, pa.int32())
            text = pa.array(ranks(impressions.offsets, scores)).cast(pa.string())
            joined = pc.binary_join(pa.ListArray.from_arrays(offsets, text), ",")
            parts = (impressions.impression_id, " [", joined, "]\n", "")
            wide = (
                pc.cast(pa.scalar(part) if isinstance(part, str) else part, pa.large_string())
                for part in parts
            )
            lines = pc.binary_join_element_wise(*wide)
            if len(lines):
                stream.write(lines.buffers()[2])  # all lines, one after the other

        yield write
