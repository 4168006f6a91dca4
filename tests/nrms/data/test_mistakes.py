"""What a missing or wrong column is taken for: near names, 0/1 masks."""

import pyarrow as pa
import pytest

from nrms.data import joins
from nrms.data.mistakes import is_mask, near_name
from nrms.data.schema import ARTICLES, BEHAVIORS, HISTORY
from nrms.errors import SchemaError
from tests.small_data import Folder

EBNERD = [
    "impression_id",
    "article_id",
    "impression_time",
    "read_time",
    "scroll_percentage",
    "device_type",
    "article_ids_inview",
    "user_id",
    "article_ids_clicked",
    "is_sso_user",
    "gender",
    "postcode",
    "age",
    "is_subscriber",
    "session_id",
    "next_read_time",
    "next_scroll_percentage",
    "article_id_fixed",
    "impression_time_fixed",
    "read_time_fixed",
    "scroll_percentage_fixed",
    "title",
    "subtitle",
    "published_time",
    "category_str",
]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        *[("title", other) for other in ("title_", "titles", "Title", " TITLE", "tittle")],
        *[
            ("article_ids_clicked", other)
            for other in ("article_ids_click", "article_id_clicked", "Article_IDs_Clicked")
        ],
        ("impression_time", "impression_times"),
        ("impression_time_fixed", "impression_times_fixed"),
        ("article_id_fixed", "article_ids_fixed"),
        ("user_id", "userid"),
        ("impression_id", "ImpressionID"),
    ],
)
def test_a_name_is_near_its_misspelling(name, written):
    assert near_name(name, ["other", written, "columns"]) == written


CONTRACT = {column.name for column in (*ARTICLES, *BEHAVIORS, *HISTORY)}


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_no_other_column_of_ebnerd_is_near_one_of_the_contract(name):
    assert near_name(name, [other for other in EBNERD if other not in CONTRACT]) is None


def test_any_number_of_columns_is_looked_at_in_no_time():
    assert near_name("title", [f"title_{number}" * 50 for number in range(100_000)]) is None
    assert near_name("title", []) is None


@pytest.mark.parametrize(
    ("lists", "in_view", "found"),
    [
        ([[0, 1, 0], [1, 0]], [[7, 8, 9], [7, 8]], True),
        ([[0, 1, 0], None], [[7, 8, 9], [7, 8]], True),
        ([[False, True], [True, False]], [[7, 8], [7, 8]], True),
        ([[0.0, 1.0]], [["a", "b"]], True),
        ([["0", "1"]], [["a", "b"]], True),
        ([[0, 1]], [[7, 8, 9]], False),  # not one for each candidate
        ([[0, 2, 1]], [[7, 8, 9]], False),
        ([[0, 0], [0, 0]], [[7, 8], [7, 8]], False),  # says nothing
        ([[1], [1]], [[1], [7]], False),  # may be ids
        ([[], []], [[], []], False),
        ([None, None], [[7], [8]], False),
        ([], [], False),
    ],
)
def test_masks_are_a_zero_or_a_one_for_each_candidate(lists, in_view, found):
    assert is_mask(pa.array(lists), pa.array(in_view)) is found


@pytest.fixture(params=["integers", "strings"])
def folder(request, tmp_path) -> Folder:
    return Folder(tmp_path / "data", request.param == "strings")


def test_masks_in_the_place_of_clicks_are_refused(folder):
    values = pa.array([["0", "1", "0"], ["0", "1"]] if folder.strings else [[0, 1, 0], [0, 1]])
    folder.write_all(behaviors={"article_ids_clicked": values})
    with pytest.raises(SchemaError) as caught:
        folder.split().read(0)
    assert str(caught.value) == (
        "Column `article_ids_clicked` must hold the ids of the clicked articles. Received: 0/1 masks, as long as the "
        f"candidates in all 2 rows, in {folder.path}/train/behaviors.parquet. Write the ids of those candidates whose "
        "mask is 1."
    )


def test_articles_named_0_and_1_may_be_clicked(tmp_path):
    folder = Folder(tmp_path, strings=False)
    folder.write_all(
        articles={"article_id": [0, 1, 2, 3]},
        behaviors={"article_ids_inview": [[0, 1], [1, 0]], "article_ids_clicked": [[0, 1], [1, 0]]},
    )
    assert folder.split().read(0).clicked.all()


NO_CLICK = {
    "no column": ({"article_ids_clicked": None}, "no column `article_ids_clicked` with a value. Add it."),
    "all null": ({"article_ids_clicked": [None, None]}, "no column `article_ids_clicked` with a value. Add it."),
    "all empty": ({"article_ids_clicked": [[], []]}, "no click in 2 impressions. Write the clicked articles as "),
    "other ids": ({"article_ids_clicked": [[5], [6]]}, "2 clicks, none of them in view: clicks begin "),
    "others of the site": ({"article_ids_clicked": [[40], [10]]}, "2 clicks, none of them in view: clicks begin "),
    "all clicked": (
        {"article_ids_inview": [[10], [20]], "article_ids_clicked": [[10], [20]]},
        "clicks on all that was in view, or on articles that are not in articles.parquet. ",
    ),
}


@pytest.mark.parametrize("case", NO_CLICK)
def test_a_split_without_a_click_to_learn_from_says_why(folder, case):
    changes, said = NO_CLICK[case]
    folder.write_all(behaviors=changes)
    dataset = folder.open()
    split = dataset.split("train", 3)
    split.read(0)
    assert joins.why_no_click(dataset, split).startswith(said)
