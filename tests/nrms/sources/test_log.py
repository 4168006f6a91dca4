"""The log of any site in, the Parquet contract out: impressions, histories, splits and ids."""

import gzip
import json
import random
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from jobs.prepare import PrepareConfig, main
from nrms import storage
from nrms.config import parse
from nrms.data.dataset import Dataset
from nrms.errors import ConfigError
from nrms.sources import log_files, time_sort

HEADER = "time,reader,list,article,clicked\n"
LOG = HEADER + (
    "2026-01-01 08:00:00,anna,1,11,1\n"  # the first day: only histories
    "2026-01-01 08:00:00,anna,1,12,0\n"
    "2026-01-01 09:30:00,ben,2,12,1\n"
    "2026-01-02 21:00:00,ben,4,11,0\n"  # train
    "2026-01-02 08:10:00,anna,3,13,0\n"
    "2026-01-02 21:00:05,ben,4,14,1\n"
    "2026-01-02 08:10:20,anna,3,12,1\n"
    "2026-01-04 07:30:00,ben,7,15,1\n"  # validation
    "2026-01-03 07:45:00,anna,5,14,0\n"
    "2026-01-03 07:45:00,anna,5,15,0\n"
    "2026-01-03 20:10:00,cleo,6,14,1\n"
)
TITLES = "article_id,title\n" + "".join(f"{number},Title {number}\n" for number in range(11, 16))


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-01-{text}")


def prepare(folder: Path, log: str | Path = LOG, titles: str | Path = TITLES, *flags: str) -> Path:
    """Runs the job; a text is the content of a CSV."""
    folder.mkdir(exist_ok=True)
    for name, content in (("log", log), ("titles", titles)):
        if isinstance(content, str):
            (folder / f"{name}.csv").write_text(content, "utf-8")
    paths = [
        str(content if isinstance(content, Path) else folder / f"{name}.csv")
        for name, content in (("log", log), ("titles", titles))
    ]
    words = ["--source", "log", "--input", paths[0], "--articles-input", paths[1]]
    words += ["--output", str(folder / "out"), *flags]
    main(parse(PrepareConfig, words, "jobs.prepare", ""))
    return folder / "out"


def behaviors(output: Path, split: str) -> pl.DataFrame:
    return pl.read_parquet(output / split / "behaviors-*.parquet")


def histories(output: Path, split: str) -> dict:
    rows = pl.read_parquet(output / split / "history.parquet")
    return dict(rows.select("user_id", "article_id_fixed").iter_rows())


def test_rows_of_a_reader_and_list_are_an_impression_at_their_earliest_time(tmp_path):
    output = prepare(tmp_path)
    expected = pl.DataFrame(
        {
            "impression_id": [3, 4],
            "user_id": ["anna", "ben"],
            "impression_time": [at("02 08:10:00"), at("02 21:00:00")],
            "article_ids_inview": [[13, 12], [11, 14]],
            "article_ids_clicked": [[12], [14]],
        }
    )
    assert_frame_equal(behaviors(output, "train"), expected)
    validation = behaviors(output, "validation")
    assert validation["impression_id"].to_list() == [5, 6, 7]
    assert validation["article_ids_inview"].to_list() == [[14, 15], [14], [15]]
    assert validation["article_ids_clicked"].to_list() == [[], [14], [15]]
    assert pl.read_parquet(output / "articles.parquet").to_dict(as_series=False) == {
        "article_id": [11, 12, 13, 14, 15],
        "title": [f"Title {number}" for number in range(11, 16)],
    }


def test_a_history_holds_the_clicks_before_its_split_oldest_first(tmp_path):
    output = prepare(tmp_path)
    assert histories(output, "train") == {"anna": [11], "ben": [12]}
    assert histories(output, "validation") == {"anna": [11, 12], "ben": [12, 14]}
    rows = pl.read_parquet(output / "validation/history.parquet").sort("user_id")
    assert rows["impression_time_fixed"].to_list() == [
        [at("01 08:00:00"), at("02 08:10:20")],
        [at("01 09:30:00"), at("02 21:00:05")],
    ]
    report = Dataset.open(str(output), tmp_path).split("validation", 20).report.as_dict()
    assert not {"late_history", "unknown_candidate", "click_not_in_view"} & set(report)


