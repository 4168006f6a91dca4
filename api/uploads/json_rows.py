"""Uploads that come as JSON: a few rows, each with its reader's history."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from api.schemas import PredictIn
from api.uploads.contract import ROW_USERS, Decoded
from api.uploads.parquet_files import write_plain
from nrms.data.schema import schema_error
from nrms.events.event import microseconds


class JsonUpload:
    """The rows of one body.

    Args:
        body: the rows, checked against the document.
    """

    def __init__(self, body: PredictIn) -> None:
        self._body = body

    def save(self, folder: Path) -> str:
        """Writes the rows into the upload's folder, in the form in which those of a file are left
        there. Gives the SHA-256 of the body.

        Raises:
            SchemaError: ids of one column are integers here and strings there.
        """
        _write_rows(
            folder,
            [impression.model_dump() for impression in self._body.impressions],
            [article.model_dump() for article in self._body.articles],
        )
        return hashlib.sha256(self._body.model_dump_json().encode()).hexdigest()

    def decode(self, folder: Path) -> Decoded:
        """What is known of the rows. They were read when the body was checked, so no child process
        is needed.
        """
        return Decoded(row_histories=True, taken={}, warnings=[])


def _write_rows(
    folder: Path, impressions: list[dict[str, object]], articles: list[dict[str, object]]
) -> None:
    columns = {name: _column(name, [row[name] for row in impressions]) for name in impressions[0]}
    for name in ("impression_time", "article_id", "device_type"):
        if columns[name].null_count == len(impressions):
            del columns[name]  # as a file without the column
    columns[ROW_USERS] = columns["user_id"]
    columns["user_id"] = pa.array(np.arange(len(impressions)))
    (folder / "upload").mkdir()
    history = {"user_id": columns["user_id"], "article_id_fixed": columns.pop("article_id_fixed")}
    write_plain(history, folder / "upload" / "history.parquet")
    write_plain(columns, folder / "upload" / "behaviors.parquet")
    if articles:
        table = {
            name: _column(name, [row[name] for row in articles]) for name in ("article_id", "title")
        }
        write_plain(table, folder / "articles.parquet")


def _column(name: str, values: list[object]) -> pa.Array:
    if name == "impression_time":
        times = [microseconds(time) if isinstance(time, datetime) else None for time in values]
        return pa.array(times, pa.timestamp("us", "UTC"))
    try:
        return pa.array(values)
    except pa.ArrowException as error:
        raise schema_error(
            f"`{name}` must hold integers or strings, the same in all rows.",
            " ".join(str(error).split()),
            "body",
            "Write all ids in one way.",
        ) from None
