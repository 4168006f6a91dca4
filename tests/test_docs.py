"""README.md and the pages of docs say what is so: their blocks run, their flags, messages, links
and files are there, and the site is built without a warning.

A block of commands is run by `test_unmarked_blocks_run`, or a comment on the line before it says
what it needs. Marked blocks are still read by the parsers of the jobs that they start.
"""

import ast
import dataclasses
import importlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from api.settings import Settings
from nrms.config import parse
from tests.processes import send
from tests.small_training import REPOSITORY
from tests.test_architecture import ORDER
from tests.tools import check_out, checked, tool

PAGES = {
    path.relative_to(REPOSITORY): path.read_text("utf-8")
    for path in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    if "_build" not in path.parts
}
# Only their links are followed: what their blocks do, `make lock` for example, takes long.
OTHERS = ("CHANGELOG.md", "CONTRIBUTING.md")
# What every marked block must hold, so that no marker hides a block that could be run.
MARKERS = {
    "set-up: run by .ci/run": r"\Amake demo .*\nmake test .*\n\Z",
    "needs a bucket": r"gs://bucket/",
    "needs an environment of its own": r"^pip install ",
    "needs Docker": r"^docker ",
    "needs Weights & Biases": r"^wandb ",
    "needs your data": r"--(input|data) (~|data/(ebnerd|mine))",
}
CONFIGS = {
    "jobs.prepare": "PrepareConfig",
    "jobs.train": "TrainConfig",
    "jobs.sweep": "SweepConfig",
    "jobs.score": "ScoreConfig",
    "jobs.context": "StateConfig",
    "jobs.nightly": "NightlyConfig",
    "jobs.compare": "CompareConfig",
}
# Of other programs than the jobs.
OTHER_FLAGS = {"--help", "--long"}
SECONDS = 300  # for one block: more than a busy machine takes
SERVICE = "127.0.0.1:8000"


class Block(NamedTuple):
    page: Path
    line: int
    marker: str | None
    language: str
    text: str

    def commands(self) -> list[list[str]]:
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


BLOCKS = [
    Block(
        page, text.count("\n", 0, found.start("text")), *found.group("marker", "language", "text")
    )
    for page, text in PAGES.items()
    for found in re.finditer(
        r"(?:^<!-- (?P<marker>.*) -->\n)?^```(?P<language>.*)\n(?P<text>(?:.*\n)*?)```$",
        text,
        re.MULTILINE,
    )
]
COMMANDS = [
    pytest.param(words, id=f"{block.page}, line {block.line}: {' '.join(words[:3])}")
    for block in BLOCKS
    if block.language == "sh"
    for words in block.commands()
]
PROSE = {page: re.sub(r"(?ms)^```.*?^```$", "", text) for page, text in PAGES.items()}
SPANS = [found[1].strip() for text in PROSE.values() for found in re.findall(r"(`+)(.+?)\1", text)]


def rows(page: str, header: str) -> list[list[str]]:
    """The cells of the page's table whose first cell is `header`."""
    table = re.search(
        rf"^\| {header} \|.*\n\|[- |]+\n((?:\|.*\n)+)", PAGES[Path(page)], re.MULTILINE
    )[1]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()]


def code(text: str) -> list[str]:
    """What stands between backticks."""
    return [found[1].strip() for found in re.findall(r"(`+)(.+?)\1(?!`)", text)]


def test_every_block_is_run_or_says_what_it_needs():
    assert sum(text.count("\n```") for text in PAGES.values()) == 2 * len(BLOCKS)
    for block in BLOCKS:
        # Any other language would be a block of commands that nobody looks at.
        assert block.language in {"sh", "python", "{eval-rst}", ""}, block
        if block.language == "":
            assert not re.search(
                r"^(\$|make|docker|curl|git|pip|python|wandb|\S*/python) ?", block.text, re.M
            ), block
        if block.marker is not None:
            assert block.language == "sh", block
            assert re.search(MARKERS[block.marker], block.text, re.MULTILINE), block
    # A comment that stands elsewhere than right before a block marks nothing.
    comments = sum(text.count("<!--") for text in PAGES.values())
    assert comments == sum(block.marker is not None for block in BLOCKS)