def test_a_click_after_the_split_begins_is_in_no_history_of_it(tmp_path):
    # The list of train is shown before validation begins (03 08:00), and clicked after it; the
    # other one is clicked, by its clock, before it is shown.
    log = HEADER.replace("clicked", "clicked,shown") + (
        "2026-01-01 08:00:00,anna,1,11,1,1\n"
        "2026-01-02 23:59:00,anna,2,12,0,1\n"
        "2026-01-03 09:00:00,anna,2,12,1,0\n"
        "2026-01-03 08:00:01,anna,3,13,0,1\n"
        "2026-01-03 07:59:59,anna,3,13,1,0\n"
        "2026-01-04 08:00:00,ben,4,14,1,1\n"
    )
    output = prepare(tmp_path, log)
    train = behaviors(output, "train")
    assert train["impression_id"].to_list() == [2, 3]
    assert train["impression_time"].to_list() == [at("02 23:59:00"), at("03 07:59:59")]
    assert train["article_ids_clicked"].to_list() == [[12], [13]]
    assert behaviors(output, "validation")["impression_id"].to_list() == [4]
    assert histories(output, "validation") == {"anna": [11, 13]}


def test_days_of_histories_and_of_validation_split_the_log(tmp_path):
    output = prepare(tmp_path, LOG, TITLES, "--history-days", "0.1", "--validation-days", "0.2")
    assert behaviors(output, "train")["impression_id"].to_list() == [3, 4, 5, 6]
    assert behaviors(output, "validation")["impression_id"].to_list() == [7]
    assert histories(output, "validation") == {"anna": [11, 12], "ben": [12, 14], "cleo": [14]}


def test_without_lists_the_rows_of_a_reader_and_time_are_an_impression(tmp_path):
    lines = [line.split(",") for line in LOG.splitlines()]
    log = "".join(",".join([line[0], line[1], *line[3:]]) + "\n" for line in lines)
    output = prepare(tmp_path, log)
    validation = behaviors(output, "validation")
    # The id is the number of the first row; the header is row 1.
    assert validation["impression_id"].to_list() == [10, 12, 9]
    assert validation["article_ids_inview"].to_list() == [[14, 15], [14], [15]]
    assert behaviors(output, "train")["article_ids_inview"].to_list() == [[13], [12], [11], [14]]


def test_articles_stand_in_the_order_of_the_position(tmp_path):
    rows = ["4,a,9,11,0,3", "4,a,9,12,1,1", "4,a,9,13,0,2.5", "4,a,9,12,0,7"]
    log = HEADER.replace("clicked", "clicked,place")
    for day, line in [(1, "1,a,1,11,1,1"), (3, "3,a,2,12,1,1"), *((5, row) for row in rows)]:
        log += f"2026-01-0{day}T00:00:00Z{line[1:]}\n"
    output = prepare(tmp_path, log, TITLES, "--position-column", "place")
    row = behaviors(output, "validation").row(0, named=True)
    assert (row["article_ids_inview"], row["article_ids_clicked"]) == ([12, 13, 11], [12])
    assert behaviors(output, "validation")["impression_id"].to_list() == [9]


def test_columns_have_any_name(tmp_path, caplog):
    log = LOG.replace(HEADER, "at,who,page,what,hit\n")
    titles = TITLES.replace("article_id,title", "id,headline")
    titles = "".join(
        f"{line},{more}\n"
        for line, more in zip(
            titles.splitlines(),
            ["day,section,url", *["2026-01-01T06:00:00+01:00,sport,u"] * 4, "never,,"],
            strict=True,
        )
    )
    flags = "--time-column at --reader-column who --list-column page --article-column what"
    flags += " --clicked-column hit --article-id-column id --title-column headline"
    flags += " --published-time-column day --category-column section"
    output = prepare(tmp_path, log, titles, *flags.split())
    assert_frame_equal(behaviors(output, "train"), behaviors(prepare(tmp_path / "b"), "train"))
    articles = pl.read_parquet(output / "articles.parquet")
    assert articles.columns == ["article_id", "title", "published_time", "category_str", "url"]
    assert articles["published_time"].to_list() == [at("01 05:00:00")] * 4 + [None]
    assert articles["category_str"].to_list() == ["sport"] * 4 + [None]


