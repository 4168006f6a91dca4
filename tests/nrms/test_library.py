"""The Python API: `nrms.load`, whatever the tables are made of."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

import nrms
from nrms import storage
from nrms.errors import ArtifactError, ConfigError, ObjectNotFound, SchemaError
from nrms.nights.config import ScoreConfig
from nrms.nights.scoring import score
from tests.small_training import REPOSITORY

pytestmark = pytest.mark.system

NAMES = ("articles", "history", "behaviors")


@pytest.fixture(scope="module")
def paths(world):
    """The articles of `world`, and a split of it that is one file."""
    split = Path(world.data, "validation")
    (behaviors,) = split.glob("behaviors*.parquet")
    return {
        "articles": Path(world.articles),
        "history": split / "history.parquet",
        "behaviors": behaviors,
    }


@pytest.fixture(scope="module")
def tables(paths):
    return {name: pq.read_table(path) for name, path in paths.items()}


@pytest.fixture(scope="module")
def night(world, tmp_path_factory):
    """What the nightly job makes of it."""
    folder = tmp_path_factory.mktemp("night")
    flags = {"runtime": "onnx", "wandb_mode": "disabled", "article_vectors": str(folder / "kept")}
    score(ScoreConfig(model=world.models, data=world.data, output=str(folder / "out"), **flags))
    return pl.read_parquet(folder / "out" / "part-00000.parquet")


@pytest.fixture(scope="module")
def model(world):
    return nrms.load(world.models)


class Capsule:
    """A table that knows Arrow's protocol alone."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


