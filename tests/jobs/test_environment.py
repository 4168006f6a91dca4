"""Whatever the user's own settings are, a job says its own lines only and gives the numbers it
always gives.
"""

import os
import subprocess
import sys

import pytest

from jobs.cli import print_rankings
from nrms import bundles
from tests.own_lines import assert_only_our_lines, plain_environment
from tests.small_training import REPOSITORY, SMALL

pytestmark = pytest.mark.system


class Odd:
    """An environment that is as odd as those of notebooks, with settings of the user in `folder`,
    and what jobs say in it.
    """

    def __init__(self, folder):
        (folder / ".keras").mkdir()
        (folder / ".keras" / "keras.json").write_text(
            '{"backend": "torch", "floatx": "float16", "epsilon": 1}'
        )
        (folder / "matplotlibrc").write_text("text.usetex: True\naxes.formatter.use_locale: True\n")
        self.folder = folder
        self.variables = {
            "HOME": str(folder),
            "KERAS_BACKEND": "jax",
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "MATPLOTLIBRC": str(folder),
            "LC_ALL": "da_DK.UTF-8",
        }

    def run(self, *words):
        return run(self.variables, *words)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return Odd(tmp_path_factory.mktemp("odd"))


def run(environment, *words):
    ours = plain_environment() | environment
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=REPOSITORY, env=ours, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_training_gives_the_same_model_whatever_the_environment(odd, trained, tmp_path, capsys):
    """As in ours, in which `test_run.py` has a training say its own lines only, too."""
    config, result = trained
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    models = tmp_path / "models"
    done = odd.run("jobs.train", f"--data={config.data}", f"--output={models}", *flags)
    assert_only_our_lines(done)
    assert bundles.load(str(models), tmp_path).meta["metrics"] == result.metrics
    print_rankings("validation", {"nrms": result.metrics, **result.metrics["baselines"]})
    assert done.stdout.startswith(capsys.readouterr().out)
    assert {path.name for path in models.glob("*/plots/*.png")} >= {
        "training_curves.png",
        "auc_by_hour.png",
    }


def test_scoring_with_keras_says_only_its_own_lines(odd, trained, tmp_path):
    config, result = trained
    words = [
        f"--model={result.model_uri}",
        f"--data={config.data}",
        f"--output={tmp_path / 'night'}",
        f"--article-vectors={tmp_path / 'vectors'}",
    ]
    done = odd.run("jobs.score", *words, "--runtime=keras", "--wandb-mode=disabled")
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
