"""Sweeps: the files that W&B and jobs.sweep take, and the study that survives whatever happens to
its process.
"""

import csv
import itertools
import json
import os
import random
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from nrms import bundles
from nrms.config import parse
from nrms.errors import ConfigError, Interrupted, SchemaError, StorageError, TrainingError
from nrms.evaluation import plots
from nrms.training.config import TrainConfig
from nrms.training.search_space import SearchSpace
from nrms.training.sweep import sweep
from nrms.training.sweep_config import SweepConfig
from tests import stub_training
from tests.offline_runs import history, records, started
from tests.small_training import REPOSITORY, SMALL, write_demo

FILES = sorted((REPOSITORY / "configs").glob("sweep*.yaml"))
GRID = {"lr": {"values": [0.0001, 0.001]}, "batch_size": {"values": [16, 32]}}
POINTS = set(itertools.product(GRID["lr"]["values"], GRID["batch_size"]["values"]))


@pytest.fixture
def flags(tmp_path):
    """Makes a space's file and the flags of its sweep."""
    (tmp_path / "data").mkdir()

    def make(parameters=GRID, method="grid", **others):
        space = tmp_path / "space.yaml"
        space.write_text(yaml.safe_dump({"method": method, "parameters": parameters, **others}))
        words = {
            "space": space,
            "data": tmp_path / "data",
            "output": tmp_path / "models",
            "study": tmp_path / "study",
        }
        return [f"--{name}={value}" for name, value in words.items()]

    return make


def run(flags):
    return stub_training.main(flags)


def calls(tmp_path):
    """What was trained: process, lr, batch size, whether it resumed, output."""
    log = tmp_path / "data" / "log"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def rows(tmp_path):
    with (tmp_path / "study" / "trials.csv").open() as table:
        return list(csv.DictReader(table))


