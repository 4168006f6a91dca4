"""Reads the Parquet files of an upload, checks them against the contract and the limits, and writes
them as plain Parquet. It runs in a child process, because a hostile file may kill it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from api.uploads.contract import (
    ARTICLES_FILE,
    FILE,
    HISTORY_FILE,
    ID_LENGTH,
    ROW_USERS,
    TITLE_LENGTH,
    UPLOAD,
    Decoded,
    Task,
)
from nrms import storage
from nrms.data.articles import Articles
from nrms.data.columns import unnest
from nrms.data.parquet import ParquetReader, open_parquet
from nrms.data.schema import (
    ARTICLES,
    HISTORY,
    STRINGS,
    Families,
    refuse_nulls,
    schema_error,
)

_NAMES = {
    FILE: "a behaviours file (`article_ids_inview`)",
    HISTORY_FILE: "a history file (`user_id`, `article_id_fixed`)",
    ARTICLES_FILE: "an articles file (`article_id`, `title`)",
}
_LISTS = {"article_ids_inview", "article_ids_clicked", "article_id_fixed"}


def decode(task: Task) -> Decoded:
    """Reads an upload and writes it as plain Parquet.

    Raises:
        SchemaError: it breaks the contract or a limit.
    """
    folder = Path(task.folder)
    families: Families = {"article": pa.string() if task.strings else pa.int64()}
    paths = _sorted_out(folder)
    file, has_history = paths[FILE], HISTORY_FILE in paths
    (folder / "upload").mkdir()
    with open_parquet(storage.stat(file), folder, UPLOAD, families) as reader:
        limit_rows(reader, task.max_impressions, "impressions", task.memory_bytes)
        row_histories = "article_id_fixed" in reader.present
        hints = reader.hints()
        if has_history:
            hints = {
                column: hint for column, hint in hints.items() if not column.endswith("_fixed")
            }
        if row_histories == has_history:
            hint = hints.get(
                "article_id_fixed", "add the column, or send the history file as well."
            )
            raise schema_error(
                "Histories must come in one way: as the column `article_id_fixed` of the rows, or "
                "as a file `history`.",
                "both" if has_history else "neither",
                file.name,
                "Leave one out." if has_history else hint[0].upper() + hint[1:],
            )
        warnings = [f"{file.name}: {hint}" for hint in hints.values()]
        columns = reader.read()
        for name in ("impression_id", "user_id"):
            refuse_nulls(name, columns[name], file.name)
        for name, what in (("article_ids_inview", "candidates"), ("article_ids_clicked", "clicks")):
            if name in columns:
                limit_lists(columns[name], task.max_candidates, what, file.name)
    if row_histories:
        names = ("article_id_fixed", "impression_time_fixed")
        history = {name: columns.pop(name) for name in names if name in columns}
        columns[ROW_USERS] = columns["user_id"]
        history["user_id"] = columns["user_id"] = pa.array(np.arange(len(columns["user_id"])))
    else:
        columns.pop("impression_time_fixed", None)
        with open_parquet(storage.stat(paths[HISTORY_FILE]), folder, HISTORY, families) as reader:
            limit_rows(reader, task.max_impressions, "users", task.memory_bytes)
            warnings += [f"{paths[HISTORY_FILE].name}: {hint}" for hint in reader.hints().values()]
            history = reader.read()
    articles = {}
    if ARTICLES_FILE in paths:
        info = storage.stat(paths[ARTICLES_FILE])
        with open_parquet(info, folder, ARTICLES, {}) as reader:
            limit_rows(reader, task.max_articles, "articles", task.memory_bytes)
        read = Articles.read(info, folder)
        articles = {"article_id": read.ids, "title": read.titles}
    of_history = file if row_histories else paths[HISTORY_FILE]
    parts = [(file, columns), (of_history, history), (paths.get(ARTICLES_FILE, file), articles)]
    limit_values([(path.name, values) for path, values in parts], task)
    if articles:
        write_plain(articles, folder / "articles.parquet")
    write_plain(history, folder / "upload" / "history.parquet")
    write_plain(columns, folder / "upload" / "behaviors.parquet")
    taken = {path.name: kind for kind, path in paths.items() if path.name != kind}
    return Decoded(row_histories, taken, warnings)


def _sorted_out(folder: Path) -> dict[str, Path]:
    """Which file is which part of the upload: as its columns say, or else its name.

    Raises:
        SchemaError: two files are the same part, or no file has the impressions.
    """
    given = {kind: folder / kind for kind in _NAMES if (folder / kind).exists()}
    found = {name: _kind(path) or name for name, path in given.items()}
    if len(set(found.values())) == len(found) and FILE in found.values():
        return {kind: given[name] for name, kind in found.items()}
    name = next(name for name, kind in found.items() if name != kind)
    todo = f"Send it as `{found[name]}`, and a behaviours file as `{FILE}`."
    raise schema_error(
        f"`{name}` must be {_NAMES[name]}.",
        f"{_NAMES[found[name]]}, by its columns {', '.join(pq.read_schema(given[name]).names)}",
        name,
        todo if FILE not in found.values() else f"Send {_NAMES[name]} instead, or leave it out.",
    )


def _kind(path: Path) -> str | None:
    """What part of an upload a file is, where its columns leave no doubt."""
    try:
        names = set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return None  # reading it will say what is wrong
    if "article_ids_inview" in names:
        return FILE
    if {"user_id", "article_id_fixed"} <= names and "impression_id" not in names:
        return HISTORY_FILE
    return ARTICLES_FILE if {"article_id", "title"} <= names and "user_id" not in names else None


def limit_rows(reader: ParquetReader, rows: int, what: str, memory_bytes: int) -> None:
    """Checks what the footer says, before anything is read."""
    if reader.rows > rows:
        raise schema_error(
            f"One upload may hold {rows:,} {what}.",
            f"{reader.rows:,}",
            reader.uri,
            "Send it in several uploads.",
        )
    if reader.size > memory_bytes:
        raise schema_error(
            f"A file may take {memory_bytes:,} bytes when it is read.",
            f"one that takes {reader.size:,}",
            reader.uri,
            "Send it in several uploads, without columns that are not needed.",
        )


def limit_lists(array: pa.Array, limit: int, what: str, file: str) -> None:
    """Checks the lengths of a column's lists."""
    lengths = np.diff(unnest(array)[0])
    if len(lengths) and lengths.max() > limit:
        raise schema_error(
            f"One impression may have {limit:,} {what}.",
            f"{lengths.max():,} in row {lengths.argmax():,} (from 0)",
            file,
            "Cut the list.",
        )


