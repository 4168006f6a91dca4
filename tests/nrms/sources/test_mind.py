"""MIND's two TSV files in, the Parquet contract out."""

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from nrms import storage
from nrms.errors import ObjectNotFound, SchemaError
from nrms.sources import mind
from nrms.sources.mind import Mind
from nrms.sources.writer import write_dataset

NEWS = (
    'N1\tsports\tfootball_nfl\tThe "quoted" game\tAn abstract.\t'
    'https://a/1.html\t[{"Label": "NFL"}]\t[]\n'
    "N2\tnews\tworld\tÆbler, pærer\t\thttps://a/2.html\t[]\t[]\n"
)
BEHAVIORS = (
    "1\tU1\t11/15/2019 8:55:22 AM\tN1 N2\tN2-1 N1-0\n"
    "2\tU2\t11/9/2019 12:05:01 PM\t\tN1-0 N2-1 N9-1\n"
    "3\tU1\t11/14/2019 12:00:00 AM\tN1\tN2-0\n"
)
UNLABELLED = "7\tU1\t11/20/2019 1:02:03 PM\tN1\tN2 N1\n8\tU3\t11/20/2019 1:02:04 PM\t\tN1\n"


def folder(path: Path, behaviors: str = BEHAVIORS, news: str = NEWS) -> str:
    path.mkdir(exist_ok=True)
    (path / "behaviors.tsv").write_text(behaviors, encoding="utf-8")
    (path / "news.tsv").write_text(news, encoding="utf-8")
    return str(path)


def prepare(source: Mind, output: Path | str) -> list[str]:
    return write_dataset(
        source, str(output), shard_rows=2, overwrite=False, progress=lambda split, rows: None
    )


def test_every_column_arrives(tmp_path):
    source = Mind(folder(tmp_path / "in"), "train", tmp_path)
    prepare(source, tmp_path / "out")

    expected_articles = pl.DataFrame(
        {
            "article_id": ["N1", "N2"],
            "category_str": ["sports", "news"],
            "subcategory_str": ["football_nfl", "world"],
            "title": ['The "quoted" game', "Æbler, pærer"],
            "subtitle": ["An abstract.", ""],
            "url": ["https://a/1.html", "https://a/2.html"],
            "title_entities": ['[{"Label": "NFL"}]', "[]"],
            "abstract_entities": ["[]", "[]"],
        }
    )
    assert_frame_equal(pl.read_parquet(tmp_path / "out/articles.parquet"), expected_articles)

    expected_behaviors = pl.DataFrame(
        {
            "impression_id": [2, 3, 1],
            "user_id": ["U2", "U1", "U1"],
            "impression_time": [
                datetime(2019, 11, 9, 12, 5, 1),
                datetime(2019, 11, 14),
                datetime(2019, 11, 15, 8, 55, 22),
            ],
            "article_ids_inview": [["N1", "N2", "N9"], ["N2"], ["N2", "N1"]],
            "article_ids_clicked": [["N2", "N9"], [], ["N2"]],
        }
    )
    shards = sorted((tmp_path / "out/train").glob("behaviors-*.parquet"))
    assert [len(pl.read_parquet(shard)) for shard in shards] == [2, 1]
    assert_frame_equal(pl.read_parquet(shards), expected_behaviors)


def test_a_user_keeps_the_history_of_the_earliest_impression(tmp_path):
    source = Mind(folder(tmp_path / "in"), "train", tmp_path)
    prepare(source, tmp_path / "out")

    expected = pl.DataFrame({"user_id": ["U1", "U2"], "article_id_fixed": [["N1"], []]})
    assert_frame_equal(pl.read_parquet(tmp_path / "out/train/history.parquet"), expected)
    assert source.notes == [
        "1 of 2 users have a history that changes (that of the earliest impression is kept)"
    ]


def test_the_test_split_has_no_clicks(tmp_path):
    source = Mind(folder(tmp_path / "in", UNLABELLED), "test", tmp_path)
    prepare(source, tmp_path / "out")

    expected = pl.DataFrame(
        {
            "impression_id": [7, 8],
            "user_id": ["U1", "U3"],
            "impression_time": [datetime(2019, 11, 20, 13, 2, 3), datetime(2019, 11, 20, 13, 2, 4)],
            "article_ids_inview": [["N2", "N1"], ["N1"]],
        }
    )
    assert_frame_equal(pl.read_parquet(tmp_path / "out/test/behaviors-00000.parquet"), expected)


