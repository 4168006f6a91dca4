"""What joins nothing is measured, compared with the training split's own, and said; the wrong file
is named.
"""

import pytest

from nrms.config import parse
from nrms.data import joins
from nrms.data.quality import DataReport
from nrms.errors import ConfigError, SchemaError
from nrms.features.tokenizer import Tokenizer
from nrms.training.config import TrainConfig
from tests.small_data import Folder


@pytest.fixture(params=["integers", "strings"])
def folder(request, tmp_path) -> Folder:
    return Folder(tmp_path / "data", request.param == "strings")


def checked(folder, own=None, max_unknown=0.1, titles=("a b c d",)):
    dataset = folder.open()
    split = dataset.split("train", 3)
    split.read(0)
    return joins.check(dataset, split, Tokenizer.train(titles, 1).count, own or {}, max_unknown)


def test_each_share_is_of_what_the_counts_say():
    counts = {
        **{"candidates": 10, "unknown_candidate": 4, "clicks": 5, "unknown_click": 1},
        **{"history_entries": 12, "late_history": 2, "unknown_history_article": 5},
        **{"impressions": 8, "user_without_history": 2},
    }
    assert joins.shares(DataReport(counts), words=20, unknown_words=1) == {
        "unknown_candidates": 0.4,
        "unknown_history": 0.5,
        "unknown_clicks": 0.2,
        "readers_without_history": 0.25,
        "unknown_words": 0.05,
    }


def test_a_share_of_nothing_is_absent():
    assert joins.shares(DataReport({"candidates": 3, "history_entries": 2, "late_history": 2})) == {
        "unknown_candidates": 0.0
    }


@pytest.mark.parametrize(
    ("share", "own", "max_unknown", "warned"),
    [
        (0.1, 0.0, 0.1, 0),
        (0.11, 0.0, 0.1, 1),
        (0.5, 0.45, 0.1, 0),
        (0.56, 0.45, 0.1, 1),
        (0.9, 0.0, 1.0, 0),
    ],
)
def test_a_share_that_exceeds_the_training_splits_own_is_a_warning(share, own, max_unknown, warned):
    found = {"unknown_candidates": share, "unknown_words": 0.0}
    lines = joins.warnings("test", found, {"unknown_candidates": own}, max_unknown)
    assert len(lines) == warned
    for line in lines:
        assert line.startswith(
            f"test: {share:.1%} of the candidates are not in articles.parquet ({own:.1%} in train"
        )
        assert line.count(", ") == 3  # three causes, one of them with a comma
        assert line.endswith(" in one of the files.")


def test_a_model_that_stored_no_shares_is_compared_with_none():
    (line,) = joins.warnings("test", {"unknown_words": 0.2}, {}, 0.1)
    assert line.startswith(
        "test: 20.0% of the words of the titles in view are not in the model's vocabulary. Most"
    )


def test_data_that_joins_has_shares_of_zero_and_no_warning(folder):
    folder.write_all()
    found = checked(folder)
    assert set(found.shares) == set(joins.shares(DataReport(dict.fromkeys(_ALL, 1)), 1))
    assert set(found.shares.values()) == {0.0}
    assert found.warnings == []