def agent_command(content, values, monkeypatch):
    """The command that W&B's agent makes of a sweep's file and the server's choice of values."""
    # Here, because the import takes half a second in each process of the tests.
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    monkeypatch.setenv("DATA", "gs://bucket/data of mine")
    monkeypatch.setenv("OUTPUT", "models")
    macros = create_sweep_command_args(
        {"args": {name: {"value": value} for name, value in values.items()}}
    )
    macros |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [content["program"]]}
    words = create_sweep_command(list(content["command"]))
    return [
        part for word in words for part in (macros[word[2:-1]] if word.startswith("${") else [word])
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_agent_of_wandb_runs_jobs_train_with_every_value_of_the_file(path, monkeypatch):
    content = yaml.safe_load(path.read_text())
    for name, form in content["parameters"].items():
        for value in form.get("values") or [
            form[key] for key in ("value", "min", "max") if key in form
        ]:
            assert not isinstance(value, str)  # YAML's 1e-4
            command = agent_command(content, {name: value}, monkeypatch)
            assert command[:4] == ["/usr/bin/env", "python", "-m", "jobs.train"]
            config = parse(TrainConfig, command[4:], "python -m jobs.train", "")
            assert getattr(config, name) == value
            assert (config.data, config.output) == ("gs://bucket/data of mine", "models")
            assert config.promote == "never"  # a trial no better than chance has not failed


def test_the_files_are_the_ones_asked_for():
    grid, bayes = (SearchSpace.read(path) for path in FILES)
    assert grid.method == "grid"
    assert {name: distribution.choices for name, distribution in grid.distributions.items()} == {
        "lr": (0.00001, 0.0001, 0.001, 0.01, 0.1),
        "batch_size": (16, 32, 64),
        "epochs": (10, 15, 20, 25),
    }
    assert len(grid.grid(0)) == 60
    assert bayes.method == "bayes"
    assert bayes.distributions["lr"].log
    assert bayes.run_cap


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lrr": {"value": 1}}, "--lrr is not a flag. Did you mean --lr?"),
        ({"lr": {"values": [0.1, 2]}}, "--lr must be a number > 0 and <= 1. Received: '2'"),
        ({"batch_size": {"values": [16, 16.5]}}, "--batch-size must be a whole number"),
        ({"lr": {"min": 0, "max": 0.1}}, "--lr must be a number > 0"),
        ({"lr": {"min": "1e-4", "max": 0.1}}, "1e-4 written as 0.0001"),
        ({"lr": {"min": 0.1, "max": 0.01}}, "min must be at most max"),
        (
            {"dropout": {"min": 0.0, "max": 0.5, "distribution": "log_uniform_values"}},
            "min must be > 0",
        ),
        (
            {"batch_size": {"min": 16, "max": 64, "distribution": "uniform"}},
            "distribution must be int_uniform",
        ),
        (
            {"batch_size": {"min": 16, "max": 64, "distribution": "q_uniform", "q": 8}},
            "batch_size must be given by",
        ),
        ({"lr": {"distribution": "normal", "mu": 0, "sigma": 1}}, "lr must be given by value"),
        ({"lr": {"values": []}}, "lr must be given by value"),
        ({"lr": 0.1}, "lr must be given by value"),
        ({"output": {"values": ["a", "b"]}}, "output is each trial's own"),
        ({}, "parameters must name what varies"),
    ],
)
def test_a_space_that_is_not_legal_is_one_clear_line(flags, tmp_path, parameters, message):
    with pytest.raises(ConfigError) as error:
        run(flags(parameters, "random", run_cap=1))
    assert str(error.value).startswith(f"{tmp_path / 'space.yaml'}: ")
    assert message in str(error.value)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"method": "hyperband"}, "method must be one of grid, bayes, random"),
        (
            {"metric": {"name": "val_acc", "goal": "maximize"}},
            "a name among val_auc, val_mrr, val_ndcg@5, val_ndcg@10",
        ),
        ({"metric": {"name": "val_auc", "goal": "minimize"}}, "the goal maximize"),
        ({"run_cap": 0}, "run_cap must be"),
        ({"method": "bayes"}, "--trials, or run_cap"),
        (
            {"parameters": {"lr": {"min": 0.1, "max": 0.2}}},
            "lr must be given by value, or values: a list. Received",
        ),
    ],
)
def test_other_keys_that_are_not_legal_are_one_clear_line(flags, others, message):
    with pytest.raises(ConfigError, match=message):
        run(flags(**others))


