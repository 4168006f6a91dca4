"""Vectors by content: what was encoded once is not encoded again, whatever happens to the file that
keeps it.
"""

import hashlib
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nrms import storage
from nrms.inference import article_vectors
from nrms.inference.article_vectors import ArticleVectors
from nrms.storage import parquet
from tests import scale
from tests.damage import flip

DIM = 3


def vector(title):
    return np.random.default_rng(list(title.encode())).normal(size=DIM).astype(np.float32)


def key(title):
    return hashlib.blake2b(title.encode(), digest_size=16).digest()


class Kept:
    """Vectors that remember what they were asked to encode."""

    def __init__(self, model="a" * 64):
        self.asked = []
        self.vectors = ArticleVectors(model, "onnx")

    def of(self, *titles):
        def encode(rows):
            self.asked += [titles[row] for row in rows]
            return np.stack([vector(titles[row]) for row in rows])

        found = self.vectors.of([key(title) for title in titles], encode)
        np.testing.assert_array_equal(found, [vector(title) for title in titles])
        return self


@pytest.fixture(params=["local", pytest.param("gs", marks=pytest.mark.system)])
def folder(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "vectors")
    return storage.join(request.getfixturevalue("bucket"), "vectors")


def loaded(folder, tmp_path, model="a" * 64):
    kept = Kept(model)
    kept.vectors.load(folder, tmp_path)
    return kept


def test_a_title_is_encoded_once_however_often_it_stands():
    kept = Kept().of("a", "b", "a").of("b", "c")
    assert kept.asked == ["a", "b", "c"]
    assert kept.vectors.encoded == 3


def test_what_was_saved_is_not_encoded_again(folder, tmp_path):
    Kept().of("a", "b", "").vectors.save(folder)
    second = loaded(folder, tmp_path).of("b", "c", "a", "")
    assert second.asked == ["c"]
    second.vectors.save(folder)
    assert loaded(folder, tmp_path).of("a", "b", "c").asked == []


def test_another_model_has_a_file_of_its_own(folder, tmp_path):
    Kept().of("a").vectors.save(folder)
    other = loaded(folder, tmp_path, "b" * 64).of("a")
    assert other.asked == ["a"]
    other.vectors.save(folder)
    assert len(storage.list_files(folder)) == 2


def test_nothing_is_written_when_nothing_is_new(folder, tmp_path):
    Kept().of("a").vectors.save(folder)
    before = storage.list_files(folder)
    loaded(folder, tmp_path).of("a").vectors.save(folder)
    assert storage.list_files(folder) == before


def test_the_file_holds_at_most_twice_what_a_night_needs(folder, tmp_path):
    Kept().of(*"abcdefgh").vectors.save(folder)
    loaded(folder, tmp_path).of("a", "x").vectors.save(folder)
    (file,) = storage.list_files(folder)
    assert pq.read_metadata(storage.fetch(file, tmp_path)).num_rows == 4
    assert loaded(folder, tmp_path).of("a", "x").asked == []


def size(folder, tmp_path):
    (file,) = storage.list_files(folder)
    return pq.read_metadata(storage.fetch(file, tmp_path)).num_rows


def test_replaced_titles_do_not_let_the_file_grow_in_a_process_that_goes_on(folder, tmp_path):
    kept = Kept()
    for day in range(6):
        titles = [f"{day} {number}" for number in range(20)]
        kept.of(*titles).vectors.save(folder)
        assert size(folder, tmp_path) <= 40
    assert len(kept.asked) == 120
    assert loaded(folder, tmp_path).of(*titles).asked == []


def test_replaced_titles_do_not_let_the_file_grow_from_night_to_night(folder, tmp_path):
    for day in range(6):
        loaded(folder, tmp_path).of(*[f"{day} {number}" for number in range(20)]).vectors.save(
            folder
        )
        assert size(folder, tmp_path) <= 40


def test_of_titles_that_are_used_no_more_the_latest_are_kept_and_for_a_month(
    folder, tmp_path, monkeypatch
):
    kept = Kept()
    for day, titles in ((100, "ab"), (101, "cd"), (102, "ef")):
        monkeypatch.setattr(article_vectors, "_today", lambda day=day: day)
        kept.of(*titles).vectors.save(folder)
    assert size(folder, tmp_path) == 4
    assert loaded(folder, tmp_path).of(*"cdef").asked == []
    monkeypatch.setattr(article_vectors, "_today", lambda: 101 + 30)
    late = loaded(folder, tmp_path).of(*"ef")
    late.vectors.save(folder)
    assert late.asked == []
    assert size(folder, tmp_path) == 2