_ALL = ("candidates", "history_entries", "clicks", "impressions")
UNKNOWN = {
    "unknown_candidates": ({"behaviors": {"article_ids_inview": [[98, 20, 99], [20, 97]]}}, 3 / 5),
    "unknown_history": ({"history": {"article_id_fixed": [[99, 30], [40], []]}}, 1 / 3),
    "unknown_clicks": ({"behaviors": {"article_ids_clicked": [[20, 99], [None, 40]]}}, 2 / 4),
    "readers_without_history": ({"behaviors": {"user_id": [7, 5]}}, 1 / 2),
    "unknown_words": ({"articles": {"title": ["a Ærø", "x", "c", "d"]}}, 2 / 5),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_joins_nothing_is_counted_and_said(folder, name):
    changes, share = UNKNOWN[name]
    folder.write_all(**changes)
    found = checked(folder)
    assert found.shares[name] == pytest.approx(share)
    (line,) = found.warnings
    assert line.startswith(f"train: {share:.1%} of the ")


def test_unlabelled_data_has_no_share_of_clicks(folder):
    folder.write_all(behaviors={"article_ids_clicked": None})
    assert "unknown_clicks" not in checked(folder).shares


def test_words_are_those_of_titles_in_view(folder):
    folder.write_all(
        articles={"title": ["a", "b", "c", "d"]}, behaviors={"article_ids_inview": [[10, 20], [30]]}
    )
    assert checked(folder, titles=("a b c",)).shares["unknown_words"] == 0


def test_words_of_many_titles_are_counted_in_a_sample(folder, monkeypatch):
    monkeypatch.setattr(joins, "_TITLES", 2)
    folder.write_all(articles={"title": ["a", "x", "c", "x"]})
    assert checked(folder, titles=("a c",)).shares["unknown_words"] == 0


def test_titles_without_a_word_are_said(folder):
    folder.write_all(articles={"title": [None, "", " - ", None]})
    found = checked(folder)
    assert "unknown_words" not in found.shares
    assert found.warnings == [
        "train: no title in view has a word, so all articles look alike. Look at column `title` of "
        "articles.parquet: "
        "it is null or empty."
    ]


def test_where_no_reader_joins_the_warning_shows_both_sides(folder):
    folder.write_all(history={"user_id": [1000007, 1000008, 1000009]})
    (line,) = checked(folder).warnings
    first = {
        False: ("7, 8 (int64)", "1000007, 1000008"),
        True: ("N7, N8 (string)", "N1000007, N1000008"),
    }
    readers, histories = first[folder.strings]
    assert line.startswith(
        f"train: no impression's reader has a history row: readers begin {readers}, "
    )
    assert f"histories begin {histories}" in line


def test_clicks_that_were_never_in_view_are_said(folder):
    folder.write_all(behaviors={"article_ids_clicked": [[40], [10]]})
    (line,) = checked(folder).warnings
    assert line.startswith("train: no click is on an article in view: clicks begin ")
    assert "`article_ids_clicked`" in line


SHIFTED = {"article_id": [1010, 1020, 1030, 1040]}
STRANGERS = {
    "articles.parquet is another's": (
        {"articles": SHIFTED},
        "articles.parquet",
        "; nor are those of the histories, which begin ",
    ),
    "in-view lists are wrong": (
        {
            "behaviors": {
                "article_ids_inview": [[1, 2, 3], [2, 4]],
                "article_ids_clicked": [[2], [4]],
            }
        },
        "train/behaviors.parquet",
        "articles of the histories are",
    ),
    "all three differ": (
        {"articles": SHIFTED, "history": {"article_id_fixed": [[1, 3], [4], []]}},
        "articles.parquet",
        "; nor are those of the histories, which begin ",
    ),
    "nothing was read before": (
        {
            "articles": SHIFTED,
            "history": {"article_id_fixed": [[], [], []], "impression_time_fixed": [[], [], []]},
        },
        "train/behaviors.parquet",
        "articles begin",
    ),
}


@pytest.mark.parametrize("case", STRANGERS)
def test_where_no_candidate_joins_the_error_names_the_file_and_shows_both_sides(folder, case):
    changes, where, said = STRANGERS[case]
    folder.write_all(**changes)
    dataset = folder.open()
    split = dataset.split("train", 3)
    split.read(0)
    with pytest.raises(SchemaError) as caught:
        joins.refuse_strangers(dataset, split)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "none of the 5 candidate ids is in articles.parquet: candidates begin " in message
    assert ("string" if folder.strings else "int64") in message
    assert said in message
    assert caught.value.parts["where"] == str(folder.path / where)
    joins.refuse_strangers(dataset, split, few=6)


def test_one_candidate_that_joins_is_enough(folder):
    folder.write_all(behaviors={"article_ids_inview": [[98, 20, 99], [97, 96]]})
    dataset = folder.open()
    split = dataset.split("train", 3)
    split.read(0)
    joins.refuse_strangers(dataset, split)


@pytest.mark.parametrize("value", ["-0.1", "1.1", "10", "nan", "all"])
def test_max_unknown_is_a_share(value):
    with pytest.raises(
        ConfigError, match=r"--max-unknown must be a number from 0 to 1. Received: "
    ):
        parse(TrainConfig, ["--data=d", "--output=o", f"--max-unknown={value}"], "p", "d")
