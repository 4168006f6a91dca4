"""Columns that stand not in a Parquet file but in the names of its folders, as `key=value`, which
is how Hive and Spark write them.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import pyarrow as pa

# Only folders within the table count: the folder that holds a whole data set, such as
# date=2026-11-21, is not a column.
_FOLDERS = re.compile(r"(?:^|/)(?:behaviors|history)[^/]*((?:/[^/=]+=[^/]*)+)/[^/]*$")
_NULL = "__HIVE_DEFAULT_PARTITION__"


def partition_keys(uri: str) -> dict[str, str | None]:
    """Names and values of the `key=value` folders that a behaviours or history file lies in.

    Example:
        >>> partition_keys("data/train/behaviors/device_type=2/part-0.parquet")
        {'device_type': '2'}
    """
    found = _FOLDERS.search(uri.replace("\\", "/"))
    pairs = [folder.partition("=") for folder in found[1].split("/")[1:]] if found else []
    return {unquote(key): None if value == _NULL else unquote(value) for key, _, value in pairs}


def partition_value(text: str | None, kind: str) -> pa.Scalar:
    """The value of a key as a column of this kind ("id", "integer", "time" or "text") would hold
    it.

    Raises:
        ValueError: the text is not of this kind.
    """
    if text is None:
        return pa.scalar(None)
    if kind == "time":
        return pa.scalar(text).cast(pa.timestamp("us"))
    if kind == "text":
        return pa.scalar(text)
    # 007 is text, because as a number it would be written back as 7.
    if re.fullmatch("0|-?[1-9][0-9]{0,17}", text):
        return pa.scalar(int(text))
    if kind == "integer":
        raise ValueError(text)
    return pa.scalar(text)
