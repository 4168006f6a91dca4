"""What is wrong in a log is counted and named, or refused in one line."""

import gzip
import logging
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from jobs.prepare import PrepareConfig, open_source
from nrms.config import parse
from nrms.errors import ConfigError, SchemaError
from nrms.sources import log_files
from nrms.sources.log_faults import Faults
from nrms.sources.log_files import Files
from nrms.sources.log_values import times
from tests.nrms.sources.test_log import HEADER, LOG, TITLES, behaviors, histories, prepare

SHOWN = HEADER.replace("clicked", "clicked,shown")
ROWS = LOG.removeprefix(HEADER)


def refused(folder: Path, *arguments: str | Path) -> str:
    """The message; nothing has been written."""
    with pytest.raises(SchemaError) as error:
        prepare(folder, *arguments)
    assert "\n" not in str(error.value)
    assert not (folder / "out").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("2026-01-01 10:00:00,anna,1", "rows with more or fewer columns than the header"),
        ("2026-01-01 10:00:00,anna,1,11,1,1", "rows with more or fewer columns than the header"),
        (",anna,1,11,1", "rows without a time"),
        ("yesterday,anna,1,11,1", "rows with a time that is neither ISO 8601 nor"),
        ("2026-02-30 10:00:00,anna,1,11,1", "rows with a time that is neither ISO 8601 nor"),
        ("20260101,anna,1,11,1", "rows with a time that is neither ISO 8601 nor"),
        ("0001-01-01,anna,1,11,1", "rows with a time that is neither ISO 8601 nor"),
        ("2026-01-01 10:00:00, ,1,11,1", "rows without a reader"),
        ("2026-01-01 10:00:00,anna,,11,1", "rows without a list"),
        ("2026-01-01 10:00:00,anna,1,,1", "rows without an article"),
        ("2026-01-01 10:00:00,anna,1,11,2", "rows whose clicked is not 0 or 1"),
        ("2026-01-01 10:00:00,anna,1,11,", "rows whose clicked is not 0 or 1"),
    ],
)
def test_a_bad_row_is_counted_and_named_and_changes_nothing(tmp_path, caplog, capsys, row, words):
    lines = ROWS.splitlines(keepends=True)
    log = HEADER + "".join(lines[:3]) + f"{row}\n" + "".join(lines[3:]) + f"{row}\n"
    with caplog.at_level(logging.WARNING, "nrms"):
        output = prepare(tmp_path, log, TITLES, "--max-bad", "0.2")
    where = f"(the first: row 5 of {tmp_path / 'log.csv'})"
    (warning,) = caplog.messages
    assert warning.startswith(f"2 {words}")
    assert warning.endswith(where)
    printed = capsys.readouterr().out
    assert warning in printed
    assert "13 rows from 2026-01-01 08:00:00" in printed

    good = prepare(tmp_path / "good")
    for split in ("train", "validation"):
        assert behaviors(output, split).equals(behaviors(good, split))
        assert histories(output, split) == histories(good, split)

    message = refused(tmp_path / "strict", log)
    assert message.startswith(
        f"At most --max-bad 0.01 of all rows may be bad. Received: 2 of 13: 2 {words}"
    )
    assert message.endswith("Repair or remove these rows, or give a larger --max-bad.")


def test_a_row_counts_once_and_kinds_have_their_own_first_row(tmp_path, capsys):
    log = LOG + ",,,,\n\n,,1,11,7\nnever,anna,1,11,1\n2026-01-01 10:00:00,,1,11,1\n,x,1,11,1\n"
    prepare(tmp_path, log, TITLES, "--max-bad", "0.5")
    printed = capsys.readouterr().out
    uri = tmp_path / "log.csv"
    assert f"2 rows without a time (the first: row 15 of {uri})" in printed
    assert f"1 rows without a reader (the first: row 17 of {uri})" in printed
    assert f"of the years 1990 to 2099 (the first: row 16 of {uri})" in printed
    assert "2 rows without any value (passed over)" in printed


def test_rows_have_their_numbers_wherever_blocks_end(tmp_path, monkeypatch):
    lines, faults = [], Faults()
    for number in range(2, 400):
        cells = "a" if number % 7 == 3 else "" if number % 11 == 5 else f'{number},"two\nlines",x'
        lines.append(f"{cells}\n")
    (tmp_path / "log.csv").write_text("number,text,more\n" + "".join(lines))
    monkeypatch.setattr(log_files, "_BLOCK", 200)
    files = Files(str(tmp_path / "log.csv"), "--input", tmp_path)
    blocks = list(files.rows(files.infos[0], ["more", "number"], faults))
    assert len(blocks) > 10
    for block in blocks:
        assert block.table["number"].cast(int).to_list() == block.numbers.tolist()
    skipped = [number for number in range(2, 400) if number % 7 == 3]
    assert faults.rows("columns") == len(skipped)
    assert "(the first: row 3 of " in faults.lines()[0]
    blank = [n for n in range(2, 400) if n % 7 != 3 and n % 11 == 5]
    assert files.blank == len(blank)
    assert sum(len(block.numbers) for block in blocks) == 398 - len(skipped) - len(blank)