def limit_values(files: list[tuple[str, dict[str, pa.Array]]], task: Task) -> None:
    """Checks what was read, because a few bytes of Parquet can be a list of millions of entries,
    and the service has to hold them all.
    """
    entries = taken = 0
    for file, columns in files:
        for name, array in columns.items():
            taken += array.nbytes
            values = array
            if name in _LISTS:
                values = unnest(array)[1]
                entries += len(values)
            if values.type in STRINGS:
                limit = TITLE_LENGTH if name == "title" else ID_LENGTH
                longest = pc.max(pc.utf8_length(values.cast(pa.large_string()))).as_py() or 0
                if longest > limit:
                    raise schema_error(
                        f"A text of column `{'user_id' if name == ROW_USERS else name}` may have "
                        f"{limit:,} characters.",
                        f"one of {longest:,}",
                        file,
                        "Cut it.",
                    )
    if entries > task.max_entries:
        raise schema_error(
            f"One upload may hold {task.max_entries:,} candidates, clicks and history entries.",
            f"{entries:,}",
            FILE,
            "Send it in several uploads, or shorter histories.",
        )
    # The service makes a few copies of the values while it works on them.
    if taken > (limit := task.memory_bytes // 4):
        raise schema_error(
            f"The values of one upload may take {limit:,} bytes.",
            f"{taken:,}",
            FILE,
            "Send it in several uploads.",
        )


def write_plain(columns: dict[str, pa.Array], path: Path) -> None:
    """Writes columns as Parquet without compression or dictionaries."""
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.table(columns), path, write_page_checksum=True, **plain)
