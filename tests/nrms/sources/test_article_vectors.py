"""Vectors of documents and entities become columns of articles.parquet."""

from pathlib import Path

import polars as pl
import pytest

from nrms.errors import SchemaError
from nrms.sources.article_vectors import WithVectors
from nrms.sources.mind import Mind
from nrms.sources.writer import write_dataset
from tests.nrms.sources.test_mind import folder

NEWS = (
    "N1\tsports\tnfl\tOne\t\thttps://a/1\t"
    '[{"Label": "A", "WikidataId": "Q1"}, {"Label": "B", "WikidataId": "Q2"}]\t'
    '[{"Label": "A", "WikidataId": "Q1"}]\n'
    'N2\tnews\tworld\tTwo\t\thttps://a/2\t[{"WikidataId": "Q9"}]\t[]\n'
    "N9\tnews\tworld\tNine\t\thttps://a/9\t[]\t\n"
)


def prepared(tmp_path: Path, documents=None, entities=None) -> tuple[pl.DataFrame, list[str]]:
    mind = Mind(folder(tmp_path / "in", news=NEWS), "train", tmp_path)
    source = WithVectors(mind, documents, entities, tmp_path)
    write_dataset(
        source, str(tmp_path / "out"), shard_rows=9, overwrite=True, progress=lambda *_: None
    )
    return pl.read_parquet(tmp_path / "out/articles.parquet"), source.notes


def file(path: Path, **columns) -> str:
    pl.DataFrame(columns).write_parquet(path)
    return str(path)


def test_document_vectors_are_joined_by_id_whatever_their_column_is_called(tmp_path):
    vectors = file(
        tmp_path / "contrastive_vector.parquet",
        article_id=["N9", "N1", "N7"],
        contrastive_vector=[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
    )
    articles, notes = prepared(tmp_path, vectors)
    assert articles["document_vector"].to_list() == [[3, 4], None, [1, 2]]
    assert "document_vector: 1 of 3 articles have none" in notes


def test_ids_of_numbers_join_ids_of_texts(tmp_path):
    vectors = file(tmp_path / "v.parquet", article_id=[1, 2], vector=[[1.0], [2.0]])
    news = NEWS.replace("N1\t", "1\t", 1)
    mind = Mind(folder(tmp_path / "in", news=news), "train", tmp_path)
    found = WithVectors(mind, vectors, None, tmp_path).articles()
    assert found["document_vector"].to_pylist() == [[1], None, None]


def test_an_article_has_the_mean_of_its_entities_as_often_as_they_occur(tmp_path):
    entities = tmp_path / "entity_embedding.vec"
    entities.write_text("Q1\t1.0\t0.0\t\nQ2\t4.0\t3.0\t\nQ3\t7.0\t7.0\t\n")
    articles, notes = prepared(tmp_path, entities=str(entities))
    assert articles["entity_vector"].to_list() == [[2, 1], None, None]  # (Q1 + Q2 + Q1) / 3
    assert "entity_vector: 2 of 3 articles have none" in notes


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"article_id": ["N1"], "one": [[1.0]], "two": [[1.0]]}, "one column of lists of floats"),
        ({"id": ["N1"], "one": [[1.0]]}, "must have `article_id`"),
        ({"article_id": ["N5"], "one": [[1.0]]}, "none of 3 articles has a vector"),
    ],
)
def test_a_file_of_other_things_is_refused(tmp_path, columns, said):
    with pytest.raises(SchemaError, match=said):
        prepared(tmp_path, file(tmp_path / "v.parquet", **columns))


def test_a_file_that_is_no_parquet_and_one_without_numbers_are_refused(tmp_path):
    (tmp_path / "v.parquet").write_bytes(b"no parquet")
    with pytest.raises(SchemaError, match="must be readable"):
        prepared(tmp_path, str(tmp_path / "v.parquet"))
    (tmp_path / "e.vec").write_text("Q1 1.0 0.0\n")
    with pytest.raises(SchemaError, match="lines of an entity and numbers"):
        prepared(tmp_path, entities=str(tmp_path / "e.vec"))