@pytest.mark.parametrize("content", [b"a: [", b"\xff", b"[]", b""])
def test_a_file_that_is_no_space_is_named(flags, tmp_path, content):
    words = flags()
    (tmp_path / "space.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"space\.yaml"):
        run(words)
    (tmp_path / "space.yaml").unlink()
    with pytest.raises(ConfigError, match="No such file"):
        run(words)


@pytest.mark.system
def test_a_grid_is_covered_once_and_the_best_is_written(flags, tmp_path):
    trials = run([*flags(), "--history-size=7"])
    assert {(trial.values["lr"], trial.values["batch_size"]) for trial in trials} == POINTS
    assert (
        len(trials)
        == len(calls(tmp_path))
        == len({pid for pid, *_ in calls(tmp_path)})
        == len(POINTS)
    )
    assert trials[0].values == {"lr": 0.001, "batch_size": 16}
    assert len({output for *_, output in calls(tmp_path)}) == len(POINTS)

    best = parse(
        TrainConfig, ["--config", str(tmp_path / "study" / "best.toml")], "python -m jobs.train", ""
    )
    assert (best.lr, best.batch_size, best.history_size) == (0.001, 16, 7)
    assert (best.output, best.resume) == (str(tmp_path / "models"), False)
    assert trials[0].model_uri in (tmp_path / "study" / "best.toml").read_text()
    assert (tmp_path / "study" / "parallel_coordinates.png").read_bytes().startswith(b"\x89PNG")
    assert max(float(row["auc"]) for row in rows(tmp_path)) == trials[0].metrics["auc"]

    assert run([*flags(), "--history-size=7"]) == trials
    assert len(calls(tmp_path)) == len(POINTS)


@pytest.mark.system
def test_a_study_goes_on_and_refuses_another_sweep(flags, tmp_path):
    first = run([*flags(), "--trials=1"])
    second = run([*flags(), "--trials=2", "--wandb-mode=disabled"])
    assert first[0] in second
    assert len(second) == 2
    for other, message in (
        (
            lambda: flags({**GRID, "batch_size": {"values": [16, 64]}}),
            "differs: the parameter batch_size is 16 or 32 there and 16 or 64 here.",
        ),
        (
            lambda: flags({"lr": GRID["lr"], "dropout": {"value": 0.1}}),
            "16 or 32 there and not searched here; the parameter dropout is not searched there and "
            "0.1 here.",
        ),
        (lambda: [*flags(), "--seed=1"], "differs: seed is 42 there and 1 here."),
        (
            lambda: [*flags(method="random"), "--trials=3"],
            "differs: method is grid there and random here.",
        ),
    ):
        with pytest.raises(ConfigError) as error:
            run(other())
        assert str(error.value).endswith(message)
        assert "{" not in str(error.value)
    assert len(calls(tmp_path)) == 2


@pytest.mark.system
def test_a_resumed_search_draws_what_an_unbroken_one_draws(flags, tmp_path):
    words = flags(
        {
            "lr": {"min": 0.0001, "max": 0.01, "distribution": "log_uniform_values"},
            "batch_size": {"min": 8, "max": 99},
        },
        "bayes",
    )
    for trials in (2, 3):
        run([*words, f"--trials={trials}"])
    unbroken = run([*words, "--trials=3", f"--study={tmp_path / 'another'}"])
    drawn = [(row["lr"], row["batch_size"], row["auc"]) for row in rows(tmp_path)]
    assert drawn == [
        (str(trial.values["lr"]), str(trial.values["batch_size"]), str(trial.metrics["auc"]))
        for trial in sorted(unbroken, key=lambda trial: trial.number)
    ]
    assert len({lr for lr, *_ in drawn}) == 3


@pytest.mark.system
def test_a_training_that_fails_is_a_failed_trial(flags, tmp_path):
    trials = run(flags({"lr": {"values": [0.1, 0.2, 0.01]}}))
    assert [trial.values["lr"] for trial in trials if trial.error is None] == [0.01]
    errors = {trial.values["lr"]: trial.error for trial in trials}
    assert "must be finite" in errors[0.1]
    assert "exit code 9" in errors[0.2]
    run(flags({"lr": {"values": [0.1, 0.2, 0.01]}}))
    assert len(calls(tmp_path)) == 3


@pytest.mark.system
def test_when_all_fail_the_sweep_has_failed(flags, tmp_path):
    with pytest.raises(
        TrainingError, match="all 1 trials failed, the first with: the loss must be finite"
    ):
        run(flags({"lr": {"value": 0.1}}, "random", run_cap=1))
    assert not (tmp_path / "study" / "best.toml").exists()


@pytest.mark.system
def test_what_is_no_fault_of_the_values_ends_the_sweep_and_the_trial_is_run_again(flags, tmp_path):
    for _ in range(2):
        with pytest.raises(SchemaError, match="no such data"):
            run(flags({"lr": {"value": 0.3}}))
    assert [resumed for *_, resumed, _ in calls(tmp_path)] == ["False", "True"]
    assert not (tmp_path / "study" / "trials.csv").exists()


def test_a_study_that_cannot_be_read_is_one_line(flags, tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageError, match="not a database"):
        run(flags())
    with pytest.raises(StorageError):
        run([*flags(), f"--study={tmp_path / 'space.yaml'}"])


def is_running(pid):
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start(flags, seconds):
    environment = {**os.environ, "STUB_SECONDS": str(seconds)}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.stub_training", *flags], cwd=REPOSITORY, env=environment
    )


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None
        time.sleep(0.02)