def ready(folder: Path) -> Path:
    """A copy of the working tree in which `make` finds this interpreter installed, and so installs
    nothing.
    """
    check_out(folder)
    # Not a link to the environment's folder: `make` looks at the age of .installed in it, and would
    # renew it.
    python = folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    (folder / ".venv/.installed").touch()
    return folder


def make_model_small(folder: Path) -> None:
    """`make demo` stays as it is, on all of its data; only its models are small and trained for an
    epoch each.
    """
    config = folder / "configs/demo.toml"
    text, found = re.subn(
        r"^epochs = \d+", "epochs = 1", config.read_text("utf-8"), flags=re.MULTILINE
    )
    assert found == 1
    sizes = "word_dim = 16\nheads = 2\nhead_dim = 8\nattention_dim = 16\nbatch_size = 1024\n"
    config.write_text(f'{text}{sizes}context_config = "configs/above.toml"\n', "utf-8")
    ranker = "ranker_dim = 16\nranker_blocks = 1\n"
    (folder / "configs/above.toml").write_text(ranker, "utf-8")
    (folder / "configs/ranker.toml").write_text(f"{ranker}batch_size = 1024\nwarmup = 0\n", "utf-8")
    recipe = (folder / "Makefile").read_text("utf-8")
    alone = "--model context "
    assert recipe.count(alone) == 1
    small = f"{alone}--config configs/ranker.toml "
    (folder / "Makefile").write_text(recipe.replace(alone, small), "utf-8")


def run(text: str, folder: Path, environment: dict[str, str], command: tuple[str, ...]) -> None:
    done = subprocess.run(
        command,
        input=text,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}"


@contextmanager
def service(text: str, folder: Path, environment: dict[str, str], log: Path) -> Iterator[None]:
    """`make api`, in the background, ready on entry."""
    with log.open("wb") as stream:
        # A session of its own: the signal is for make and for all that it started.
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{environment['PORT']}/readyz"

    def status() -> int | None:
        try:
            return httpx.get(url, timeout=10, verify=False).status_code
        except httpx.TransportError:
            return None

    try:
        end = time.monotonic() + SECONDS
        while status() != 200:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        send(process.pid, signal.SIGTERM, group=True)
        process.wait(20)
        end = time.monotonic() + 20  # make ends before what it started
        while status() is not None:
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.mark.system
@pytest.mark.skipif(sys.platform == "win32", reason="the blocks are for bash")
def test_unmarked_blocks_run(tmp_path):
    """They run in order, those that ask the service last. Only 1,000,000 impressions are replaced
    by 2,000, and port 8000 by a free one.
    """
    tool("make")
    tool("curl")
    folder = ready(tmp_path / "repository")
    make_model_small(folder)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    settings = {f.name.upper() for f in dataclasses.fields(Settings)} | {"HOST"}
    environment = {name: value for name, value in os.environ.items() if name not in settings}
    environment |= {"PORT": port, "WANDB_MODE": "disabled"}
    assert {f.name: f.default for f in dataclasses.fields(Settings)}["port"] == 8000
    bash, python = ("bash", "-euo", "pipefail"), (sys.executable, "-W", "error", "-")

    # the set-up block's other line, `make test`, runs this test
    run("make demo", folder, environment, bash)
    (start,) = [block for block in BLOCKS if block.text.startswith("make api ")]
    blocks = [
        block
        for block in BLOCKS
        if block.marker is None and block.language in ("sh", "python") and block != start
    ]
    before = [block for block in blocks if SERVICE not in block.text]
    after = [block for block in blocks if SERVICE in block.text]
    for part in (before, after):
        assert {block.language for block in part} == {"sh", "python"}
    for block in before:
        run(
            block.text.replace("--impressions 1000000 ", "--impressions 2000 "),
            folder,
            environment,
            bash if block.language == "sh" else python,
        )
    assert (folder / "data/demo/validation/_SUCCESS").exists()
    with service(start.text, folder, environment, tmp_path / "log"):
        for block in after:
            text = block.text.replace(SERVICE, f"127.0.0.1:{port}")
            # curl alone calls it a success when the service says no.
            text = re.sub(r"^curl ", "curl --fail-with-body ", text, flags=re.MULTILINE)
            run(text, folder, environment, bash if block.language == "sh" else python)