def test_titles_in_use_are_not_forgotten_where_only_another_catalogue_has_new_ones(
    folder, tmp_path, monkeypatch
):
    for day in range(100, 190, 3):
        monkeypatch.setattr(article_vectors, "_today", lambda day=day: day)
        for titles in (["a", "b"], [str(day), "x"]):
            kept = loaded(folder, tmp_path).of(*titles)
            kept.vectors.save(folder)
            assert "a" not in kept.asked or day == 100


def test_a_process_whose_save_came_too_late_saves_all_the_next_time(folder, tmp_path):
    first, second = loaded(folder, tmp_path).of("a", "x"), loaded(folder, tmp_path).of("b", "y")
    first.vectors.save(folder)
    second.vectors.save(folder)
    second.of("b", "y").vectors.save(folder)
    assert loaded(folder, tmp_path).of("a", "b", "x", "y").asked == []


def test_a_file_of_the_first_release_is_read(folder, tmp_path):
    Kept().of("a", "b").vectors.save(folder)
    (file,) = storage.list_files(folder)
    table = parquet.read(storage.fetch(file, tmp_path)).drop_columns("day")
    said = {b"nrms.model": table.schema.metadata[b"nrms.model"]}
    pq.write_table(
        table.replace_schema_metadata(said),
        tmp_path / "old",
        compression="none",
        use_dictionary=False,
    )
    storage.upload(tmp_path / "old", file.uri)
    assert loaded(folder, tmp_path).of("a", "b").asked == []


def test_no_flipped_bit_moves_a_vector(tmp_path):
    folder, rng = str(tmp_path / "vectors"), random.Random(0)
    Kept().of(*"abcdefgh").vectors.save(folder)
    (path,) = Path(folder).iterdir()
    content = path.read_bytes()
    for bit in rng.sample(range(8 * len(content)), scale.scaled(800)):
        flip(path, content, bit)
        loaded(folder, tmp_path).of(*"abcdefgh")  # which compares each vector


def damaged(change):
    def spoil(uri, path):
        table = change(parquet.read(path))
        parquet.write(
            path.with_name("spoilt"), table, {b"nrms.model": table.schema.metadata[b"nrms.model"]}
        )
        storage.upload(path.with_name("spoilt"), uri)

    return spoil


def with_column(name, values):
    return damaged(lambda table: table.set_column(table.column_names.index(name), name, values))


KEYS = pa.array([b"k" * 16] * 2, pa.binary(16))
SPOILT = {
    "cut short": lambda uri, path: storage.write_bytes(path.read_bytes()[:-9], uri),
    "no Parquet": lambda uri, path: storage.write_bytes(b"hello", uri),
    "empty": lambda uri, path: storage.write_bytes(b"", uri),
    "flipped bytes": lambda uri, path: storage.write_bytes(
        path.read_bytes()[:60]
        + bytes(255 - b for b in path.read_bytes()[60:90])
        + path.read_bytes()[90:],
        uri,
    ),
    "another model": damaged(
        lambda table: table.replace_schema_metadata({b"nrms.model": b"b" * 64})
    ),
    "a column less": damaged(lambda table: table.drop_columns("vector")),
    "a key twice": with_column("key", KEYS),
    "keys of another length": with_column("key", pa.array([b"a", b"b"], pa.binary(1))),
    "no bytes": with_column("vector", pa.array([1.0, 2.0], pa.float32())),
    "no whole floats": with_column("vector", pa.array([b"12345"] * 2, pa.binary(5))),
    "no vectors": damaged(lambda table: table.slice(0, 0)),
    "a null": with_column("vector", pa.array([None, bytes(4 * DIM)], pa.binary(4 * DIM))),
    "not finite": with_column(
        "vector", pa.array([np.full(DIM, np.nan, "<f4").tobytes()] * 2, pa.binary(4 * DIM))
    ),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_file_that_is_damaged_counts_as_none_and_is_replaced(folder, tmp_path, spoil, caplog):
    Kept().of("a", "b").vectors.save(folder)
    (file,) = storage.list_files(folder)
    spoil(file.uri, storage.fetch(file, tmp_path))
    kept = loaded(folder, tmp_path).of("a", "b")
    assert kept.asked == ["a", "b"]
    assert "cannot be read, so all articles are encoded" in caplog.text
    kept.vectors.save(folder)
    assert loaded(folder, tmp_path).of("a", "b").asked == []


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    Kept().of("a").vectors.save(str(tmp_path / "file" / "vectors"))
    assert "cannot be written, so the next night encodes these articles again" in caplog.text


def test_of_two_runs_at_once_the_first_to_save_stays(folder, tmp_path):
    first, second = loaded(folder, tmp_path).of("a"), loaded(folder, tmp_path).of("b")
    first.vectors.save(folder)
    second.vectors.save(folder)
    assert loaded(folder, tmp_path).of("a", "b").asked == ["b"]
