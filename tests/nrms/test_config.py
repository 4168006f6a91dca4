"""Command lines and TOML files, through the function that every job calls."""

import json
import logging
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import pytest

from jobs.cli import run
from nrms import errors
from nrms.architectures import architectures
from nrms.architectures.nrms import NrmsConfig
from nrms.config import (
    _SYNONYMS,
    PositiveInt,
    as_dict,
    changed_lines,
    config_lines,
    option,
    required,
)
from nrms.nights.config import ScoreConfig
from nrms.tracking import TrackingConfig
from nrms.training.config import TrainConfig
from tests.small_training import REPOSITORY

CONFIGS = REPOSITORY / "configs"
REQUIRED = ["--data", "in", "--output", "out"]


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    root, nrms = logging.getLogger(), logging.getLogger("nrms")
    handlers, level = list(root.handlers), nrms.level
    yield
    root.handlers[:] = handlers
    nrms.setLevel(level)


def call(argv, config_class=TrainConfig, main=None):
    """The exit code of a job, and the configuration that its work got."""
    received = []
    with pytest.raises(SystemExit) as exit:
        run(main or received.append, config_class, "python -m jobs.train", "Trains.", argv)
    return exit.value.code, received[0] if received else None


def parsed(*argv):
    code, config = call(argv)
    assert code == 0
    return config


def toml(folder, text):
    path = folder / "a.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_defaults_then_file_then_flags(tmp_path):
    file = toml(tmp_path, 'batch_size = 3\nlr = 1e-3\ndata = "of the file"')
    config = parsed("--lr", "1e-2", "--config", str(file), "--output", "out")
    assert (config.epochs, config.batch_size, config.lr) == (10, 3, 0.01)
    assert (config.data, config.output) == ("of the file", "out")


def test_the_order_of_flags_and_file_does_not_matter(tmp_path):
    file = ["--config", str(toml(tmp_path, "batch_size = 3"))]
    flag = ["--batch-size", "5"]
    assert parsed(*REQUIRED, *file, *flag) == parsed(*REQUIRED, *flag, *file)


def test_values_have_the_plain_types_of_python():
    config = parsed(*REQUIRED, "--profile", "trace", "--run-name", "a", "--lr", "1")
    types = {f.name: type(getattr(config, f.name)) for f in fields(config)}
    assert types["profile"] is type(Path())
    assert {
        types.pop(name)
        for name in (
            *("profile", "wandb_mode", "run_group", "init_from", "word_vectors"),
            *("weight_decay", "clip_norm", "beside", "context_config", "context_without"),
        )
    } == {
        type(Path()),
        type(None),
    }
    assert set(types.values()) == {int, float, str, bool}
    assert types["lr"] is float


def test_a_flag_may_be_spelled_with_underscores_as_sweeps_do():
    assert parsed(*REQUIRED, "--batch_size=8", "--run-name=a_b") == parsed(
        *REQUIRED, "--batch-size", "8", "--run-name", "a_b"
    )


@pytest.mark.parametrize(
    ("argv", "expected"), [([], True), (["true"], True), (["True"], True), (["false"], False)]
)
def test_a_truth_value_is_a_switch_or_takes_a_word(argv, expected):
    config = parsed(*REQUIRED, "--resume", *argv, "--train-word-vectors", *argv)
    assert (config.resume, config.train_word_vectors) == (expected, expected)


@pytest.mark.parametrize(
    "word", ["null", "5", "true", "[a", "a: b", "#x", "&a", "~", "-", " x ", "{}", "'q'"]
)
def test_text_arrives_as_it_was_typed(word):
    config = parsed(f"--data={word}", f"--output={word}")
    assert (config.data, config.output) == (word, word)


