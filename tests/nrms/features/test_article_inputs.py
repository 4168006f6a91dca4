"""What models read of articles, beside titles."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from nrms.data.articles import Articles
from nrms.data.quality import DataReport
from nrms.errors import ArtifactError, ConfigError, SchemaError
from nrms.features.article_inputs import each_input, one_text
from nrms.features.category import Category
from nrms.features.inputs import Inputs, registered
from nrms.features.text import Text
from nrms.features.vector import Vector

TITLES = ["Storm over sea", "Calm", "", "New storm"]
BODIES = ["Wind and waves " * 3, None, "Waves", "Sun"]


def articles(**columns) -> Articles:
    ids = pa.array(range(len(TITLES)))
    return Articles(ids, pa.array(TITLES), DataReport({}), None, columns)


def config(article_inputs: str, **changes) -> SimpleNamespace:
    sizes = {"title_size": 3, "subtitle_size": 2, "body_size": 4, "min_word_count": 1}
    return SimpleNamespace(article_inputs=article_inputs, **{**sizes, **changes})


EVERY = np.arange(4)


def words(one: Text, row: np.ndarray) -> list[str]:
    return [one.tokenizer.words[number] for number in row if number]


def test_texts_of_an_article_follow_each_other_without_a_gap():
    text = one_text(config("title,body"))
    read = articles(body=pa.array(BODIES))
    text.fit(read, EVERY)
    rows = text.encode(read)
    assert rows.shape == (4, 7)
    assert rows.dtype == np.int32
    assert [words(text, row) for row in rows] == [
        ["storm", "over", "sea", "wind", "and", "waves", "wind"],
        ["calm"],
        ["waves"],
        ["new", "storm", "sun"],
    ]
    assert all((row[np.count_nonzero(row) :] == 0).all() for row in rows)


def test_titles_alone_are_the_input_that_bundles_know():
    assert one_text(config("title")).kind == "title"


def test_texts_share_one_vocabulary(tmp_path):
    title, body = each_input(config("title,body"))
    read = articles(body=pa.array(BODIES))
    inputs = Inputs([title, body], SimpleNamespace(name="history", kind="history", settings={}))
    inputs.fit(read, EVERY)
    assert title.tokenizer is body.tokenizer
    assert {"storm", "waves"} <= set(title.tokenizer.words)
    inputs.save(tmp_path)
    loaded = Text(**body.settings)
    loaded.load({"tokenizer.json": tmp_path / "tokenizer.json"})
    np.testing.assert_array_equal(loaded.encode(read), body.encode(read))


def test_a_long_body_costs_its_first_words_only():
    text = Text("body", {"body": 3})
    long = "word and more " + "x" * 10_000_000
    read = articles(body=pa.array([long, None, "word", ""]))
    text.fit(read, EVERY)
    assert max(map(len, text.tokenizer.words)) < 1000
    assert [words(text, row) for row in text.encode(read)] == [
        ["word", "and", "more"],
        [],
        ["word"],
        [],
    ]
    # What is not read changes no key by which vectors are kept.
    longer = articles(body=pa.array([long + "y", None, "word", ""]))
    assert list(text.content(read)) == list(text.content(longer))


def test_other_texts_are_other_content():
    text = Text("text", {"title": 3, "body": 3})
    one = articles(body=pa.array(["a", "b", "a b", None]))
    other = articles(body=pa.array(["a", "c", "a b", ""]))
    same = [a == b for a, b in zip(text.content(one), text.content(other), strict=True)]
    assert same == [True, False, True, True]


def test_a_column_that_is_not_there_has_no_words_and_that_is_said(caplog):
    title, body = each_input(config("title,body"))
    read = articles(body=pa.nulls(4))
    for one in (title, body):
        one.fit(read, EVERY)
    assert not body.encode(read).any()
    assert "body: 4 of 4 articles of training have none" in caplog.text


@pytest.mark.parametrize(
    ("columns", "known", "numbers"),
    [
        ({"category_str": ["b", "a", None, "b"]}, ["a", "b"], [2, 1, 0, 2]),
        ({"category": [7, 12, None, 7]}, ["12", "7"], [2, 1, 0, 2]),
        (
            {"category_str": ["x", None, None, "y"], "category": [1, 2, 3, 4]},
            ["2", "3", "x", "y"],
            [3, 1, 2, 4],
        ),
    ],
)
def test_categories_have_numbers(columns, known, numbers):
    every = {name: pa.nulls(4) for name in ("category_str", "category")}
    read = articles(**{**every, **{name: pa.array(values) for name, values in columns.items()}})
    category = Category("category")
    category.fit(read, EVERY)
    assert category.known == known
    assert category.encode(read).tolist() == numbers
    assert Category(**category.settings).encode(read).tolist() == numbers


def test_the_first_of_several_subcategories_counts():
    lists = pa.array([[3, 4], [], None, [4]], pa.list_(pa.int16()))
    read = articles(subcategory_str=pa.nulls(4), subcategory=lists)
    category = Category("subcategory")
    category.fit(read, np.array([0, 1, 2]))
    assert category.known == ["3"]
    assert category.encode(read).tolist() == [1, 0, 0, 0]  # 4 did not occur in training


def vectors(*rows) -> pa.Array:
    return pa.array(rows, pa.list_(pa.float32()))


def test_an_article_without_a_vector_has_the_mean_of_training(tmp_path, caplog):
    read = articles(document_vector=vectors([1, 2], None, [3, 6], [9, 9]))
    vector = Vector("vector")
    vector.fit(read, np.array([0, 1, 2]))
    assert "vector: 1 of 3 articles of training have none" in caplog.text
    expected = np.array([[1, 2], [2, 4], [3, 6], [9, 9]], np.float32)
    np.testing.assert_array_equal(vector.encode(read), expected)
    vector.save(tmp_path)
    loaded = Vector(**vector.settings)
    loaded.load({path.name: path for path in tmp_path.iterdir()})
    assert loaded.axes == ("articles", 2)
    nowhere = loaded.encode(articles(document_vector=pa.nulls(4)))
    np.testing.assert_array_equal(nowhere, np.tile([[2, 4]], (4, 1)))
    np.testing.assert_array_equal(loaded.encode(read), expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_vector_that_is_no_vector_counts_as_none(bad):
    read = articles(document_vector=vectors([1, 2], [bad, 1], [3, 6], []))
    vector = Vector("vector")
    vector.fit(read, EVERY)
    assert vector.encode(read).tolist() == [[1, 2], [2, 4], [3, 6], [2, 4]]


def test_vectors_of_several_sizes_are_refused():
    vector = Vector("vector")
    with pytest.raises(SchemaError, match="vectors of one size"):
        vector.fit(articles(document_vector=vectors([1, 2], [1], None, None)), EVERY)
    with pytest.raises(SchemaError, match="none with one"):
        vector.fit(articles(document_vector=pa.nulls(4)), EVERY)
    vector.fit(articles(document_vector=vectors([1, 2], None, None, None)), EVERY)
    with pytest.raises(SchemaError, match="of the size of training, 2"):
        vector.encode(articles(document_vector=vectors([1, 2, 3], None, None, None)))


def test_a_damaged_mean_is_refused(tmp_path):
    path = tmp_path / "vector_mean.npy"
    for content in (np.zeros(3, np.float32), np.full(2, np.nan, np.float32), np.array(["a", "b"])):
        np.save(path, content)
        with pytest.raises(ArtifactError, match="mean vector"):
            Vector("vector", 2).load({path.name: path})
    path.write_bytes(b"no array")
    with pytest.raises(ArtifactError, match="mean vector"):
        Vector("vector", 2).load({path.name: path})


@pytest.mark.parametrize("names", ["", "titel", "title,category"])
def test_an_input_that_a_model_does_not_read_is_refused(names):
    with pytest.raises(ConfigError, match="--article-inputs must be of title, subtitle, body"):
        one_text(config(names))


def test_two_inputs_of_one_kind_are_refused():
    class Mine(Category):
        kind = "category"

    with pytest.raises(ValueError, match=r"must have a kind of its own.*nrms\.features\.category"):
        registered(Mine)