def test_blocks_of_a_file_give_what_the_whole_gives(tmp_path, monkeypatch):
    users = ["U1", "U2", "U3", "U4", "U5"]
    lines = [
        f"{i}\t{users[i * i % 5]}\t11/{1 + i * 7 % 30}/2019 {1 + i % 12}:00:00 PM\tN1 "
        f"H{i % 3}\tN1-1 N2-0\n"
        for i in range(200)
    ]
    earliest: dict[str, tuple[datetime, list[str]]] = {}
    for line in lines:
        _, user, time, history, _ = line.split("\t")
        seen = datetime.strptime(time, "%m/%d/%Y %I:%M:%S %p"), history.split(" ")
        if user not in earliest or seen[0] < earliest[user][0]:
            earliest[user] = seen

    monkeypatch.setattr(mind, "_BLOCK", 500)
    source = Mind(folder(tmp_path / "in", "".join(lines)), "train", tmp_path)
    tables = list(source.behaviors("train"))
    histories = pl.concat(pl.DataFrame(table) for table in source.histories("train"))

    assert len(tables) > 10
    assert pl.concat(pl.DataFrame(table) for table in tables)["impression_id"].to_list() == list(
        range(200)
    )
    assert dict(histories.iter_rows()) == {user: history for user, (_, history) in earliest.items()}


def test_a_second_split_joins_its_articles_to_the_first(tmp_path):
    more = "N2\tnews\tworld\tAnother title\t\tu\t[]\t[]\nN3\tnews\tworld\tThird\t\tu\t[]\t[]\n"
    output = tmp_path / "out"
    prepare(Mind(folder(tmp_path / "train"), "train", tmp_path), output)
    source = Mind(folder(tmp_path / "validation", news=more), "validation", tmp_path)
    prepare(source, output)

    expected = pl.DataFrame(
        {"article_id": ["N1", "N2", "N3"], "title": ['The "quoted" game', "Æbler, pærer", "Third"]}
    )
    assert_frame_equal(
        pl.read_parquet(output / "articles.parquet", columns=["article_id", "title"]), expected
    )
    assert source.notes[0] == "1 articles with another title than before (the first is kept)"


def test_preparing_again_changes_nothing(tmp_path):
    output = tmp_path / "out"
    for split in ("train", "validation"):
        prepare(Mind(folder(tmp_path / "in"), split, tmp_path), output)
    before = storage.list_files(output)
    written = [
        prepare(Mind(folder(tmp_path / "in"), split, tmp_path), output)
        for split in ("train", "validation")
    ]

    assert written == [[], []]
    assert storage.list_files(output) == before


