"""What an upload consists of and may hold; and the task of reading one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from nrms.data.schema import BEHAVIORS, Column

FILE, HISTORY_FILE, ARTICLES_FILE = "file", "history", "articles"
ROW_USERS = "row_user_id"  # the users as they came, where each row has its own history
ID_LENGTH, TITLE_LENGTH = 200, 2_000  # characters

# The contract's columns, and the rows' own histories.
UPLOAD = (
    *BEHAVIORS,
    Column("article_id_fixed", "ids", required=False, names="article"),
    Column("impression_time_fixed", "times", required=False),
)


@dataclass(frozen=True)
class Task:
    """One upload to read.

    Attributes:
        folder: see `api.uploads`.
        events: whether it holds events, and not impressions to score.
        strings: whether the catalogue's article ids are strings, and not integers; None where there
            is no catalogue.
        max_impressions: rows at most.
        max_candidates: candidates of a row at most, and also clicks.
        max_entries: candidates, clicks and history entries of all rows at most.
        max_articles: articles at most.
        memory_bytes: what the child may use beyond the memory of the process that forks it.
        seconds: of processor time.
    """

    folder: str
    events: bool
    strings: bool | None
    max_impressions: int
    max_candidates: int
    max_entries: int
    max_articles: int
    memory_bytes: int
    seconds: float

    def line(self) -> bytes:
        """The task as the line that the process reads."""
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass(frozen=True)
class Decoded:
    """What was found in an upload, beside its rows.

    Attributes:
        row_histories: whether the histories came in the rows; False for events.
        taken: which file was taken for what, where its columns say something else than its name.
        warnings: columns that are most likely meant, but have another name.
    """

    row_histories: bool
    taken: dict[str, str]
    warnings: list[str]
