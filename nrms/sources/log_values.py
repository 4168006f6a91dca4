"""The values of a log's columns, whatever form a CSV or Parquet file gives them: times, ids and
0/1.
"""

from __future__ import annotations

import polars as pl

_FIRST, _AFTER = 631_152_000, 4_102_444_800  # seconds: the years 1990 to 2099
_UNITS = (1_000_000, 1_000, 1)  # microseconds of a unit: seconds, milliseconds, microseconds
_NUMBER = r"^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$"
_ISO = (
    r"^(?P<day>\d{4}-\d{2}-\d{2})"
    r"(?:[Tt ](?P<clock>\d{2}:\d{2})(?P<seconds>:\d{2}(?:[.,]\d{1,9})?)?"
    r" ?(?:(?P<utc>[Zz]|UTC|utc)|(?P<sign>[+-])(?P<hours>\d{2}):?(?P<minutes>\d{2})?)?)?$"
)
_TRUE, _FALSE = ("1", "1.0", "true"), ("0", "0.0", "false")
_INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"  # 007 is text: as a number it would be written back as 7


def times(values: pl.Series) -> pl.Series:
    """Microseconds since 1970 in UTC, int64; null where the value is no time of the years 1990 to
    2099.

    Args:
        values: timestamps; ISO 8601 text, UTC where it has no zone; or the number of seconds,
            milliseconds or microseconds since 1970, which its size tells, as a number or as text.
    """
    if values.dtype in (pl.Datetime, pl.Date):
        found = values.cast(pl.Datetime("us")).cast(pl.Int64)
    elif values.dtype.is_numeric():
        found = _epoch(values)
    else:
        text = values.cast(pl.String).str.strip_chars()
        is_number = text.str.contains(_NUMBER)
        number = text.set(is_number.fill_null(False).not_(), None).cast(pl.Float64, strict=False)
        found = _epoch(number)
        if found.null_count():
            found = found.zip_with(is_number.fill_null(True), _iso(text))
    inside = (found >= _FIRST * _UNITS[0]) & (found < _AFTER * _UNITS[0])
    return found.zip_with(inside, pl.Series([None], dtype=pl.Int64)).alias("time")


def ids(values: pl.Series) -> pl.Series:
    """Ids as text, null where blank."""
    text = values.cast(pl.String)
    blank = text.str.contains(r"^\s*$").fill_null(True)
    return text.zip_with(~blank, pl.Series([None], dtype=pl.String)).alias(values.name)


def are_integers(text: pl.Series) -> bool:
    """Whether all ids are integers, written as integers are."""
    return bool(text.str.contains(_INTEGER).all())


def truths(values: pl.Series) -> pl.Series:
    """0 and 1 as bool, null for any other value. `true` and `false` will do, too."""
    text = values.cast(pl.String).str.strip_chars().str.to_lowercase()
    return text.replace_strict(
        {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)},
        default=None,
        return_dtype=pl.Boolean,
    ).alias(values.name)


def numbers(values: pl.Series) -> pl.Series:
    """float64, null for what is no finite number."""
    if values.dtype == pl.String:
        values = values.str.strip_chars()
    found = values.cast(pl.Float64, strict=False)
    return found.zip_with(found.is_finite().fill_null(False), pl.Series([None], dtype=pl.Float64))


def _epoch(values: pl.Series) -> pl.Series:
    """Numbers since 1970 as microseconds. The years from 1990 to 2099 in one unit are no such years
    in another.
    """
    value = pl.col("value")
    each = [
        pl.when((value >= _FIRST * (_UNITS[0] // unit)) & (value < _AFTER * (_UNITS[0] // unit)))
        .then((value * unit).round())
        .cast(pl.Int64)
        for unit in _UNITS
    ]
    frame = pl.DataFrame({"value": values.cast(pl.Float64)})
    return frame.select(pl.coalesce(each)).to_series()


def _iso(text: pl.Series) -> pl.Series:
    part = text.str.extract_groups(_ISO).struct.unnest()
    local = (
        part["day"]
        + " "
        + part["clock"].fill_null("00:00")
        + part["seconds"].fill_null(":00").str.replace(",", ".", literal=True)
    ).str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    offset = part["hours"].cast(pl.Int64) * 60 + part["minutes"].fill_null("0").cast(pl.Int64)
    ahead = pl.select(pl.when(part["sign"] == "-").then(-offset).otherwise(offset)).to_series()
    return local.cast(pl.Int64) - ahead.fill_null(0) * 60_000_000
