"""Every outcome of the table in docs/reference/data.md: what is counted and handled, what is
refused and how a user reads it.
"""

import pyarrow as pa
import pytest

from nrms.errors import SchemaError
from tests.small_data import BEHAVIORS, CANDIDATES, CLICKED, COUNTS, HISTORIES, USER, Folder, at


@pytest.fixture(params=["integers", "strings"])
def folder(request, tmp_path) -> Folder:
    return Folder(tmp_path / "data", request.param == "strings")


COUNTED = {
    "click not in view": (
        {"behaviors": {"article_ids_clicked": [[20, 40, 99], [40]]}},
        {"clicks": 4, "unknown_click": 1, "click_not_in_view": 2},
        {},
    ),
    "only click not in view": (
        {"behaviors": {"article_ids_clicked": [[40], [40]]}},
        {"click_not_in_view": 1, "no_click": 1},
        {"clicked": [False, False, False, False, True]},
    ),
    "null inside the clicks": (
        {"behaviors": {"article_ids_clicked": [[20, None], [40]]}},
        {"clicks": 3, "unknown_click": 1, "click_not_in_view": 1},
        {},
    ),
    "impression without clicks": (
        {"behaviors": {"article_ids_clicked": [[], [40]]}},
        {"clicks": 1, "no_click": 1},
        {"clicked": [False, False, False, False, True]},
    ),
    "null clicks amid labelled rows": (
        {"behaviors": {"article_ids_clicked": [None, [40]]}},
        {"clicks": 1, "null_clicks": 1, "no_click": 1},
        {"clicked": [False, False, False, False, True]},
    ),
    "no clicks column": (
        {"behaviors": {"article_ids_clicked": None}},
        {"clicks": 0, "unlabelled": 2},
        {"clicked": None},
    ),
    "all clicks null": (
        {"behaviors": {"article_ids_clicked": [None, None]}},
        {"clicks": 0, "unlabelled": 2},
        {"clicked": None},
    ),
    "all clicks null in a typed column": (
        {"behaviors": {"article_ids_clicked": pa.nulls(2, pa.list_(pa.int32()))}},
        {"clicks": 0, "unlabelled": 2},
        {"clicked": None},
    ),
    "all clicks empty": (
        {"behaviors": {"article_ids_clicked": [[], []]}},
        {"clicks": 0, "no_click": 2},
        {"clicked": [False] * 5},
    ),
    "empty in-view list": (
        {"behaviors": {"article_ids_inview": [[], [20, 40]], "article_ids_clicked": [[], [40]]}},
        {"candidates": 2, "clicks": 1, "empty_inview": 1, "no_click": 1},
        {"candidates": [2, 4], "offsets": [0, 0, 2], "clicked": [False, True]},
    ),
    "null in-view list": (
        {
            "behaviors": {
                "article_ids_inview": [[10, 20, 30], None],
                "article_ids_clicked": [[20], [40]],
            }
        },
        {"candidates": 3, "empty_inview": 1, "click_not_in_view": 1, "no_click": 1},
        {"candidates": [1, 2, 3], "offsets": [0, 3, 3], "clicked": [False, True, False]},
    ),
    "duplicate candidate": (
        {"behaviors": {"article_ids_inview": [[10, 20, 20], [20, 40]]}},
        {"duplicate_candidate": 1},
        {"candidates": [1, 2, 2, 2, 4], "clicked": [False, True, True, False, True]},
    ),
    "unknown articles in view": (
        {
            "behaviors": {
                "article_ids_inview": [[98, 20, 99], [20, 40]],
                "article_ids_clicked": [[99], [40]],
            }
        },
        {"unknown_candidate": 2, "unknown_click": 1},
        {"candidates": [0, 2, 0, 2, 4], "clicked": [False, False, True, False, True]},
    ),
    "user without a history row": (
        {"behaviors": {"user_id": [7, 5]}},
        {"user_without_history": 1},
        {"user": [1, 0]},
    ),
    "null impression time": (
        {"behaviors": {"impression_time": at(None, 5)}},
        {"null_time": 1, "untimed_history": 2},
        {"time": at(None, 5)},
    ),
    "no impression time": (
        {"behaviors": {"impression_time": None}},
        {"null_time": 2, "untimed_history": 3},
        {"time": None},
    ),
    "null history": (
        {
            "history": {
                "article_id_fixed": [[10, 30], None, []],
                "impression_time_fixed": [at(-9, -8), None, []],
            }
        },
        {"history_entries": 2, "null_history": 1},
        {"histories": [[0, 0, 0], [1, 3, 0], [0, 0, 0], [0, 0, 0]]},
    ),
    "unknown articles in a history": (
        {"history": {"article_id_fixed": [[99, 30], [None], []]}},
        {"unknown_history_article": 2},
        {"histories": [[0, 0, 0], [3, 0, 0], [0, 0, 0], [0, 0, 0]]},
    ),
    "history without times": (
        {"history": {"impression_time_fixed": None}},
        {"untimed_history": 3},
        {},
    ),
    "null time lists and times in a history": (
        {"history": {"impression_time_fixed": [at(-9, None), None, None]}},
        {"untimed_history": 2},
        {},
    ),
    "no user": (
        {"history": {"user_id": [], "article_id_fixed": [], "impression_time_fixed": None}},
        {"users": 0, "history_entries": 0, "user_without_history": 2},
        {"user": [0, 0], "histories": [[0, 0, 0]]},
    ),
}


