"""What a missing or wrong column is taken for: near names, 0/1 masks."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nrms.data import joins
from nrms.data.mistakes import is_mask, near_name
from nrms.data.schema import ARTICLES, BEHAVIORS, HISTORY
from nrms.errors import SchemaError
from tests.small_data import BEHAVIORS as BEHAVIOR_ROWS
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
        "Column `article_ids_clicked` must hold the ids of the clicked articles. Received: 0/1 "
        "masks, as long as the "
        f"candidates, in 2 rows, in {folder.path}/train/behaviors.parquet. Write the ids of those "
        f"candidates whose "
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
    "no column": (
        {"article_ids_clicked": None},
        "no column `article_ids_clicked` with a value. Add it.",
    ),
    "all null": (
        {"article_ids_clicked": [None, None]},
        "no column `article_ids_clicked` with a value. Add it.",
    ),
    "all empty": (
        {"article_ids_clicked": [[], []]},
        "no click in 2 impressions. Write the clicked articles as ",
    ),
    "other ids": (
        {"article_ids_clicked": [[5], [6]]},
        "2 clicks, none of them in view: clicks begin ",
    ),
    "others of the site": (
        {"article_ids_clicked": [[40], [10]]},
        "2 clicks, none of them in view: clicks begin ",
    ),
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


MISNAMED = {
    "title": ("articles", "title_"),
    "article_id": ("articles", "Article_ID"),
    "article_ids_inview": ("behaviors", "article_ids_in_view"),
    "user_id": ("behaviors", "userid"),
    "article_id_fixed": ("history", "article_ids_fixed"),
}


def renamed(folder: Folder, name: str, column: str, written: str) -> None:
    path = folder.path / name
    table = pq.read_table(path)
    pq.write_table(
        table.rename_columns([written if old == column else old for old in table.column_names]),
        path,
    )


@pytest.mark.parametrize("column", MISNAMED)
def test_a_required_column_under_another_name_is_named(folder, column):
    stem, written = MISNAMED[column]
    folder.write_all()
    name = "articles.parquet" if stem == "articles" else f"train/{stem}.parquet"
    renamed(folder, name, column, written)
    with pytest.raises(SchemaError) as caught:
        folder.split()
    assert str(caught.value).startswith(f"Column `{column}` (")
    assert str(caught.value).endswith(
        f"in {folder.path / name}. Rename `{written}` if that is it, or add the column."
    )


def test_a_column_of_another_type_is_not_meant(folder):
    folder.write_all()
    folder.write("train/history.parquet", {"user_id": [7], "article_ids_fixed": [1.5]})
    with pytest.raises(SchemaError, match="Add or rename the column"):
        folder.split()


@pytest.mark.parametrize(
    ("column", "stem", "written"),
    [
        ("article_ids_clicked", "behaviors", "article_ids_click"),
        ("impression_time", "behaviors", "impression_times"),
        ("device_type", "behaviors", "DeviceType"),
        ("impression_time_fixed", "history", "impression_times_fixed"),
    ],
)
def test_an_optional_column_under_another_name_is_a_warning(folder, column, stem, written):
    folder.write_all(behaviors={"device_type": pa.array([1, 2])})
    folder.write(
        "train/behaviors-2.parquet",
        BEHAVIOR_ROWS | {"impression_id": [5, 6], "device_type": pa.array([1, 2])},
    )
    for path in folder.path.glob(f"train/{stem}*"):
        renamed(folder, f"train/{path.name}", column, written)
    (line,) = [line for line in folder.split().warnings if f"`{column}`" in line]
    assert line.startswith(f"train/{stem}")
    assert line.endswith(
        f".parquet: there is no column `{column}`, but `{written}`, which is not read. Rename it "
        f"if that is it."
    )


def test_a_column_of_masks_is_named_where_there_are_no_clicks(folder):
    folder.write_all(
        behaviors={"article_ids_clicked": None, "labels": pa.array([[0, 1, 0], [0, 1]])}
    )
    (line,) = folder.split().warnings
    assert line.startswith(
        "train/behaviors.parquet: there is no column `article_ids_clicked`, but `labels` holds 0/1 "
        "masks of the "
        "candidates, which are not read. "
    )


def test_a_split_without_clicks_and_the_like_has_no_warning(folder):
    other = {
        "labels": pa.array([[5, 6, 7], [8, 9]]),
        "a.b": pa.array([[0, 1, 0], [1]]),
        "topics": pa.array([["x"], []]),
    }
    folder.write_all(behaviors={"article_ids_clicked": None, **other})
    assert folder.split().warnings == []


@pytest.mark.parametrize(
    "values", [[[False, True, False], [False, True]], [[0.0, 1.0, 0.0], [0.0, 1.0]]]
)
def test_masks_of_another_type_are_told_from_a_wrong_type(folder, values):
    folder.write_all(behaviors={"article_ids_clicked": pa.array(values)})
    with pytest.raises(
        SchemaError, match="Received: 0/1 masks, as long as the candidates, in 2 rows, in "
    ):
        folder.split()


def test_integer_masks_beside_ids_of_text_are_told_from_other_ids(tmp_path):
    folder = Folder(tmp_path, strings=True)
    folder.write_all(behaviors={"article_ids_clicked": pa.array([[0, 1, 0], [0, 1]])})
    with pytest.raises(SchemaError, match="Received: 0/1 masks"):
        folder.split()


def test_ids_of_another_type_are_shown_beside_the_articles(folder):
    folder.write_all(
        articles={
            "article_id": pa.array([10, 20, 30, 40] if folder.strings else ["n-17", "b", "c", "d"])
        }
    )
    with pytest.raises(SchemaError) as caught:
        folder.split()
    message = str(caught.value)
    assert message.startswith(
        "Column `article_id_fixed` must hold article ids of the same type as the other files ("
    )
    shown = "its ids begin {}; articles begin {}, in "
    assert (
        shown.format(
            *(
                ("N10, N30, N40 (string)", "10, 20, 30 (int64)")
                if folder.strings
                else ("10, 30, 40 (int64)", "n-17, b, c (string)")
            )
        )
        in message
    )


def test_a_column_beyond_the_contract_that_is_damaged_does_no_harm(tmp_path):
    folder = Folder(tmp_path, strings=False)
    labels = pa.array([[5, 1, 7], [8, 9]])
    folder.write_all(behaviors={"article_ids_clicked": None, "labels": labels})
    path = tmp_path / "train/behaviors.parquet"
    chunk = next(
        chunk
        for chunk in (pq.read_metadata(path).row_group(0).column(i) for i in range(5))
        if chunk.path_in_schema.startswith("labels")
    )
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)
    with pytest.raises((OSError, pa.ArrowException)):
        pq.read_table(path, columns=["labels"])
    split = folder.split()
    assert split.warnings == []
    assert len(split.read(0)) == 2