KINDS = {
    "a path": lambda table, path: path,
    "the text of a path": lambda table, path: str(path),
    "Arrow": lambda table, path: table,
    "Arrow, cut in pieces": lambda table, path: pa.concat_tables([table[:9], table[9:]]),
    "Polars": lambda table, path: pl.from_arrow(table),
    "anything else of Arrow's": lambda table, path: Capsule(pl.from_arrow(table)),
    "columns": lambda table, path: table.to_pydict(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_night_whatever_the_tables_are(model, tables, paths, night, kind):
    given = {name: KINDS[kind](tables[name], paths[name]) for name in NAMES}
    scored = model.score(**given)
    assert_frame_equal(scored, night, check_exact=True, check_dtypes=kind != "columns")
    assert scored["scores"].dtype == pl.List(pl.Float32)
    assert scored["ranks"].dtype == pl.List(pl.Int32)


def test_model_and_files_may_lie_in_a_bucket(world, paths, night, bucket):
    for path in Path(world.version).rglob("*"):
        if path.is_file():
            below = str(path.relative_to(world.version))
            storage.upload(path, storage.join(bucket, "models", Path(world.version).name, below))
    storage.upload(Path(world.models, "latest.json"), f"{bucket}/models/latest.json")
    for name, path in paths.items():
        storage.upload(path, f"{bucket}/{name}.parquet")
    model = nrms.load(f"{bucket}/models")
    assert (model.uri, model.version) == (
        storage.join(bucket, "models", model.version),
        Path(world.version).name,
    )
    given = {name: f"{bucket}/{name}.parquet" for name in NAMES}
    assert_frame_equal(model.score(**given), night, check_exact=True)


def test_keras_scores_as_onnx(world, paths, night):
    model = nrms.load(world.version, runtime="keras")
    (found, expected) = (
        frame["scores"].explode().to_numpy() for frame in (model.score(**paths), night)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_strings_as_ids_come_out_as_they_went_in(model, tables):
    def texts(table):
        frame = pl.from_arrow(table)
        ids = pl.col(pl.List(pl.Int32)).cast(pl.List(pl.String)), pl.col("^.*_id$").cast(pl.String)
        return frame.with_columns(*ids)

    given = {name: texts(table) for name, table in tables.items()}
    scored = model.score(**given)
    assert scored.select("impression_id", "user_id", "article_ids_inview").equals(
        given["behaviors"].select("impression_id", "user_id", "article_ids_inview")
    )
    plain = model.score(**tables)
    assert scored["scores"].equals(plain["scores"])


def test_without_clicks_there_are_none(model, tables):
    behaviors = tables["behaviors"].drop_columns("article_ids_clicked")
    scored = model.score(tables["articles"], tables["history"], behaviors)
    assert scored.columns == ["impression_id", "user_id", "article_ids_inview", "scores", "ranks"]


def test_vectors_are_the_articles_in_their_order(model, tables, paths):
    vectors = model.encode(paths["articles"])
    assert (vectors.dtype, vectors.shape) == (np.float32, (len(tables["articles"]), 16))
    assert np.abs(vectors).max(axis=1).min() > 0
    turned = pl.from_arrow(tables["articles"]).reverse()
    np.testing.assert_array_equal(model.encode(turned), vectors[::-1])


def test_what_may_make_scores_wrong_is_a_warning(model, tables):
    articles = pl.from_arrow(tables["articles"])[::2]
    with pytest.warns(UserWarning, match="^tables: ") as caught:
        model.score(articles, tables["history"], tables["behaviors"])
    assert {one.filename for one in caught} == {__file__}
    candidates = r"tables: \d+\.\d% of the candidates are not in articles\.parquet\. Most likely "
    assert [one for one in caught if re.match(candidates, str(one.message))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"behaviors": [1, 2]},
            "`behaviors` must be a table of Polars, pandas or Arrow, or the path of a Parquet "
            "file. Received: list (Must pass names or schema when constructing Table or "
            "RecordBatch.), in behaviors. Give one of these.",
        ),
        (
            {"history": {"user_id": [1], "article_ids": [[1]]}},
            "Column `article_id_fixed` (a list of integers or of strings) is required. Received: "
            "1 rows of columns user_id, article_ids, in history. ",
        ),
        (
            {"articles": {"article_id": [1, 1], "title": ["a", "b"]}},
            "Column `article_id` must be unique. Received: 1 of 2 rows repeat an id, first 1, in "
            "articles. ",
        ),
        (
            {"articles": {"article_id": [1, 2], "title": ["a", "b"]}},
            "Candidates must be in articles.parquet. Received: none of the ",
        ),
    ],
)
def test_a_wrong_table_is_named_in_one_line(model, tables, change, message):
    with pytest.raises(SchemaError) as caught:
        model.score(**(tables | change))
    assert str(caught.value).startswith(message)
    assert tempfile.gettempdir() not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_named(model, world, tables, tmp_path):
    with pytest.raises(ObjectNotFound, match=r"nothing\.parquet"):
        model.score(tables["articles"], tables["history"], tmp_path / "nothing.parquet")
    with pytest.raises(ArtifactError, match="is no model: there is no such folder"):
        nrms.load(tmp_path / "models")
    with pytest.raises(ConfigError, match=r"one of keras, onnx\. Received: 'jax'\."):
        nrms.load(world.models, runtime="jax")


def test_nothing_is_left_and_the_model_needs_no_file(world, tables, night, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    Path(tempfile.gettempdir()).mkdir()
    models = shutil.copytree(world.models, tmp_path / "models")
    before = sorted(models.rglob("*"))
    model = nrms.load(models)
    assert sorted(models.rglob("*")) == before
    shutil.rmtree(models)
    assert_frame_equal(model.score(**tables), night, check_exact=True)
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


LIBRARIES = "keras tensorflow wandb fastapi matplotlib sklearn numpy pyarrow polars"


def loaded(code, *words):
    """Which of these a new interpreter has imported in the end."""
    code += f"\nimport sys; print(*(name for name in {LIBRARIES.split()} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, words)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


def test_importing_it_imports_no_library():
    assert loaded("import nrms") == []


def test_onnx_needs_neither_keras_nor_tensorflow(world, paths):
    code = "import sys, nrms; nrms.load(sys.argv[1]).score(*sys.argv[2:])"
    found = loaded(code, world.models, *(paths[name] for name in NAMES))
    assert found == ["numpy", "pyarrow", "polars"]