@pytest.mark.parametrize("case", COUNTED)
def test_it_is_counted_and_handled(folder, case):
    changes, counts, values = COUNTED[case]
    if folder.strings and isinstance(
        changes.get("behaviors", {}).get("article_ids_clicked"), pa.Array
    ):
        changes = {"behaviors": {"article_ids_clicked": pa.nulls(2, pa.list_(pa.string()))}}
    folder.write_all(**changes)
    split = folder.split()
    impressions = split.read(0)
    expected = {
        "offsets": [0, 3, 5],
        "candidates": CANDIDATES,
        "clicked": CLICKED,
        "user": USER,
        "time": at(0, 5),
        "histories": HISTORIES,
    } | values
    found = {name: getattr(impressions, name) for name in expected if name != "histories"}
    found["histories"] = split.histories.rows
    assert {
        name: None if array is None else array.tolist() for name, array in found.items()
    } == expected
    assert split.report.as_dict() == {
        key: count for key, count in (COUNTS | counts).items() if count
    }


def test_an_empty_shard_is_read_as_an_empty_one(folder):
    folder.write_all()
    folder.write("train/behaviors-1.parquet", {name: pa.nulls(0) for name in BEHAVIORS})
    id_type = pa.string() if folder.strings else pa.uint32()
    typed = {"impression_id": id_type, "user_id": id_type, "article_ids_inview": pa.list_(id_type)}
    typed["article_ids_clicked"] = pa.list_(id_type)
    folder.write(
        "train/behaviors-2.parquet", {name: pa.nulls(0, kind) for name, kind in typed.items()}
    )
    split = folder.split()
    assert len(split) == 3
    assert split.rows == 2
    for impressions in (split.read(0), split.read(1)):
        assert len(impressions) == len(impressions.candidates) == 0
        assert impressions.offsets.tolist() == [0]
    assert split.read(0).clicked is None
    assert split.read(1).clicked.tolist() == []
    assert split.read(2).clicked.tolist() == CLICKED
    assert split.report.as_dict() == COUNTS | {"empty_shard": 2}


def test_null_titles_are_empty_and_counted(folder):
    folder.write_all(articles={"title": ["a", None, "", None]})
    articles = folder.open().articles
    assert articles.titles.to_pylist() == ["a", "", "", ""]
    assert articles.report.as_dict() == {"articles": 4, "null_title": 2}


REFUSED = {
    "null article id": (
        {"articles": {"article_id": [10, None, 30, None]}},
        "articles.parquet",
        "Column `article_id` must not be null. Received: null in 2 of 4 rows, first in row 1 (from "
        "0), in ",
    ),
    "duplicate article id": (
        {"articles": {"article_id": [10, 20, 20, 10]}},
        "articles.parquet",
        "Column `article_id` must be unique. Received: 2 of 4 rows repeat an id, first {10}, in ",
    ),
    "no article": (
        {"articles": {"article_id": [], "title": []}},
        "articles.parquet",
        "There must be at least one article. Received: 0 rows, in ",
    ),
    "null impression id": (
        {"behaviors": {"impression_id": [1, None]}},
        "train/behaviors.parquet",
        "Column `impression_id` must not be null. Received: null in 1 of 2 rows, first in row 1 "
        "(from 0), in ",
    ),
    "null user": (
        {"behaviors": {"user_id": [None, 8]}},
        "train/behaviors.parquet",
        "Column `user_id` must not be null. Received: null in 1 of 2 rows, first in row 0 (from "
        "0), in ",
    ),
    "null candidate": (
        {"behaviors": {"article_ids_inview": [[10, 20], [None, 40, None]]}},
        "train/behaviors.parquet",
        "Column `article_ids_inview` must not hold nulls. Received: a null candidate in 1 of 2 "
        "rows, first in "
        "impression {2}, in ",
    ),
    "null user in the history": (
        {"history": {"user_id": [7, None, 9]}},
        "train/history.parquet",
        "Column `user_id` must not be null. Received: null in 1 of 3 rows, first in row 1 (from "
        "0), in ",
    ),
    "duplicate user in the history": (
        {"history": {"user_id": [7, 8, 8]}},
        "train/history.parquet",
        "A user must have one history row. Received: 1 of 3 rows repeat a `user_id`, first {8}, in "
        "",
    ),
    "history times that do not match": (
        {"history": {"impression_time_fixed": [at(-9, -8), at(-7, -6), []]}},
        "train/history.parquet",
        "Column `impression_time_fixed` must have one time for each entry of `article_id_fixed`. "
        "Received: "
        "another number for 1 of 3 users read, first for user {8}: 2 times, 1 articles, in ",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_one_line(folder, case):
    changes, name, expected = REFUSED[case]
    for number in (2, 8, 10):
        expected = expected.replace(f"{{{number}}}", repr(folder.ids([number])[0]))
    folder.write_all(**changes)
    with pytest.raises(SchemaError) as caught:
        folder.split().read(0)
    message = str(caught.value)
    assert message.startswith(f"{expected}{folder.path / name}. ")
    assert len(message.splitlines()) == 1