@pytest.mark.parametrize("article", ["a13", "013", "", "1e3"])
def test_ids_are_text_where_one_is_no_integer(tmp_path, article):
    log, titles = LOG.replace(",12,", f",{article or 'n12'},"), TITLES + f"{article},Another\n"
    output = prepare(tmp_path, log, titles, "--max-bad", "0.2")
    articles = pl.read_parquet(output / "articles.parquet")
    kind = pl.List(pl.String)
    assert articles.schema["article_id"] == pl.String
    assert behaviors(output, "train").schema["article_ids_inview"] == kind
    assert histories(output, "validation")["anna"] == ["11", article or "n12"]
    assert behaviors(output, "train").schema["impression_id"] == pl.Int64


def write_everywhere(folder: Path) -> dict[str, Path]:
    """The log as CSV, as a Parquet file, and as a folder of gzipped CSV files."""
    frame = pl.read_csv(LOG.encode(), try_parse_dates=True)
    numbers = frame.with_columns(
        pl.col("time").dt.epoch("ms"), pl.col("list").cast(pl.String), pl.col("clicked") == 1
    )
    paths = {"csv": folder / "log.csv", "gz": folder / "gz", "parquet": folder / "log.parquet"}
    paths["csv"].write_text(LOG)
    paths["gz"].mkdir()
    lines = LOG.splitlines(keepends=True)[1:]
    for number, part in enumerate((lines[:4], lines[4:5], lines[5:], [])):
        data = gzip.compress((HEADER + "".join(part)).encode())
        (paths["gz"] / f"log-{number:012}.csv.gz").write_bytes(data)
    frame.write_parquet(paths["parquet"])
    for name, table in (
        ("zoned", frame.with_columns(pl.col("time").dt.replace_time_zone("UTC"))),
        (
            "converted",
            frame.with_columns(
                pl.col("time").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
            ),
        ),
        ("numbers", numbers),
        ("categories", frame.with_columns(pl.col("reader").cast(pl.Categorical))),
    ):
        paths[name] = folder / f"{name}.parquet"
        table.write_parquet(paths[name])
    paths["parts"] = folder / "parts"
    paths["parts"].mkdir()
    for number, part in enumerate(frame.iter_slices(3)):
        part.write_parquet(paths["parts"] / f"part-{number}.parquet")
    return paths


@pytest.mark.parametrize(
    "form", ["gz", "parquet", "zoned", "converted", "numbers", "categories", "parts"]
)
def test_each_form_of_the_log_gives_the_same_files(tmp_path, form):
    log = write_everywhere(tmp_path)
    one, other = prepare(tmp_path / "one", log["csv"]), prepare(tmp_path / "other", log[form])
    names = sorted(path.relative_to(one) for path in one.rglob("*.parquet"))
    assert len(names) == 5
    for name in names:
        assert_frame_equal(pl.read_parquet(one / name), pl.read_parquet(other / name))


def test_blocks_and_runs_give_what_the_whole_gives(tmp_path, monkeypatch):
    rows = ""
    for number in range(3_000):
        minute = number * 7919 % 5_000
        time = f"2026-01-{1 + minute // 1440:02} {minute // 60 % 24:02}:{minute % 60:02}:00"
        rows += (
            f"{time},r{number % 17},{number % 400},{11 + number * number % 5},{number % 3 % 2}\n"
        )
    whole = prepare(tmp_path / "whole", HEADER + rows)
    monkeypatch.setattr(log_files, "_BLOCK", 700)
    monkeypatch.setattr(time_sort, "_RUN_ROWS", 100)
    monkeypatch.setattr(time_sort, "_WAYS", 4)
    parts = prepare(tmp_path / "parts", HEADER + rows)
    for split in ("train", "validation"):
        a, b = (
            behaviors(out, split).sort("impression_time", "user_id", "impression_id")
            for out in (whole, parts)
        )
        assert_frame_equal(a, b)
        assert len(a) > 100
        assert histories(whole, split) == histories(parts, split)