def test_null_takes_back_what_the_file_set(tmp_path):
    file = toml(tmp_path, 'wandb_mode = "offline"')
    assert parsed(*REQUIRED, "--config", str(file)).wandb_mode == "offline"
    assert parsed(*REQUIRED, "--config", str(file), "--wandb-mode", "null").wandb_mode is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--batch-sise", "3"],
            "--batch-sise is not a flag. Did you mean --batch-size? See python -m jobs.train "
            "--help.",
        ),
        (["--zzz=3"], "--zzz is not a flag. See python -m jobs.train --help."),
        (
            ["--batch", "3"],
            "--batch is not a flag. Did you mean --batch-size? See python -m jobs.train --help.",
        ),
        (
            ["--learning-rate=3"],
            "--learning-rate is not a flag. Did you mean --lr? See python -m jobs.train --help.",
        ),
        (
            ["--num_epochs", "3"],
            "--num-epochs is not a flag. Did you mean --epochs? See python -m jobs.train --help.",
        ),
        (
            ["--history-len=3"],
            "--history-len is not a flag. Did you mean --history-size? See python -m jobs.train "
            "--help.",
        ),
        (
            ["--cfg=3"],
            "--cfg is not a flag. Did you mean --config? See python -m jobs.train --help.",
        ),
        (["word"], "word is not a flag. See python -m jobs.train --help."),
        (["--lr"], "argument --lr: expected one argument. See python -m jobs.train --help."),
        (["--lr", "fast"], "--lr must be a number > 0 and <= 1. Received: 'fast'."),
        (["--lr", "0"], "--lr must be a number > 0 and <= 1. Received: '0'."),
        (["--lr", "nan"], "--lr must be a number > 0 and <= 1. Received: 'nan'."),
        (["--dropout", "1"], "--dropout must be a number >= 0 and < 1. Received: '1'."),
        (["--batch-size", "1e3"], "--batch-size must be a whole number >= 1. Received: '1e3'."),
        (["--seed", "-1"], "--seed must be a whole number >= 0 and < 2^32. Received: '-1'."),
        (
            ["--seed", "4294967296"],
            "--seed must be a whole number >= 0 and < 2^32. Received: '4294967296'.",
        ),
        (
            ["--checkpoint-seconds", "inf"],
            "--checkpoint-seconds must be a finite number > 0. Received: 'inf'.",
        ),
        (
            ["--train-word-vectors", "maybe"],
            "--train-word-vectors must be true or false. Received: 'maybe'.",
        ),
        (
            ["--wandb-mode", "on"],
            "--wandb-mode must be one of online, offline, disabled. Received: 'on'.",
        ),
        (["--model", "lstur"], "--model must be one of {models}. Received: 'lstur'."),
        (["--train-split", " "], "--train-split must be text that is not empty. Received: ' '."),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(capsys, argv, message):
    assert call([*REQUIRED, *argv]) == (2, None)
    message = message.format(models=", ".join(architectures()))
    assert capsys.readouterr() == ("", f"error: {message}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch-size = 3", "batch-size in {file} is not a key. Did you mean batch_size?"),
        ("learning_rate = 3", "learning_rate in {file} is not a key. Did you mean lr?"),
        (
            "[loss]\nlr = 1",
            "loss in {file} is not a key. Note: keys stand in no section.",
        ),
        (
            "[model]\nheads = 1",
            "model in {file} must be one of {models}. Received: {{'heads': 1}}.",
        ),
        ("lr = 2", "lr in {file} must be a number > 0 and <= 1. Received: 2."),
        ('lr = "1e-4"', "lr in {file} must be a number > 0 and <= 1. Received: '1e-4'."),
        ("epochs = true", "epochs in {file} must be a whole number >= 1. Received: True."),
        ("epochs = 1.5", "epochs in {file} must be a whole number >= 1. Received: 1.5."),
        ("resume = 1", "resume in {file} must be true or false. Received: 1."),
        ('resume = "true"', "resume in {file} must be true or false. Received: 'true'."),
        ("run_name = 3", "run_name in {file} must be text that is not empty. Received: 3."),
        ("profile = 3", "profile in {file} must be a path. Received: 3."),
        (
            'wandb_mode = "null"',
            "wandb_mode in {file} must be one of online, offline, disabled. Received: 'null'.",
        ),
        (
            "lr == 3",
            "--config must name a TOML file. Received: {file}: Invalid value (at line 1, column "
            "5).",
        ),
    ],
)
def test_a_wrong_file_is_one_line_and_exit_code_2(capsys, tmp_path, text, message):
    file = toml(tmp_path, text)
    assert call([*REQUIRED, "--config", str(file)]) == (2, None)
    message = message.format(file=file, models=", ".join(architectures()))
    assert capsys.readouterr() == ("", f"error: {message}\n")


