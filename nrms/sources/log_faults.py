"""Rows of a log that cannot be used: how many of each kind, and where the first one stands."""

from __future__ import annotations

from typing import NamedTuple

from nrms.data.schema import schema_error

FAULTS = {
    "columns": "with more or fewer columns than the header",
    "null_time": "without a time",
    "time": "with a time that is neither ISO 8601 nor an epoch number, of the years 1990 to 2099",
    "reader": "without a reader",
    "article": "without an article",
    "list": "without a list",
    "clicked": "whose clicked is not 0 or 1",
    "shown": "whose shown is not 0 or 1",
    "position": "whose position is not a number",
    "neither": "with neither shown nor clicked",
    "unseen_click": "with a click on an article that their list never showed (only histories have "
    "it)",
}


class _Fault(NamedTuple):
    rows: int
    uri: str
    row: int


class Faults:
    """Counts of bad rows by kind, a key of `FAULTS`.

    Example:
        >>> faults = Faults()
        >>> faults.add("reader", 2, "log.csv", 7)
        >>> faults.lines()
        ['2 rows without a reader (the first: row 7 of log.csv)']
    """

    def __init__(self) -> None:
        self._found: dict[str, _Fault] = {}

    def add(self, kind: str, rows: int, uri: str, row: int) -> None:
        """Counts `rows` more of a kind, of which the first is the row `row` of the file `uri`."""
        first = self._found.get(kind, _Fault(0, uri, row))
        self._found[kind] = first._replace(rows=first.rows + rows)

    def rows(self, kind: str) -> int:
        """The bad rows of one kind."""
        return self._found[kind].rows if kind in self._found else 0

    @property
    def total(self) -> int:
        """All bad rows; each counts once, under its first kind."""
        return sum(fault.rows for fault in self._found.values())

    def lines(self) -> list[str]:
        """A line for each kind that occurred, in the order of `FAULTS`."""
        return [
            f"{found.rows:,} rows {words} (the first: row {found.row:,} of {found.uri})"
            for kind, words in FAULTS.items()
            if (found := self._found.get(kind)) is not None
        ]

    def check(self, rows: int, most: float, uri: str) -> None:
        """Raises SchemaError where more than the share `most` of all `rows` are bad."""
        if self.total > most * rows:
            raise schema_error(
                f"At most --max-bad {most:g} of all rows may be bad.",
                f"{self.total:,} of {rows:,}: {'; '.join(self.lines())}",
                uri,
                "Repair or remove these rows, or give a larger --max-bad.",
            )