def test_the_same_command_does_nothing_and_other_days_are_refused(tmp_path, capsys):
    prepare(tmp_path)
    prepare(tmp_path, LOG, TITLES, "--max-bad", "0.5")
    assert "validation: complete already" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="history_days is 1"):
        prepare(tmp_path, LOG, TITLES, "--history-days", "0.5")
    manifest = json.loads((tmp_path / "out/train/manifest.json").read_bytes())
    assert manifest["parameters"]["columns"]["reader_column"] == "reader"
    assert manifest["parameters"]["validation_days"] == 1.0


def test_a_bucket_gives_the_same(bucket, tmp_path):
    for name, text in (("log/part-0.csv", LOG), ("titles.csv", TITLES)):
        storage.write_bytes(text.encode(), f"{bucket}/{name}")
    words = ["--source", "log", "--input", f"{bucket}/log", "--output", f"{bucket}/out"]
    words += ["--articles-input", f"{bucket}/titles.csv"]
    main(parse(PrepareConfig, words, "jobs.prepare", ""))
    local = prepare(tmp_path / "local")
    for name in ("articles", "train/behaviors-00000", "validation/history"):
        data = storage.read_bytes(f"{bucket}/out/{name}.parquet")
        assert_frame_equal(pl.read_parquet(data), pl.read_parquet(local / f"{name}.parquet"))


def test_random_rows_give_what_a_loop_over_them_gives(tmp_path):
    draw = random.Random(3)
    start = datetime(2026, 1, 1)
    rows = [
        (start + timedelta(minutes=draw.randrange(6_000)), *(draw.randrange(n) for n in (9, 40, 6)))
        for _ in range(1_500)
    ]
    rows = [(*row, draw.random() < 0.3, draw.random() < 0.8) for row in rows]
    rows = [row for row in rows if row[4] or row[5]]
    text = HEADER.replace("clicked", "clicked,shown")
    for time, reader, page, article, clicked, shown in rows:
        text += f"{time},{reader},{page},{article},{clicked},{int(shown)}\n"
    titles = "article_id,title\n" + "".join(f"{number},t\n" for number in range(6))
    output = prepare(tmp_path, text, titles, "--max-bad", "0.9")

    lists: dict[tuple, dict] = {}
    clicks = []
    for reader, page in {row[1:3] for row in rows}:
        own = [row for row in rows if row[1:3] == (reader, page)]
        seen = list(dict.fromkeys(row[3] for row in own if row[5]))
        clicked = {row[3] for row in own if row[4]}
        clicks += [
            (min(row[0] for row in own if row[3] == article and row[4]), reader, article)
            for article in clicked
        ]
        if seen:
            time = min(row[0] for row in own if row[3] in seen)
            lists[page, reader] = {
                "time": time,
                "seen": seen,
                "clicked": [one for one in seen if one in clicked],
            }
    times = [row[0] for row in rows]
    train, validation = min(times) + timedelta(days=1), max(times) - timedelta(days=1)
    wanted = {
        "train": (train, lambda time: train <= time <= validation),
        "validation": (validation, lambda time: time > validation),
    }
    for split, (begin, is_inside) in wanted.items():
        found = {
            row[:2]: {"time": row[2], "seen": row[3], "clicked": row[4]}
            for row in behaviors(output, split).iter_rows()
        }
        assert found == {key: one for key, one in lists.items() if is_inside(one["time"])}
        before = [click for click in clicks if click[0] < begin or click[0] == begin == validation]
        expected: dict[int, list] = {}
        for time, reader, article in before:
            expected.setdefault(reader, []).append((time, article))
        history = pl.read_parquet(output / split / "history.parquet")
        got = {
            reader: sorted(zip(times, articles, strict=True))
            for reader, articles, times in history.iter_rows()
        }
        assert got == {reader: sorted(pairs) for reader, pairs in expected.items()}
        for _, _, times in history.iter_rows():
            assert times == sorted(times)
            assert all(time < begin or time == begin == validation for time in times)
