"""Reads uploads in processes of their own, which may die: `python -m api.uploads.decoder_process`,
started by `api.uploads.decoder_pool`.

One process waits; for each upload it forks a child that may take so much memory and time and no
more. The child reads the hostile Parquet, checks it against the contract, and writes what it found
as plain Parquet, which is all that the service ever opens.

    <folder>/file, history, articles        what was uploaded, the last two if given
    <folder>/upload/behaviors.parquet       what the child writes
    <folder>/upload/history.parquet
    <folder>/articles.parquet               if articles were uploaded
    <folder>/result.json                    what `decode` gives, or the parts of a SchemaError
"""

from __future__ import annotations

import json
import os
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.ma  # pyarrow would, in each child, which takes longer than all that the child does
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nrms import storage
from nrms.data.articles import Articles
from nrms.data.columns import unnest
from nrms.data.parquet import ParquetReader, open_parquet
from nrms.data.schema import (
    ARTICLES,
    BEHAVIORS,
    HISTORY,
    STRINGS,
    Column,
    Families,
    refuse_nulls,
    schema_error,
)
from nrms.errors import SchemaError

FILE, HISTORY_FILE, ARTICLES_FILE = "file", "history", "articles"
ROW_USERS = "row_user_id"  # the users as they came, where each row brings a history of its own
RESULT = "result.json"
ID_LENGTH, TITLE_LENGTH = 200, 2_000  # characters
# the child's exit code when it could not write; it could not write why either
DISK_FULL = os.EX_IOERR

# The rows' own history beside the contract's columns, but for the demo data's planted scores.
UPLOAD = (
    *(column for column in BEHAVIORS if column.name != "oracle_scores"),
    Column("article_id_fixed", "ids", required=False, names="article"),
    Column("impression_time_fixed", "times", required=False),
)
_NAMES = {
    FILE: "a behaviours file (`article_ids_inview`)",
    HISTORY_FILE: "a history file (`user_id`, `article_id_fixed`)",
    ARTICLES_FILE: "an articles file (`article_id`, `title`)",
}
_LISTS = {"article_ids_inview", "article_ids_clicked", "article_id_fixed"}


@dataclass(frozen=True)
class Task:
    """One upload to read.

    Attributes:
        folder: see the module.
        strings: whether the catalogue's article ids are strings, and not integers.
        max_impressions: rows at most.
        max_candidates: candidates of a row at most, and clicks.
        max_entries: candidates, clicks and history entries of all rows at most.
        max_articles: articles at most.
        memory_bytes: what the child may take beyond what the process has.
        seconds: of processor time.
    """

    folder: str
    strings: bool
    max_impressions: int
    max_candidates: int
    max_entries: int
    max_articles: int
    memory_bytes: int
    seconds: float

    def line(self) -> bytes:
        """The task as the line that the process reads."""
        return json.dumps(asdict(self)).encode() + b"\n"


def decode(task: Task) -> dict[str, object]:
    """Reads an upload and writes it as plain Parquet.

    Returns:
        `row_histories`: whether the histories came in the rows; `taken`: which file was taken for
        what, where its columns say something else than its name; `warnings`: columns that are most
        likely meant, but have another name.

    Raises:
        SchemaError: it breaks the contract or a limit.
    """
    folder = Path(task.folder)
    families: Families = {"article": pa.string() if task.strings else pa.int64()}
    paths = _sorted_out(folder)
    file, has_history = paths[FILE], HISTORY_FILE in paths
    (folder / "upload").mkdir()
    with open_parquet(storage.stat(file), folder, UPLOAD, families) as reader:
        _limit(reader, task.max_impressions, "impressions", task.memory_bytes)
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
                _limit_list(columns[name], task.max_candidates, what, file.name)
    if row_histories:
        names = ("article_id_fixed", "impression_time_fixed")
        history = {name: columns.pop(name) for name in names if name in columns}
        columns[ROW_USERS] = columns["user_id"]
        history["user_id"] = columns["user_id"] = pa.array(np.arange(len(columns["user_id"])))
    else:
        columns.pop("impression_time_fixed", None)
        with open_parquet(storage.stat(paths[HISTORY_FILE]), folder, HISTORY, families) as reader:
            _limit(reader, task.max_impressions, "users", task.memory_bytes)
            warnings += [f"{paths[HISTORY_FILE].name}: {hint}" for hint in reader.hints().values()]
            history = reader.read()
    articles = {}
    if ARTICLES_FILE in paths:
        info = storage.stat(paths[ARTICLES_FILE])
        with open_parquet(info, folder, ARTICLES, {}) as reader:
            _limit(reader, task.max_articles, "articles", task.memory_bytes)
        read = Articles.read(info, folder)
        articles = {"article_id": read.ids, "title": read.titles}
    of_history = file if row_histories else paths[HISTORY_FILE]
    parts = [(file, columns), (of_history, history), (paths.get(ARTICLES_FILE, file), articles)]
    _limit_values([(path.name, values) for path, values in parts], task)
    if articles:
        _write(articles, folder / "articles.parquet")
    _write(history, folder / "upload" / "history.parquet")
    _write(columns, folder / "upload" / "behaviors.parquet")
    taken = {path.name: kind for kind, path in paths.items() if path.name != kind}
    return {"row_histories": row_histories, "taken": taken, "warnings": warnings}