def test_articles_of_two_splits_written_at_once_are_all_there(bucket, tmp_path, monkeypatch):
    first = Mind(folder(tmp_path / "first"), "train", tmp_path)
    second = Mind(
        folder(tmp_path / "second", news=NEWS.replace("N1", "N5")), "validation", tmp_path
    )
    upload = storage.upload

    def upload_late(path, uri, **condition):
        """The other split writes its articles between our reading and our writing of them."""
        monkeypatch.setattr(storage, "upload", upload)
        prepare(second, bucket)
        return upload(path, uri, **condition)

    monkeypatch.setattr(storage, "upload", upload_late)
    prepare(first, bucket)

    articles = pl.read_parquet(storage.read_bytes(f"{bucket}/articles.parquet"))
    assert sorted(articles["article_id"]) == ["N1", "N2", "N5"]
    assert storage.exists(f"{bucket}/train/_SUCCESS")
    assert storage.exists(f"{bucket}/validation/_SUCCESS")


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("4\tU1\t11/15/2019 8:55:22 AM\tN1", "5 tab-separated columns"),
        ("4\tU1\t11/15/2019 8:55:22 AM\tN1\tN2-1\tmore", "5 tab-separated columns"),
        ("", "a whole number as impression id"),
        ("four\tU1\t11/15/2019 8:55:22 AM\tN1\tN2-1", "a whole number as impression id"),
        ("4\t\t11/15/2019 8:55:22 AM\tN1\tN2-1", "a user id"),
        ("4\tU1\t2019-11-15 08:55:22\tN1\tN2-1", "a time like 11/15/2019 8:55:22 AM"),
        ("4\tU1\t11/15/2019 8:55:22 AM\tN1\t", "candidates with labels"),
        ("4\tU1\t11/15/2019 8:55:22 AM\tN1\tN2-1 N3", "candidates with labels"),
        ("4\tU1\t11/15/2019 8:55:22 AM\tN1\tN2-2", "candidates with labels"),
    ],
)
def test_a_malformed_impression_names_file_and_line(tmp_path, line, rule):
    source = Mind(folder(tmp_path / "in", BEHAVIORS + line + "\n" + BEHAVIORS), "train", tmp_path)
    with pytest.raises(SchemaError, match=f"{rule}.*behaviors.tsv, line 4") as error:
        list(source.behaviors("train"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "rule"), [("\tsports\tnfl\tTitle\t\tu\t[]\t[]", "a news id"), ("N3\tTitle", "8 tab")]
)
def test_a_malformed_article_names_file_and_line(tmp_path, line, rule):
    source = Mind(folder(tmp_path / "in", news=NEWS + line + "\n"), "train", tmp_path)
    with pytest.raises(SchemaError, match=f"{rule}.*news.tsv, line 3"):
        source.articles()


def test_text_that_is_not_utf8_names_file_and_line(tmp_path):
    source = folder(tmp_path / "in")
    path = tmp_path / "in/news.tsv"
    path.write_bytes(path.read_bytes().replace("Æ".encode(), "Æ".encode("latin-1")))
    with pytest.raises(SchemaError, match=r"UTF-8.*news.tsv, line 2"):
        Mind(source, "train", tmp_path).articles()


def test_labels_throughout_a_file_or_nowhere(tmp_path):
    source = Mind(folder(tmp_path / "in", UNLABELLED + BEHAVIORS), "train", tmp_path)
    with pytest.raises(SchemaError, match=r"without labels.*N2-1 N1-0.*line 3"):
        list(source.behaviors("train"))


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(SchemaError, match=r"at least one line.*behaviors.tsv"):
        list(Mind(folder(tmp_path / "in", ""), "train", tmp_path).behaviors("train"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ObjectNotFound, match=r"news\.tsv"):
        Mind(str(tmp_path), "train", tmp_path)


def test_a_bucket_as_input_gives_the_same(bucket, tmp_path):
    local = folder(tmp_path / "in")
    for name in ("news.tsv", "behaviors.tsv"):
        storage.upload(tmp_path / "in" / name, f"{bucket}/mind/{name}")
    here, there = (
        Mind(local, "train", tmp_path),
        Mind(f"{bucket}/mind", "train", tmp_path / "cache"),
    )

    assert here.parameters == there.parameters
    assert list(here.behaviors("train")) == list(there.behaviors("train"))


def test_the_error_shows_the_line_as_it_stands(tmp_path):
    line = '4\tU1\t2019-11-15 08:55:22 \t"N1"\tN2-1'
    source = Mind(folder(tmp_path / "in", BEHAVIORS + line + "\r\n" + BEHAVIORS), "train", tmp_path)
    with pytest.raises(SchemaError) as error:
        list(source.behaviors("train"))
    assert '. Received: 4\\tU1\\t2019-11-15 08:55:22 \\t"N1"\\tN2-1, in ' in str(error.value)

    news = Mind(folder(tmp_path / "news", news=NEWS + "N3\tÆbler\x07\n"), "train", tmp_path)
    with pytest.raises(SchemaError) as error:
        news.articles()
    assert ". Received: N3\\tÆbler\\x07, in " in str(error.value)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    for name, text in (("in", ""), ("marked", "\ufeff")):
        folder(tmp_path / name, text + BEHAVIORS, news=text + NEWS)
    plain, marked = (Mind(str(tmp_path / name), "train", tmp_path) for name in ("in", "marked"))
    assert marked.articles() == plain.articles()
    assert list(marked.behaviors("train")) == list(plain.behaviors("train"))