@pytest.mark.system
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes in /proc")
def test_killed_at_any_moment_the_sweep_goes_on_and_repeats_nothing(flags, tmp_path):
    rng = random.Random(5)
    kept = {}
    # The first is killed inside a training for certain.
    for seconds, delay in ((60, 0), (0.5, rng.uniform(0, 1.5)), (0.5, rng.uniform(0, 1.5))):
        before = len(calls(tmp_path))
        process = start(flags(), seconds)
        wait_for(lambda before=before: len(calls(tmp_path)) > before, process)
        time.sleep(delay)
        process.kill()
        process.wait()
        last = int(calls(tmp_path)[-1][0])
        while is_running(last):  # the training does not outlive its sweep
            time.sleep(0.02)
        if (tmp_path / "study" / "trials.csv").exists():
            models = {row["trial"]: row["model"] for row in rows(tmp_path)}
            assert kept.items() <= models.items()
            kept = models
    trials = run(flags())
    assert sorted((trial.values["lr"], trial.values["batch_size"]) for trial in trials) == sorted(
        POINTS
    )
    assert kept.items() <= {str(trial.number): trial.model_uri for trial in trials}.items()
    assert any(resumed == "True" for *_, resumed, _ in calls(tmp_path))
    outputs = {(lr, batch_size, output) for _, lr, batch_size, _, output in calls(tmp_path)}
    assert len(outputs) == len(POINTS)  # a trial that went on did so where its checkpoint is


@pytest.mark.system
def test_two_at_once_are_refused(flags, tmp_path):
    process = start(flags(), 60)
    try:
        wait_for(lambda: calls(tmp_path), process)
        with pytest.raises(ConfigError, match="where another sweep is running"):
            run(flags())
    finally:
        process.kill()
        process.wait()


@pytest.mark.system
def test_several_workers_are_refused_before_anything_is_written(flags, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}}')
    with pytest.raises(ConfigError, match="TF_CONFIG must name one worker"):
        run(flags())
    assert not (tmp_path / "study").exists()


@pytest.mark.system
def test_a_stop_is_passed_on_and_the_sweep_can_go_on(flags, monkeypatch):
    monkeypatch.setenv("STUB_SECONDS", "60")
    stop = threading.Event()
    threading.Timer(2, stop.set).start()
    with pytest.raises(Interrupted, match=r"Run the same command to go on"):
        sweep(parse(SweepConfig, flags(), "sweep", ""), stub_training.train, stop)
    monkeypatch.delenv("STUB_SECONDS")
    assert len(run(flags())) == len(POINTS)


@pytest.mark.system
def test_the_job_trains_goes_on_after_a_kill_and_logs_the_metrics_of_the_files(flags, tmp_path):
    write_demo(str(tmp_path / "data"))
    values = {**SMALL, "epochs": 1, "wandb_mode": "offline", "checkpoint_seconds": 0.5}
    words = [
        *flags({"lr": {"values": [0.01, 0.002]}}),
        *(f"--{name}={value}" for name, value in values.items()),
    ]
    command = [sys.executable, "-m", "jobs.sweep", *words]
    environment = {**os.environ, "WANDB_DIR": str(tmp_path / "runs")}
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(tmp_path.glob("models/trial-0000/checkpoints/*.npz")), process)
    process.kill()
    process.wait()
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "training starts anew" not in done.stderr

    assert {row["lr"] for row in rows(tmp_path)} == {"0.01", "0.002"}
    best = max(rows(tmp_path), key=lambda row: float(row["auc"]))
    assert f"best model: {best['model']}" in done.stdout
    assert done.stdout.splitlines()[1].split()[:2] == [best["trial"], f"{float(best['auc']):.4f}"]
    assert json.loads((Path(best["model"]) / "meta.json").read_text())["config"]["lr"] == float(
        best["lr"]
    )
    # a trial serves nobody; its version is one by name
    assert not list((tmp_path / "models").rglob("latest.json"))
    assert bundles.load(best["model"], tmp_path).uri == best["model"]
    again = shlex.split(done.stdout.splitlines()[-1].partition("python -m jobs.train ")[2])
    assert parse(TrainConfig, again, "python -m jobs.train", "").lr == float(best["lr"])

    logged = [
        set().union(*history(folder))
        for folder in (tmp_path / "runs" / "wandb").glob("offline-run-*")
    ]
    metrics = [yaml.safe_load(path.read_text())["metric"] for path in FILES]
    assert all(metric["name"] in logged[-1] or metric["name"] in logged[0] for metric in metrics)
    assert {metric["goal"] for metric in metrics} == {"maximize"}
    folders = (tmp_path / "runs" / "wandb").glob("offline-run-*")
    # Of a run that is killed at once nothing may stay.
    runs = [
        started(folder)
        for folder in folders
        if any(record.HasField("run") for record in records(folder))
    ]
    assert len({run.run_group for run in runs}) == 1
    assert runs[0].run_group.startswith("study-")
    assert len({run.run_id for run in runs}) == 2  # the trial that was killed goes on with its run