def test_every_synonym_leads_to_a_flag_and_is_none_itself():
    classes = (*TrainConfig.variants().values(), ScoreConfig)
    names = {f.name for config_class in classes for f in fields(config_class)} | {"config"}
    assert _SYNONYMS.keys() <= names
    assert not names & {word for words in _SYNONYMS.values() for word in words}


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    code, config = call(
        [*REQUIRED, "--config", str(toml(tmp_path, "epochs = 3".encode("utf-8-sig")))]
    )
    assert (code, config.epochs) == (0, 3)


def test_an_unknown_key_without_a_near_one_names_them_all(capsys, tmp_path):
    assert call([*REQUIRED, "--config", str(toml(tmp_path, "zzz = 1"))]) == (2, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert all(f.name in line for f in fields(TrainConfig.variants()["nrms"]))


@pytest.mark.parametrize(
    ("name", "why"), [("missing.toml", "No such file or directory"), (".", "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_one_line_and_exit_code_2(capsys, tmp_path, name, why):
    assert call([*REQUIRED, "--config", str(tmp_path / name)]) == (2, None)
    expected = (
        f"error: --config must name a file that can be read. Received: {tmp_path / name}: {why}.\n"
    )
    assert capsys.readouterr() == ("", expected)


def test_a_file_that_is_no_text_is_one_line_and_exit_code_2(capsys, tmp_path):
    assert call([*REQUIRED, "--config", str(toml(tmp_path, b"\xff\xfe"))]) == (2, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"error: --config must name a TOML file. Received: {tmp_path / 'a.toml'}: "
    )


def test_required_flags_that_are_missing_are_named_together(capsys):
    assert call([]) == (2, None)
    assert capsys.readouterr() == (
        "",
        "error: --data and --output must be given, as a flag or in the --config file. Received: "
        "nothing. "
        "See python -m jobs.train --help.\n",
    )


def test_help_shows_every_flag_with_meaning_range_and_default_by_group(capsys):
    code, _ = call(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert code == 0
    for f in fields(TrainConfig.variants()["nrms"]):
        assert (
            f"--{f.name.replace('_', '-')} VALUE" in shown
            or f"--{f.name.replace('_', '-')} [VALUE]" in shown
        )
        assert f.metadata["help"] in shown
    assert "the highest one where it changes (a number > 0 and <= 1; default: 0.0001)" in shown
    assert "(text that is not empty; required)" in shown
    places = [
        shown.index(title)
        for title in (
            "Data: --data",
            "Model: --model",
            "NRMS: --word-dim",
            "Training: --output",
            "Biases: --wandb",
        )
    ]
    assert places == sorted(places)


def test_a_job_may_have_a_configuration_of_its_own(capsys):
    @dataclass(frozen=True, kw_only=True)
    class CountConfig(TrackingConfig):
        """Count"""

        kind: Literal["a", "b"] = required("what to count, 100% of it")
        limit: PositiveInt | None = option(None, "where to stop")
        size: int = option(-3, "of a step")
        wandb_project: str = option("counts", "another default")

    code, config = call(["--kind", "b", "--limit", "5", "--size", "-7"], CountConfig)
    assert (code, as_dict(config)) == (
        0,
        {
            **{"kind": "b", "limit": 5, "size": -7, "wandb_project": "counts"},
            **{"wandb_mode": None, "run_name": None, "run_group": None},
        },
    )
    assert call(["--kind", "b", "--limit", "0"], CountConfig) == (2, None)
    assert call(["--kind", "b", "--size", "x"], CountConfig) == (2, None)
    assert capsys.readouterr().err.splitlines() == [
        "error: --limit must be a whole number >= 1. Received: '0'.",
        "error: --size must be a whole number. Received: 'x'.",
    ]
    assert call(["--help"], CountConfig) == (0, None)
    assert "100% of it" in capsys.readouterr().out


def test_the_resolved_configuration_goes_through_json_and_through_a_file(tmp_path):
    config = parsed(
        *REQUIRED, "--lr", "1e-5", "--profile", "a b", "--run-name", 'Ø "𝄞" \\', "--resume"
    )
    assert json.loads(json.dumps(as_dict(config)))["profile"] == "a b"
    assert list(as_dict(config))[:2] == ["data", "train_split"]
    assert parsed("--config", str(toml(tmp_path, "\n".join(config_lines(config))))) == config


def test_the_lines_of_what_was_changed():
    assert changed_lines(parsed(*REQUIRED)) == ['data = "in"', 'output = "out"']
    assert changed_lines(parsed(*REQUIRED, "--lr", "1e-5", "--resume", "--seed", "42"))[2:] == [
        "lr = 1e-05",
        "resume = true",
    ]


def test_the_model_part_stands_alone():
    config = parsed(*REQUIRED, "--heads", "3")
    assert config.model_config == NrmsConfig(heads=3)
    assert (
        NrmsConfig(**{name: as_dict(config)[name] for name in as_dict(NrmsConfig())})
        == config.model_config
    )


def test_train_toml_holds_every_default():
    values = tomllib.loads((CONFIGS / "train.toml").read_text())
    defaults = as_dict(TrainConfig(data="in", output="out"))
    assert values == {
        k: v for k, v in defaults.items() if v is not None and k not in ("data", "output")
    }


@pytest.mark.parametrize("model", ["fastformer", "naml", "nrms_docvec"])
def test_a_models_toml_holds_its_own_defaults(model):
    values = tomllib.loads((CONFIGS / f"{model}.toml").read_text())
    own = as_dict(architectures()[model].config_class())
    assert values == {"model": model, **{k: v for k, v in own.items() if v is not None}}


def test_score_toml_holds_every_default():
    values = tomllib.loads((CONFIGS / "score.toml").read_text())
    defaults = as_dict(ScoreConfig(model="m", data="in", output="out"))
    assert values == {
        k: v for k, v in defaults.items() if v is not None and k not in ("model", "data", "output")
    }


@pytest.mark.parametrize("date", ["tomorrow", "2026-13-01", "2026-1-1", "2026-11-21T00"])
def test_a_wrong_date_is_one_line_and_exit_code_2(capsys, date):
    code, _ = call([*REQUIRED, "--model", "m", "--date", date], ScoreConfig)
    assert code == 2
    assert f"--date must be a date, YYYY-MM-DD. Received: '{date}'." in capsys.readouterr().err


def test_a_path_with_a_date_needs_one(capsys):
    code, _ = call(["--model", "m", "--data", "d/{date}", "--output", "o"], ScoreConfig)
    assert code == 2
    assert (
        "--data holds {date}, so --date must be given. Received: d/{date}"
        in capsys.readouterr().err
    )


def test_demo_toml_is_complete_and_valid():
    config = parsed("--config", str(CONFIGS / "demo.toml"))
    assert (config.data, config.output) == ("runs/demo/data", "runs/demo/models")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("a\n b"), 2),
        (errors.SchemaError("a\n b"), 1),
        (errors.ObjectNotFound("a\n b"), 1),
        (errors.TrainingError("a\n b"), 1),
        (errors.Interrupted("a\n b"), 143),
    ],
)
def test_an_error_of_ours_is_one_line_and_an_exit_code(capsys, error, code):
    def main(config):
        raise error

    assert call(REQUIRED, main=main) == (code, None)
    assert capsys.readouterr() == ("", "error: a b\n")


def test_a_package_that_is_missing_is_one_line(capsys):
    def main(config):
        import no_such_package.part  # noqa: F401

    assert call(REQUIRED, main=main) == (2, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the packages of requirements.txt must be installed. Received: ")
    assert "without no_such_package." in line


def test_any_other_exception_is_a_bug_and_passes_through():
    def main(config):
        raise KeyError("x")

    with pytest.raises(KeyError):
        run(main, TrainConfig, "p", "d", REQUIRED)


JOB = """
import logging, os, signal
from jobs.cli import log_config, run
from nrms.training.config import TrainConfig
def main(config):
    if config.seed == 7:
        log_config(config)
    logging.getLogger("nrms.x").info("of ours")
    logging.getLogger("other").info("of others")
    if config.resume:
        os.kill(os.getpid(), signal.SIGINT)
run(main, TrainConfig, "p", "d")
"""


@pytest.mark.system
def test_a_process_logs_our_lines_to_stderr():
    done = subprocess.run(
        [sys.executable, "-c", JOB, *REQUIRED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    (line,) = done.stderr.splitlines()
    assert json.loads(line).items() >= {"level": "INFO", "message": "of ours"}.items()


@pytest.mark.system
def test_a_log_gets_the_whole_configuration_and_a_line_for_what_was_changed():
    command = [sys.executable, "-c", JOB, *REQUIRED, "--seed=7"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *changed, whole, _ = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert changed == ['data = "in"', 'output = "out"', "seed = 7"]
    config = TrainConfig(data="in", output="out", seed=7)
    assert json.loads(whole.removeprefix("configuration: ")) == as_dict(config)


@pytest.mark.system
def test_ctrl_c_ends_a_process_with_130_and_no_traceback():
    done = subprocess.run(
        [sys.executable, "-c", JOB, *REQUIRED, "--resume"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[1:] == ["error: stopped by Ctrl-C"]


def test_a_path_that_is_no_utf8_is_one_line_and_exit_code_2(capsys):
    code, _ = call(["--data", os.fsdecode(b"caf\xe9"), "--output", "out"])
    assert code == 2
    assert capsys.readouterr().err == "error: --data must be UTF-8. Received: caf\\xe9.\n"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Pair"""

    a: str = required("the one", bare=True)
    b: str = required("the other", bare=True)
    number: PositiveInt = option(1, "how many")


@pytest.mark.parametrize(
    "argv",
    [
        ["x", "y", "--number", "2"],
        ["--number", "2", "x", "y"],
        ["x", "--number", "2", "y"],
        ["--a", "x", "y", "--number", "2"],
        ["x", "--b=y", "--number", "2"],
        ["--b", "y", "--a", "x", "--number", "2"],
    ],
)
def test_bare_words_are_values_in_their_order_and_flags_come_first(argv):
    assert call(argv, Pair) == (0, Pair(a="x", b="y", number=2))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["x"], "--b must be given, as a flag or in the --config file."),
        (["x", "y", "z"], "z is not a flag."),
        (["x", "y", "--numbr", "2"], "--numbr is not a flag. Did you mean --number?"),
    ],
)
def test_a_bare_word_too_few_or_too_many_is_one_line(argv, message, capsys):
    assert call(argv, Pair) == (2, None)
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_the_help_names_the_bare_words(capsys):
    assert call(["--help"], Pair)[0] == 0
    assert capsys.readouterr().out.startswith("usage: python -m jobs.train A B [--config FILE]")
