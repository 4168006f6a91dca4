"""`pip install .`: what the package holds, and that its command works where the repository is out
of reach.
"""

import os
import re
import sys
import sysconfig
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from nrms import __version__
from tests.requirements import requirements
from tests.small_training import REPOSITORY
from tests.tools import check_out, checked

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # What it is built with is installed here; nothing is fetched.
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    source = check_out(folder / "source")
    checked(sys.executable, "-m", "pip", "wheel", *offline, "-w", folder / "dist", source)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def commands(environment: Path) -> Path:
    return environment / ("Scripts" if sys.platform == "win32" else "bin")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment that holds the package and reaches the libraries of this one; runs its
    commands.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False, symlinks=sys.platform != "win32")
    python = commands(folder / "venv") / "python"
    site = sysconfig.get_path("purelib", vars={"base": str(folder / "venv")})
    (Path(site) / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", python]
    checked(*pip, "install", "--no-deps", "--no-index", wheel)

    def run(name, *words, code=0):
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MODEL_URI")}
        done = checked(
            commands(folder / "venv") / name, *words, cwd=folder, env=environment, code=code
        )
        assert str(REPOSITORY) not in done
        return done

    return run


def test_the_package_holds_the_sources_and_what_they_read(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = checked("git", "ls-files", "nrms", "jobs", "api", cwd=REPOSITORY).split()
    sources = {name for name in tracked if name.endswith(".py") and (REPOSITORY / name).exists()}
    assert {name for name in names if name.endswith(".py")} == sources
    assert {"api/static/index.html", "jobs/keras_home/keras.json"} < names
    assert f"nrms-{__version__}.dist-info/licenses/LICENSE" in names


def test_the_metadata_says_what_the_files_say(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = message_from_bytes(archive.read(f"nrms-{__version__}.dist-info/METADATA"))
    assert (metadata["Name"], metadata["Version"]) == ("nrms", __version__)
    assert metadata["License-Expression"] == "MIT"
    assert (REPOSITORY / "LICENSE").read_text().startswith("MIT License\n")
    needed = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    base = {requirement for requirement in needed if "extra" not in str(requirement.marker)}
    assert base == set(requirements(REPOSITORY / "requirements.txt"))
    assert set(metadata.get_all("Provides-Extra")) == {"api", "ray", "drift", "docs"}


def test_the_installed_command_is_that_of_the_folder(installed):
    assert installed("nrms", "--version") == f"nrms {__version__}\n"
    assert "prepare  bring data" in installed("nrms", "--help")
    assert installed("nrms", "train", "--help").startswith("usage: nrms train [--config FILE]")
    assert "Did you mean train? See nrms --help." in installed("nrms", "trian", code=2)
    # The service reads its page when it is imported.
    assert "must set MODEL_URI" in installed("nrms", "serve", code=2)


def test_an_installed_job_works_and_sets_keras_up(installed):
    size = ["--articles", "500", "--users", "30", "--impressions", "60"]
    assert "data: data" in installed(
        "nrms", "prepare", "--source", "demo", *size, "--output", "data"
    )
    code = (
        "import os, pathlib; from jobs.cli import set_up_process; set_up_process(); "
        "print(sorted(path.name for path in pathlib.Path(os.environ['KERAS_HOME']).iterdir()))"
    )
    assert installed("python", "-c", code) == "['keras.json']\n"


# pandas is not in the environment of the other tests: pyarrow imports it wherever it is, in every
# process.
PANDAS = """
import nrms, pandas, polars
names = "articles.parquet", "validation/history.parquet", "validation/behaviors-00000.parquet"
tables = [pandas.read_parquet(f"data/{name}") for name in names]
model = nrms.load("models", runtime="keras")
scored = model.score(*tables)
night = polars.read_parquet("night/part-00000.parquet")
assert scored.equals(night), (scored, night)
assert model.encode(tables[0].set_index("title", drop=False)).shape == (len(tables[0]), 16)
"""


@pytest.mark.long
def test_pip_installs_it_into_an_empty_environment(tmp_path):
    """With all that it needs, by ranges, as a user does."""
    source = check_out(tmp_path / "source")
    venv.create(tmp_path / "venv", with_pip=True)
    pip = [commands(tmp_path / "venv") / "python", "-m", "pip", "install", "--quiet"]
    checked(*pip, f"{source}[api]", "pandas", cwd=tmp_path)
    nrms = commands(tmp_path / "venv") / "nrms"
    data = ["--articles", "500", "--users", "60", "--impressions", "250"]
    checked(nrms, "prepare", "--source", "demo", *data, "--output", "data", cwd=tmp_path)
    model = ["--word-dim", "16", "--heads", "2", "--head-dim", "8", "--attention-dim", "16"]
    flags = ["--epochs", "1", "--promote", "always", "--wandb-mode", "disabled"]
    checked(nrms, "train", "--data", "data", "--output", "models", *model, *flags, cwd=tmp_path)
    paths = ["--model", "models", "--data", "data", "--output", "night"]
    printed = checked(nrms, "score", *paths, "--wandb-mode", "disabled", cwd=tmp_path)
    assert re.search(r"^predictions: night$", printed, re.MULTILINE)
    assert "MODEL_URI" in checked(nrms, "serve", "--help", cwd=tmp_path)
    checked(commands(tmp_path / "venv") / "python", "-c", PANDAS, cwd=tmp_path)


FILES = ["CHANGELOG.md", "CONTRIBUTING.md"]


def test_the_version_is_that_of_the_changelog_or_the_next_one():
    text = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles.pop(0) == "Unreleased"
    releases = [re.fullmatch(r"(\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)", title) for title in titles]
    assert all(releases)
    newest, date = releases[0].groups()
    ours = Version(__version__)
    assert ours == Version(newest) or (ours.is_devrelease and ours > Version(newest))
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))
    assert (citation["version"], str(citation["date-released"])) == (newest, date)


@pytest.mark.parametrize("name", FILES)
def test_what_is_linked_and_named_is_there(name):
    text = (REPOSITORY / name).read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?m)(?:`|^)make ([a-z-]+)", text)) <= targets