@pytest.mark.system
def test_a_mistake_in_the_space_is_one_line_and_exit_code_2(flags, tmp_path):
    command = [sys.executable, "-m", "jobs.sweep", *flags({"lr": {"value": 5}})]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert [
        line for line in done.stderr.splitlines() if line.startswith("error:")
    ] == done.stderr.splitlines()[-1:]


SWEEP_RUN = """
from nrms.tracking import Tracker
with Tracker("offline", "of the flag", "train", {"lr": 0.01, "epochs": 1}) as tracker:
    tracker.log({"val_auc": 0.5}, 1)
"""


@pytest.mark.system
def test_a_run_that_wandbs_agent_started_joins_the_agents_sweep(tmp_path):
    parameters = tmp_path / "config.yaml"
    parameters.write_text("wandb_version: 1\nlr:\n  value: 0.01\n")
    agent = {
        "WANDB_SWEEP_ID": "sweep123",
        "WANDB_RUN_ID": "run45678",
        "WANDB_PROJECT": "of-the-sweep",
    }
    environment = {
        **os.environ,
        **agent,
        "WANDB_SWEEP_PARAM_PATH": str(parameters),
        "WANDB_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", SWEEP_RUN],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    run = started(folder)
    assert (run.run_id, run.sweep_id, run.project) == ("run45678", "sweep123", "of-the-sweep")
    assert {item.key: item.value_json for item in run.config.update}["lr"] == "0.01"
    assert done.stderr == ""


def test_parallel_coordinates_shows_every_trial_and_ticks_of_its_values():
    lr, words = [0.0001, 0.01, 0.001], ["b", "a", "b"]
    figure = plots.parallel_coordinates(
        {"lr": lr, "precision": words}, [0.6, 0.7, 0.65], "validation auc", ["lr"]
    )
    axes, colours = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "lr",
        "precision",
        "validation auc",
    ]
    assert colours.get_ylabel() == "validation auc"
    curves = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) > 2]
    starts = [(round(float(curve[0]), 6), float(curve[-1])) for curve in curves]
    # the best last, over the others; lr on a logarithmic axis
    assert [start for start, _ in starts] == [0, 0.5, 1]
    assert [end for _, end in starts] == pytest.approx([0, 0.5, 1])
    assert {"0.0001", "0.001", "0.01", "a", "b", "0.7"} <= {text.get_text() for text in axes.texts}


@pytest.mark.parametrize("results", [[0.5], [0.5, 0.5]])
def test_parallel_coordinates_of_equal_results_render(results, tmp_path):
    figure = plots.parallel_coordinates(
        {"lr": [0.1] * len(results)}, results, "validation auc", ["lr"]
    )
    plots.save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size
