"""The Dockerfile without Docker: linted, its rules kept, and each target's lines run in an
environment of its own.

That environment is installed in the long run. Else it is made of links into the one that runs the
tests: to what the target's lock names, and to nothing else.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from dataclasses import dataclass, field
from importlib.metadata import metadata
from pathlib import Path

import pytest

from tests import scale
from tests.requirements import installed, link, requirements
from tests.small_training import REPOSITORY
from tests.tools import checked, tool

pytestmark = pytest.mark.system

DOCKERFILE = REPOSITORY / "Dockerfile"
TARGETS = ("api", "train")
# and a lock
INSTALL = shlex.split("pip install --disable-pip-version-check --require-hashes --requirement")


@dataclass
class Stage:
    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.lines if name == instruction]


def read_stages() -> dict[str, Stage]:
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: dict[str, Stage] = {}
    for line in filter(None, (line.strip() for line in text.splitlines())):
        instruction, rest = line.split(maxsplit=1)
        if instruction == "FROM":
            base, _, name = rest.split()
            stages[name] = stage = Stage(base)
        else:
            stage.lines.append((instruction, rest))
    return stages


STAGES = read_stages()


class Image:
    """A target's lines, run on this machine: its own virtual environment and, in place of `/app`, a
    folder.

    What a line does to the machine as a whole is left out: the stage `base`, which makes the
    account.
    """

    def __init__(self, target: str, folder: Path) -> None:
        self.stage = STAGES[target]
        self.app = folder / "app"
        self.python = folder / "venv"
        self.app.mkdir()
        venv.create(self.python, with_pip=scale.whole, symlinks=True)
        # As in an image: nothing of this repository or its environment is in reach.
        self.environment = {
            "PATH": f"{self.python / 'bin'}:/usr/bin:/bin",
            "HOME": str(Path.home()),
            **{
                name: value
                for name, value in os.environ.items()
                if name.startswith(("PIP_", "SSL_"))
            },
        }
        for instruction, rest in self.stage.lines:
            if instruction == "ARG":
                name, _, value = rest.partition("=")
                self.environment[name] = value
            elif instruction == "ENV":
                self.environment |= dict(pair.split("=", 1) for pair in rest.split())
            elif instruction == "COPY" and not rest.startswith("--from"):
                self.copy(*rest.split())
            elif instruction == "RUN":
                self.run(re.sub(r"^(--mount=\S+ )+", "", rest))

    def run(self, command: str) -> None:
        if scale.whole:
            checked("/bin/sh", "-c", command, cwd=self.app, env=self.environment)
            return
        *words, name = shlex.split(command)
        assert words == INSTALL
        lock = self.app / self.environment.get(name.strip("${}"), name)
        (site,) = self.python.glob("lib/python*/site-packages")
        for found in installed(requirements(lock)):
            link(found, site)

    def installed(self) -> list[str]:
        """The names of the distributions in its environment."""
        code = (
            "from importlib.metadata import distributions; "
            "print(*(found.name for found in distributions()))"
        )
        return checked(self.python / "bin/python", "-c", code, env=self.environment).lower().split()

    def copy(self, *words: str) -> None:
        *sources, target = words
        for source in sources:
            if (REPOSITORY / source).is_dir():
                shutil.copytree(
                    REPOSITORY / source,
                    self.app / target,
                    ignore=shutil.ignore_patterns("__pycache__"),
                )
            else:
                shutil.copy(REPOSITORY / source, self.app / target)

    def command(self) -> list[str]:
        return json.loads(self.stage.all("CMD")[0])


def test_hadolint_finds_nothing():
    assert checked(tool("hadolint"), DOCKERFILE) == ""


def test_every_base_is_pinned():
    for stage in STAGES.values():
        assert stage.base in STAGES or re.search(r":\d+\.\d+\.\d+-", stage.base), stage.base


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_runs_as_root_and_every_target_says_how_it_is_watched(target):
    stage = STAGES[target]
    names = [name for name, _ in stage.lines]
    assert stage.all("USER") == ["10001"]
    assert "RUN" not in names[names.index("USER") :]
    assert f"--uid {stage.all('USER')[0]} " in " ".join(STAGES["base"].all("RUN"))
    assert len(stage.all("HEALTHCHECK")) == len(stage.all("CMD")) == 1


def test_the_builder_is_given_what_is_copied_and_nothing_else():
    first, *rest = [
        line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[:1] != "#"
    ]
    assert first == "*"
    allowed = {line.removeprefix("!") for line in rest if line.startswith("!")}
    copied = {
        source
        for target in TARGETS
        for line in STAGES[target].all("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    }
    assert allowed == copied


def test_the_variant_for_gpus_is_another_lock():
    (default,) = STAGES["train"].all("ARG")
    assert default == "REQUIREMENTS=requirements.lock"
    (copied, *_) = STAGES["train"].all("COPY")
    assert copied.split() == ["requirements.lock", "requirements_gpu.lock", "./"]
    assert "REQUIREMENTS=requirements_gpu.lock" in DOCKERFILE.read_text()
    assert "and-cuda" in metadata("tensorflow").get_all("Provides-Extra")


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the images are Linux")
def test_the_cron_is_built_and_takes_the_crontabs(tmp_path):
    (line,) = STAGES["supercronic"].all("RUN")
    checked("/bin/sh", "-c", line, env={**os.environ, "GOBIN": str(tmp_path), "PATH": go_path()})
    assert STAGES["supercronic"].base.startswith("golang:")
    for path in (REPOSITORY / "configs").glob("*crontab"):
        assert "crontab is valid" in checked(tmp_path / "supercronic", "-test", path)


def go_path() -> str:
    return f"{Path(tool('go')).parent}:{os.environ['PATH']}"


@pytest.mark.skipif(sys.platform != "linux", reason="the images are Linux")
def test_the_service_runs_without_tensorflow_from_what_its_image_holds(world, tmp_path):
    image = Image("api", tmp_path)
    assert "pyarrow" in image.installed()
    assert not re.search("tensorflow|keras|polars|wandb", " ".join(image.installed()))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    # in a container, its own address alone reaches nobody
    assert image.environment["HOST"] == "0.0.0.0"
    process = subprocess.Popen(
        image.command(),
        cwd=image.app,
        env={**image.environment, "PORT": port, "MODEL_URI": world.models},
    )
    try:
        (check,) = image.stage.all("HEALTHCHECK")
        command = [word.replace("8000", port) for word in json.loads(check.partition("CMD ")[2])]
        while (
            subprocess.run(
                command, env=image.environment, stderr=subprocess.DEVNULL, check=False
            ).returncode
            != 0
        ):
            assert process.poll() is None
            time.sleep(0.1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/info") as answer:
            assert json.load(answer)["model"]["uri"] == world.version
    finally:
        process.terminate()
        assert process.wait() == 0


IMPORT_ALL = """
import importlib, pkgutil
for top in ("nrms", "jobs"):
    for module in pkgutil.walk_packages(importlib.import_module(top).__path__, top + "."):
        # The first measures against packages of requirements_dev.txt, the other is an extra.
        if not module.name.startswith(("jobs.bench", "nrms.events.redis_log")):
            importlib.import_module(module.name)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the images are Linux")