@pytest.mark.parametrize("words", COMMANDS)
def test_the_jobs_take_their_flags(words):
    names = [word for word in words if word.startswith("jobs.")]
    assert len(names) == words.count("-m")
    for name in names:
        argv = words[words.index(name) + 1 :]
        parse(getattr(importlib.import_module(name), CONFIGS[name]), argv, name, "")


def test_flags_in_the_text_are_flags():
    config_classes = [
        getattr(importlib.import_module(name), config) for name, config in CONFIGS.items()
    ]
    known = {
        "--" + f.name.replace("_", "-")
        for config in config_classes
        for variant in (config.variants().values() if hasattr(config, "variants") else [config])
        for f in dataclasses.fields(variant)
    }
    named = {flag for span in SPANS for flag in re.findall(r"(?<!\S)--[a-z][a-z-]*", span)}
    assert {"--lr", "--overwrite"} < named
    assert named - known - OTHER_FLAGS - {"--config"} == set()


def test_the_keys_of_metrics_json_are_explained(trained):
    _, result = trained
    keys = {key for cell, _ in rows("docs/reference/metrics.md", "key") for key in code(cell)}
    # Made-up data have no pages of articles.
    assert keys - {"by_page"} == result.metrics.keys() - {"by_page"}


class Texts(ast.NodeVisitor):
    """The texts in a file's code except docstrings, with … for what an f-string puts in."""

    def __init__(self) -> None:
        self.texts: set[str] = set()

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.texts.add(node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self.texts.add(
            "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        )


@pytest.fixture(scope="module")
def texts() -> set[str]:
    visitor = Texts()
    for top in ("nrms", "jobs", "api"):
        for path in (REPOSITORY / top).rglob("*.py"):
            visitor.visit(ast.parse(path.read_text("utf-8")))
    return visitor.texts


@pytest.mark.parametrize(
    "row", rows("docs/troubleshooting.md", "message begins with"), ids=lambda row: row[0]
)
def test_messages_of_the_troubleshooting_table_are_in_the_code(row, texts):
    assert len(row) == 3
    messages = code(row[0])
    assert messages
    for message in messages:
        assert len(message.strip("…: ")) > 8, "too short to tell a message by"
        assert any(text.startswith(message) for text in texts), message


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and Sphinx make them."""
    titles = re.findall(r"^#+ (.+)$", PROSE[page], re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_links_and_files_are_there():
    others = {Path(name): (REPOSITORY / name).read_text("utf-8") for name in OTHERS}
    links = [
        (page, link)
        for page, text in (PROSE | others).items()
        for link in re.findall(r"\]\(([^)\s]+)\)", text)
        if not link.startswith("http")
    ]
    files = {
        span
        for span in SPANS
        if re.fullmatch(r"(configs|nrms|jobs|api|tests|\.github)/[\w./-]*", span)
    }
    assert links
    assert files
    missing = [path for path in files if not (REPOSITORY / path).exists()]
    for page, link in links:
        name, _, anchor = link.partition("#")
        target = Path(os.path.normpath(page.parent / name)) if name else page
        if not (REPOSITORY / target).exists() or (anchor and anchor not in anchors(target)):
            missing.append(f"{link} in {page}")
    assert missing == []


def test_every_room_has_its_line_in_the_explanation():
    places = " ".join(place for place, _ in rows("docs/explanation/architecture.md", "place"))
    assert [room for room in ORDER if not re.search(rf"`nrms/{room}(/|\.py)`", places)] == []


def test_the_front_page_is_short():
    assert len(PAGES[Path("README.md")].encode()) <= 8_000


@pytest.mark.system
def test_the_site_is_built_without_a_warning_and_says_what_the_code_says(tmp_path):
    """As `make docs` builds it."""
    arguments = ("--fail-on-warning", "--keep-going", "--quiet", "docs", tmp_path)
    checked(sys.executable, "-m", "sphinx", *arguments, cwd=REPOSITORY)
    html = {path.stem: path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    assert "--word-dim" in html["commands"]
    assert "MAX_BODY_BYTES" in html["http"]
    assert "64 MiB" in html["http"]
    assert "/predict/json" in html["http"]
    assert "PredictOut" in html["http"]
    assert "bd-search" in html["index"]
    assert "theme-switch" in html["index"]