def _sorted_out(folder: Path) -> dict[str, Path]:
    """The file that is each part of the upload, by its columns where those tell.

    Raises:
        SchemaError: two files are the same part, or none has the impressions.
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
        return None  # whoever reads it says what is wrong
    if "article_ids_inview" in names:
        return FILE
    if {"user_id", "article_id_fixed"} <= names and "impression_id" not in names:
        return HISTORY_FILE
    return ARTICLES_FILE if {"article_id", "title"} <= names and "user_id" not in names else None


def write_rows(
    folder: Path, impressions: list[dict[str, object]], articles: list[dict[str, object]]
) -> None:
    """Writes rows that came as JSON, each with its history, as `decode` writes those of a file.

    Args:
        folder: see the module.
        impressions: `impression_id`, `user_id`, `article_ids_inview`, `article_id_fixed`,
            `article_ids_clicked`.
        articles: `article_id` and `title`.

    Raises:
        SchemaError: ids of one thing are integers and strings, or an article stands there twice.
    """
    columns = {name: _column(name, [row[name] for row in impressions]) for name in impressions[0]}
    columns[ROW_USERS] = columns["user_id"]
    columns["user_id"] = pa.array(np.arange(len(impressions)))
    (folder / "upload").mkdir()
    history = {"user_id": columns["user_id"], "article_id_fixed": columns.pop("article_id_fixed")}
    _write(history, folder / "upload" / "history.parquet")
    _write(columns, folder / "upload" / "behaviors.parquet")
    if articles:
        table = {
            name: _column(name, [row[name] for row in articles]) for name in ("article_id", "title")
        }
        _write(table, folder / "articles.parquet")


def _column(name: str, values: list[object]) -> pa.Array:
    try:
        return pa.array(values)
    except pa.ArrowException as error:
        raise schema_error(
            f"`{name}` must hold integers or strings, the same in all rows.",
            " ".join(str(error).split()),
            "body",
            "Write all ids in one way.",
        ) from None


def _limit(reader: ParquetReader, rows: int, what: str, memory_bytes: int) -> None:
    """Looks at the footer, before anything is read."""
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


def _limit_list(array: pa.Array, limit: int, what: str, file: str) -> None:
    lengths = np.diff(unnest(array)[0])
    if len(lengths) and lengths.max() > limit:
        raise schema_error(
            f"One impression may have {limit:,} {what}.",
            f"{lengths.max():,} in row {lengths.argmax():,} (from 0)",
            file,
            "Cut the list.",
        )


def _limit_values(files: list[tuple[str, dict[str, pa.Array]]], task: Task) -> None:
    """Looks at what was read: a few bytes of Parquet can be a list of millions, and the service has
    to hold it all.
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
    # The service makes some copies of what it works on.
    if taken > (limit := task.memory_bytes // 4):
        raise schema_error(
            f"The values of one upload may take {limit:,} bytes.",
            f"{taken:,}",
            FILE,
            "Send it in several uploads.",
        )


def _too_large(memory_bytes: int) -> SchemaError:
    return schema_error(
        f"A file may take {memory_bytes:,} bytes when it is read.",
        "one that takes more",
        FILE,
        "Send it in several uploads.",
    )


def _write(columns: dict[str, pa.Array], path: Path) -> None:
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.table(columns), path, write_page_checksum=True, **plain)


def _child(task: Task) -> int:
    """The child's life: limits, work, result; its exit code."""
    folder = Path(task.folder)
    _lower(resource.RLIMIT_AS, _address_space() + task.memory_bytes)
    _lower(resource.RLIMIT_CPU, max(1, round(task.seconds)))
    _lower(resource.RLIMIT_FSIZE, 4 * task.memory_bytes)
    _lower(resource.RLIMIT_CORE, 0)
    try:
        result = decode(task)
    except SchemaError as error:
        if isinstance(error.__cause__, MemoryError):
            error = _too_large(task.memory_bytes)
        result = {
            "error": error.parts or {"rule": str(error), "received": "", "where": FILE, "todo": ""}
        }
    except MemoryError:
        result = {"error": _too_large(task.memory_bytes).parts}
    except OSError:
        return DISK_FULL
    try:
        (folder / RESULT).write_text(json.dumps(result))
    except OSError:
        return DISK_FULL
    return 0


def _address_space() -> int:
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[0]) * resource.getpagesize() if status.exists() else 0


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    try:
        resource.setrlimit(limit, (value, value))
    except (ValueError, OSError):  # macOS has no limit of the address space
        return


def main() -> None:
    """Answers each line, a task, with a line, the child's wait status, until there are no more."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)  # what Arrow says of a hostile file before it aborts belongs in no log
    os.write(answers, b"ready\n")
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = _child(Task(**json.loads(line)))
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        os.write(answers, f"{status}\n".encode())


if __name__ == "__main__":
    main()