def test_the_jobs_need_nothing_but_what_their_image_holds(tmp_path):
    image = Image("train", tmp_path)
    assert {"tensorflow", "wandb"} <= set(image.installed())
    assert "usage: python -m jobs.train" in checked(
        *image.command(), cwd=image.app, env=image.environment
    )
    checked("python", "-c", IMPORT_ALL, cwd=image.app, env=image.environment)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the images are Linux")
def test_the_jobs_run_from_what_their_image_holds(tmp_path):
    image = Image("train", tmp_path)
    site = (
        "--source demo --articles 500 --users 60 --impressions 250 --validation-impressions 60 "
        "--output data"
    )
    model = (
        "--word-dim 16 --heads 2 --head-dim 8 --attention-dim 16 --epochs 1 --output models "
        "--wandb-mode disabled"
    )
    nights = (
        "--model models --data data/{date} --output nights/{date} --date 2026-11-25 --days 1 "
        "--wandb-mode disabled"
    )
    for line in (
        f"python -m jobs.prepare {site}",
        f"python -m jobs.prepare {site}/{{date}} --date 2026-11-25",
        f"python -m jobs.train --data data {model}",
        f"python -m jobs.nightly {nights}",
    ):
        printed = checked(*shlex.split(line), cwd=image.app, env=image.environment)
    assert "2026-11-25  complete: AUC" in printed
