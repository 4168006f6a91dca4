"""Whatever the user's own settings are, a job says its own lines only and gives the numbers it
always gives.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.small_training import REPOSITORY, SMALL, write_demo

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training in an environment that is as odd as those of notebooks, and one in ours."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / ".keras").mkdir()
    (folder / ".keras" / "keras.json").write_text(
        '{"backend": "torch", "floatx": "float16", "epsilon": 1}'
    )
    (folder / "matplotlibrc").write_text("text.usetex: True\naxes.formatter.use_locale: True\n")
    odd = {
        "HOME": str(folder),
        "KERAS_BACKEND": "jax",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    odd |= {"MATPLOTLIBRC": str(folder), "LC_ALL": "da_DK.UTF-8"}
    data = write_demo(str(folder / "data"))
    values = {**SMALL, "epochs": 1, "data": data}
    flags = [f"--{name}={value}" for name, value in values.items()]
    return {
        name: run(environment, "jobs.train", *flags, f"--output={folder / name}")
        for name, environment in (("odd", odd), ("plain", {}))
    } | {"environment": odd, "folder": folder}


def run(environment, *words):
    # Without what tests/conftest.py says of TensorFlow's lines.
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith("TF_")
    } | environment
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=REPOSITORY, env=ours, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def assert_only_our_lines(done):
    for line in done.stderr.splitlines():
        assert json.loads(line)["logger"].startswith("nrms"), line
    assert not any(word in done.stdout for word in ("WARNING", "tensorflow", "0000 00:"))


def test_training_gives_the_same_model_whatever_the_environment(trained):
    assert_only_our_lines(trained["odd"])
    assert_only_our_lines(trained["plain"])
    tables = [trained[name].stdout.splitlines()[:5] for name in ("odd", "plain")]
    assert tables[0] == tables[1]
    assert {path.name for path in trained["folder"].glob("odd/*/plots/*.png")} >= {
        "training_curves.png",
        "auc_by_hour.png",
    }


def test_scoring_with_keras_says_only_its_own_lines(trained, tmp_path):
    folder = trained["folder"]
    words = [
        f"--model={folder / 'odd'}",
        f"--data={folder / 'data'}",
        f"--output={tmp_path / 'night'}",
    ]
    done = run(
        trained["environment"], "jobs.score", *words, "--runtime=keras", "--wandb-mode=disabled"
    )
    assert_only_our_lines(done)
    assert (tmp_path / "night" / "report.html").read_text().count("<img") > 3


@pytest.mark.long
def test_the_benchmark_says_only_its_own_lines(tmp_path):
    sizes = [
        "--articles=300",
        "--users=50",
        "--impressions=60",
        "--naive-impressions=5",
        "--rounds=1",
    ]
    done = run({"KERAS_BACKEND": "torch"}, "jobs.bench", "score", *sizes)
    assert_only_our_lines(done)


def test_who_imports_the_package_is_told_what_keras_must_be_set_to(tmp_path):
    (tmp_path / "keras.json").write_text('{"floatx": "float64"}')
    environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
    command = [sys.executable, "-c", "from nrms.training.run import train"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    expected = (
        "ConfigError: Keras must run on tensorflow, in float32. Received: tensorflow, in float64, "
    )
    assert expected in done.stderr.splitlines()[-1]


TENSORFLOW = """
import os
os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to \
STDERR\\n")
os.write(2, b"I0000 00:00:1795715329.825559    4862 port.cc:153] oneDNN custom operations are \
on.\\n")
os.write(2, b"E0000 00:00:1795715329.825559    4862 cuda_dnn.cc:8310] Unable to register cuDNN \
factory\\n")
os.write(2, b"F0000 00:00:1795715329.826189    4862 cpu.cc:1] needs AVX\\n")
{then}
"""
IMPORT = """
import faulthandler, importlib.util, sys
from jobs.cli import set_up_process
faulthandler.disable()
set_up_process()
importlib.util.find_spec("tensorflow")  # as libraries do that only want to know
import tensorflow
print(tensorflow.answer)
print("after", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("then", "errors"),
    [
        ("answer = 42", ["after"]),
        ("raise ImportError('no such library')", ["ImportError: no such library"]),
        ("os.abort()", []),
    ],
)
def test_tensorflow_is_quiet_and_its_crash_is_not(tmp_path, then, errors):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text(TENSORFLOW.replace("{then}", then))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], env=environment, capture_output=True, text=True
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith((" ", "Traceback"))]
    assert lines == ["F0000 00:00:1795715329.826189    4862 cpu.cc:1] needs AVX", *errors]
    assert done.stdout == ("42\n" if then == "answer = 42" else "")
    assert (done.returncode == 0) == (then == "answer = 42")
