"""`nrms VERB`: the jobs and the service behind one command."""

import importlib
import subprocess
import sys

import pytest

from jobs.__main__ import VERBS, main
from nrms import __version__
from tests.small_training import REPOSITORY

ORDER = ["prepare", "train", "score", "context", "nightly", "compare", "sweep", "serve", "bench"]


@pytest.fixture
def said(capsys):
    """Runs a command in this process: its exit code, what it printed, its line of error."""

    def run(command, *words, **options):
        with pytest.raises(SystemExit) as ended:
            command(words, **options)
        out, err = capsys.readouterr()
        assert err.count("\n") == bool(err)
        return ended.value.code, out, err

    return run


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_the_help_lists_the_verbs_in_the_order_of_use(said, words):
    code, out, err = said(main, *words)
    assert (code, err) == (0, "")
    lines = [line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  ")]
    assert [verb for verb, _ in lines] == ORDER
    assert all(meaning for _, meaning in lines)


def test_the_version_is_that_of_the_package(said):
    assert said(main, "--version") == (0, f"nrms {__version__}\n", "")


@pytest.mark.parametrize(
    ("word", "near"),
    [("trian", "train"), ("predict", "score"), ("fit", "train"), ("api", "serve")],
)
def test_an_unknown_verb_is_told_the_nearest_one(said, word, near):
    code, out, err = said(main, word, "--lr", "1")
    assert (code, out) == (2, "")
    expected = f"error: nrms must be followed by a verb. Received: '{word}'. Did you mean {near}? "
    assert err == f"{expected}See nrms --help.\n"


@pytest.mark.parametrize("word", ["--lr", "xyzzy", "-m", "", "tr\ning"])
def test_what_is_like_no_verb_is_one_line_too(said, word):
    code, out, err = said(main, word)
    assert (code, out) == (2, "")
    assert err.startswith("error: nrms must be followed by a verb. Received: ")


@pytest.mark.parametrize("verb", ORDER)
def test_the_help_of_a_verb_is_that_of_its_module(said, verb):
    module = importlib.import_module(VERBS[verb].module)
    name = "api" if verb == "serve" else f"jobs.{verb}"
    code, out, err = said(main, verb, "--help")
    assert (code, err) == (0, "")
    assert f"nrms {verb}" in out.splitlines()[0]
    assert f"python -m {name}" not in out

    def unwrapped(text, prog):
        return " ".join(text.split()).replace(prog, "PROG")

    alone = said(module.command, "--help")[1]
    assert f"python -m {name}" in alone.splitlines()[0]
    assert unwrapped(alone, f"python -m {name}") == unwrapped(out, f"nrms {verb}")


def test_a_wrong_flag_of_a_verb_names_the_command(said):
    assert said(main, "train", "--learning-rate", "1") == (
        2,
        "",
        "error: --learning-rate is not a flag. Did you mean --lr? See nrms train --help.\n",
    )
    code, _, err = said(main, "bench", "xyz")
    usage = "usage: nrms bench {train,score,api,context,models} [--help]"
    assert (code, err) == (2, f"error: {usage}\n")


def test_the_service_takes_no_flags_and_shows_its_settings(said):
    code, out, err = said(main, "serve", "--port", "80")
    assert (code, out) == (2, "")
    assert "must be environment variables. Received: the argument '--port'. See nrms serve" in err
    out = said(main, "serve", "--help")[1]
    assert "MODEL_URI" in out
    assert "default: 8000" in out


def test_a_job_runs_and_ends_as_by_itself(said, tmp_path, capsys):
    flags = ["--source", "demo", "--articles", "500", "--users", "20", "--impressions", "40"]
    with pytest.raises(SystemExit) as ended:
        main(["prepare", *flags, "--output", str(tmp_path / "data")])
    assert ended.value.code == 0
    assert capsys.readouterr().out.endswith(f"data: {tmp_path / 'data'}\n")
    code, out, err = said(main, "prepare", "--source", "mind", "--output", str(tmp_path / "mind"))
    assert (code, out) == (2, "")
    assert err.startswith("error: --input must be given with --source mind")


@pytest.mark.system
def test_the_folder_has_the_command_as_well():
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "trian"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean train? See python -m jobs --help." in done.stderr


HEAVY = "keras, tensorflow, wandb, polars, pyarrow, onnxruntime, google.cloud, matplotlib"


@pytest.mark.system
@pytest.mark.parametrize("module", ["nrms", "jobs.__main__"])
def test_the_import_of_the_package_and_of_the_command_is_light(module):
    code = f"import sys, {module}; print(*({set(HEAVY.split(', '))!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