def test_a_bad_row_is_named_with_its_file(tmp_path, capsys):
    folder = tmp_path / "parts"
    folder.mkdir()
    lines = ROWS.splitlines(keepends=True)
    for name, part in (("a", lines[:5]), ("b", [*lines[5:8], "x,anna,5,14,1\n", *lines[8:]])):
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress((HEADER + "".join(part)).encode()))
    (folder / "README.txt").write_text("x")
    (folder / "_SUCCESS").write_text("")
    prepare(tmp_path, folder, TITLES, "--max-bad", "0.1")
    printed = capsys.readouterr().out
    assert f"(the first: row 5 of {folder / 'b.csv.gz'})" in printed
    assert f"1 files of {folder} are neither CSV nor Parquet and are not read" in printed
    assert "README.txt" in printed

    frame = pl.read_csv(LOG.encode()).with_columns(
        pl.when(pl.int_range(pl.len()) == 2).then(None).otherwise("reader").alias("reader")
    )
    frame.write_parquet(tmp_path / "log.parquet")
    message = refused(tmp_path / "parquet", tmp_path / "log.parquet")
    assert "1 rows without a reader (the first: row 3 of" in message


def test_a_click_on_what_its_list_never_showed_is_a_fault_and_only_history_has_it(tmp_path, capsys):
    log = SHOWN + (
        "2026-01-01 08:00:00,anna,1,11,0,1\n"
        "2026-01-01 08:00:09,anna,1,12,1,0\n"
        "2026-01-01 08:00:10,anna,1,11,1,0\n"
        "2026-01-01 08:00:11,anna,1,11,0,0\n"
        "2026-01-02 09:00:00,anna,2,13,0,1\n"
        "2026-01-02 09:00:04,anna,2,14,1,0\n"
        "2026-01-03 10:00:00,anna,3,15,1,1\n"
    )
    output = prepare(tmp_path, log, TITLES, "--max-bad", "0.5")
    printed = capsys.readouterr().out
    uri = tmp_path / "log.csv"
    assert "2 rows with a click on an article that their list never showed" in printed
    assert f"(only histories have it) (the first: row 3 of {uri})" in printed
    assert f"1 rows with neither shown nor clicked (the first: row 5 of {uri})" in printed
    assert behaviors(output, "train")["article_ids_inview"].to_list() == [[13]]
    assert behaviors(output, "train")["article_ids_clicked"].to_list() == [[]]
    assert histories(output, "train") == {"anna": [12, 11]}
    assert histories(output, "validation") == {"anna": [12, 11, 14]}


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ("1,1,x", "rows whose position is not a number"),
        ("1,1,", "rows whose position is not a number"),
        ("1,1,nan", "rows whose position is not a number"),
        ("1,,1", "rows whose shown is not 0 or 1"),
        ("yes,1,1", "rows whose clicked is not 0 or 1"),
        ("0,0,1", "rows with neither shown nor clicked"),
    ],
)
def test_bad_values_of_optional_columns_are_counted(tmp_path, caplog, cells, words):
    log = HEADER.replace("clicked", "clicked,shown,position")
    log += "".join(f"{line},1,{number}\n" for number, line in enumerate(ROWS.splitlines()))
    prepare(tmp_path / "good", log)
    log += f"2026-01-03 07:45:00,anna,5,11,{cells}\n"
    # A row that only tells a click needs no place.
    log += "2026-01-03 07:46:00,anna,5,15,1,0,\n"
    with caplog.at_level(logging.WARNING, "nrms"):
        output = prepare(tmp_path, log, TITLES, "--max-bad", "0.1")
    assert caplog.messages == [f"1 {words} (the first: row 13 of {tmp_path / 'log.csv'})"]
    rows = behaviors(output, "validation")
    assert rows["article_ids_inview"].to_list() == [[14, 15], [14], [15]]
    assert rows["article_ids_clicked"].to_list() == [[15], [14], [15]]


