"""Imports go one way, and the heavy libraries have one importer each."""

import ast
import functools
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
ORDER = (
    "environment",
    "errors",
    "config",
    "logs",
    "quiet",
    "storage",
    "data",
    "sources",
    "features",
    "architectures",
    "layers",
    "models",
    "evaluation",
    "bundles",
    "inference",
    "library",
    "tracking",
    "training",
    "nights",
    "events",
)
TOPS = ("nrms", "jobs", "api")
FILES = sorted(
    path.relative_to(REPOSITORY) for top in TOPS for path in (REPOSITORY / top).rglob("*.py")
)


@functools.cache
def imported(path):
    """Full names of the modules that a file imports, anywhere in it; `from a import b` gives a and
    a.b.
    """
    names = []
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def layer(name):
    parts = name.split(".")
    return (
        ORDER.index(parts[1])
        if parts[0] == "nrms" and len(parts) > 1 and parts[1] in ORDER
        else None
    )


def test_every_module_has_its_place_in_the_order():
    placed = {path.parts[1].removesuffix(".py") for path in FILES if path.parts[0] == "nrms"} - {
        "__init__"
    }
    assert placed == set(ORDER)


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "nrms"], ids=str)
def test_no_module_imports_one_above_it(path):
    own = layer(".".join(path.with_suffix("").parts))
    if own is None:
        return
    above = [
        name
        for name in imported(path)
        if name.startswith(("jobs", "api")) or (layer(name) or 0) > own
    ]
    assert above == []


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] != "nrms"], ids=str)
def test_jobs_and_service_do_not_import_each_other(path):
    other = {"jobs": "api", "api": "jobs"}[path.parts[0]]
    assert [name for name in imported(path) if name == other or name.startswith(f"{other}.")] == []


def test_nothing_outside_its_files_imports_a_model():
    rooms = [REPOSITORY / "nrms" / room for room in ("architectures", "models")]
    names = set.intersection(*({path.stem for path in room.glob("*.py")} for room in rooms))
    names -= {"__init__", "registry"}
    assert names
    own = {f"nrms.{room.name}.{name}" for room in rooms for name in names}
    outside = [
        path
        for path in FILES
        # The benchmark compares NRMS with a naive form of it.
        if path.stem not in names and path.parts[:2] != ("jobs", "bench")
    ]
    assert [path for path in outside if own & set(imported(path))] == []


@pytest.mark.parametrize(
    ("library", "importers"),
    [
        ("google.cloud", {"nrms/storage/gcs.py"}),
        ("wandb", {"nrms/tracking.py"}),
        (
            "tensorflow",
            {"nrms/inference/keras_runtime.py", "nrms/training", "jobs/bench"},
        ),
        (
            "keras",
            {
                "nrms/layers",
                "nrms/models",
                "nrms/bundles/export.py",
                "nrms/inference/keras_runtime.py",
                "nrms/training",
                "jobs/bench",
                "jobs/progress.py",
            },
        ),
        ("fastapi", {"api"}),
        ("sqlite3", {"nrms/events/sqlite_log.py"}),
        ("redis", {"nrms/events/redis_log.py"}),
        ("tempfile", {"nrms/storage/scratch.py", "api/answers/bounded_file.py"}),
        ("optuna", {"nrms/training/search_space.py", "nrms/training/sweep.py"}),
    ],
)
def test_a_library_has_no_other_importers(library, importers):
    found = {
        path.as_posix()
        for path in FILES
        if any(name == library or name.startswith(f"{library}.") for name in imported(path))
    }
    assert found
    assert [
        path for path in found if not any(path == i or path.startswith(f"{i}/") for i in importers)
    ] == []


@pytest.mark.system
def test_what_jobs_leave_is_ignored_and_no_source_is():
    outputs = [f"{folder}/x" for folder in ("data", "models", "predictions", "runs", "wandb")]
    git = ["git", "check-ignore", "--no-index", "--stdin"]
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    found = subprocess.run(
        git, cwd=REPOSITORY, input="\n".join([*outputs, tracked]), capture_output=True, text=True
    )
    assert found.stdout.split() == outputs


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parts[1] in ("layers", "models")], ids=str
)
def test_layers_and_models_use_keras_operations_only(path):
    assert not [name for name in imported(path) if name.startswith("tensorflow")]


# Rooms that must not know which columns of an article a model reads, and the files that may name
# one all the same.
BLIND = ("nrms/training", "nrms/inference", "nrms/nights", "api")
COLUMNS = {"title", "titles", "subtitle", "body", "category", "category_str", "subcategory"}
SEES = {
    "nrms/inference/article_vectors.py": "the column of the first release's files",
    "nrms/inference/onnx_runtime.py": "the input of the first release's graphs",
    "nrms/nights/examples.py": "the report shows people the titles of some impressions",
    "api/answers/response.py": "people may ask for titles",
    "api/answers/rows.py": "people may ask for titles",
    "api/routers/example.py": "people see the titles of the example",
    "api/schemas.py": "articles of a JSON body, and the titles that people ask for",
    "api/uploads/json_rows.py": "articles of a JSON body",
    "api/uploads/parquet_files.py": "articles of an upload, in the contract",
    "api/app.py": "the title of the OpenAPI document",
}


def names_of(path):
    """Everything that a file's code names: attributes, variables, arguments, and texts of one
    word.
    """
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.arg(arg=name):
                yield name
            case ast.keyword(arg=str(name)) | ast.Constant(value=str(name)):
                yield name


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.as_posix().startswith(BLIND)], ids=str
)
def test_no_column_of_an_article_is_named_where_models_are_trained_and_score(path):
    columns = COLUMNS - ({"body"} if path.parts[0] == "api" else set())
    found = columns & set(names_of(path))
    assert bool(found) == (path.as_posix() in SEES), found