def test_what_is_odd_is_counted(tmp_path, capsys):
    log = LOG + "2026-01-04 07:30:00,ben,7,15,0\n2026-01-04 07:29:00,anna,5,13,0\n"
    titles = TITLES.replace("13,Title 13\n", "12,Again\n") + ",No id\n"
    output = prepare(tmp_path, log, titles, "--max-bad", "0.2", "--validation-days", "1.2")
    printed = capsys.readouterr().out
    assert "1 rows show an article that their list has shown already" in printed
    assert "1 of 5 articles of the log are not in --articles-input: 13\n" in printed
    assert f"1 rows without an article (the first: row 7 of {tmp_path / 'titles.csv'})" in printed
    assert "1 articles whose id came before (the first is kept)" in printed
    assert "rows more than a day apart" not in printed
    assert behaviors(output, "validation")["article_ids_inview"].to_list()[-1] == [15]

    log = LOG + "2026-01-04 07:50:00,anna,5,13,0\n"
    prepare(tmp_path / "long", log, TITLES, "--validation-days", "1.2")
    assert "1 impressions have rows more than a day apart" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("log", "titles", "words"),
    [
        (LOG.replace("reader", "user"), TITLES, "Column `reader` must be there once (--reader-col"),
        (LOG.replace("reader", "Readers"), TITLES, "perhaps `Readers`."),
        (LOG.replace("reader", "time"), TITLES, "Column `time` must be there once"),
        (LOG, TITLES.replace("title", "headline"), "(--title-column names it). Received: the col"),
        ("", TITLES, "A CSV must be UTF-8 text"),
        (HEADER, TITLES, "A log must have rows. Received: 0, none of them good"),
        (
            HEADER + ROWS.partition("\n")[0],
            TITLES,
            "A log must have impressions after the first --history-days",
        ),
        (LOG, "article_id,title\n", "There must be articles."),
        (
            LOG,
            TITLES.replace("title", "title,x,x"),
            "Each column of an article must be there once.",
        ),
        (LOG, "article_id,title\nx,Another\n", "The articles of --input must be in --articles-in"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, log, titles, words):
    assert words in refused(tmp_path, log, titles)


def test_files_that_are_no_log_are_refused(tmp_path):
    (tmp_path / "latin.csv").write_bytes(LOG.replace("anna", "Søren").encode("latin-1"))
    assert "A CSV must be UTF-8 text" in refused(tmp_path / "a", tmp_path / "latin.csv")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(LOG.encode())[:-20])
    assert "A CSV must be UTF-8 text" in refused(tmp_path / "b", tmp_path / "cut.csv.gz")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    assert "whole Parquet" in refused(tmp_path / "c", tmp_path / "cut.parquet")
    assert "--input must name CSV files or Parquet" in refused(tmp_path / "d", tmp_path / "none")
    both = tmp_path / "both"
    both.mkdir()
    (both / "a.csv").write_text(LOG)
    pl.read_csv(LOG.encode()).write_parquet(both / "b.parquet")
    assert "Received: both, in" in refused(tmp_path / "e", both)
    frame = pl.read_csv(LOG.encode()).with_columns(pl.col("reader").rank().cast(pl.Float64))
    frame.write_parquet(tmp_path / "float.parquet")
    assert "Column `reader` must be an integer or a string. Received: double" in refused(
        tmp_path / "f", tmp_path / "float.parquet"
    )
    (both / "b.parquet").unlink()
    (both / "b.csv").write_text(SHOWN)
    assert "All files of a log must have the same columns." in refused(tmp_path / "g", both)


@pytest.mark.parametrize("flags", [[], ["--input", "x"]])
def test_log_and_articles_must_be_given(tmp_path, flags):
    config = parse(PrepareConfig, ["--source", "log", "--output", "x", *flags], "p", "")
    missing = "--articles-input" if flags else "--input"
    with pytest.raises(ConfigError, match=f"^{missing} must be given with --source log: "):
        open_source(config, tmp_path)


@pytest.mark.system
def test_the_job_says_a_mistake_in_one_line(tmp_path):
    (tmp_path / "log.csv").write_text(LOG + "x,anna,1,11,1\n")
    (tmp_path / "titles.csv").write_text(TITLES)
    words = ["--source", "log", "--input", str(tmp_path / "log.csv")]
    words += ["--articles-input", str(tmp_path / "titles.csv"), "--output", str(tmp_path / "out")]
    command = [sys.executable, "-m", "jobs.prepare", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1
    assert lines[0].startswith("error: At most --max-bad 0.01 of all rows may be bad. Received: 1 ")


def test_times_of_any_form():
    moment = 1_767_323_045  # 2026-01-02 03:04:05 UTC
    forms = ["2026-01-02 03:04:05", "2026-01-02T03:04:05Z", "2026-01-02 03:04:05 UTC"]
    forms += ["2026-01-02T04:04:05+01:00", "2026-01-01 21:34:05-0530", " 2026-01-02T03:04:05,000 "]
    forms += [str(moment * 10**power) for power in (0, 3, 6)]
    assert times(pl.Series(forms)).to_list() == [moment * 10**6] * len(forms)
    fraction = [str(moment) + ".5", "2026-01-02 03:04:05.500000 UTC"]
    assert times(pl.Series(fraction)).to_list() == [moment * 10**6 + 500_000] * 2
    assert times(pl.Series([moment, None, 7])).to_list() == [moment * 10**6, None, None]
    day = ["2026-01-02", "2026-01-02 00:00"]
    assert times(pl.Series(day)).to_list() == [1_767_312_000_000_000] * 2
    wrong = ["2026-01-02 25:00:00", "2026-1-2", "02.01.2026", "2100-01-01", "nan", "inf", ""]
    assert times(pl.Series(wrong)).to_list() == [None] * len(wrong)
