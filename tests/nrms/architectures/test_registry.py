"""Models that are chosen on the command line, each with flags and defaults of its own."""

import pickle
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest

from nrms.architectures import ModelConfig, architecture_of, architectures, register, registry
from nrms.config import PositiveInt, as_dict, changed_lines, config_lines, option, parse
from nrms.errors import ConfigError
from nrms.training.config import TrainConfig
from nrms.training.search_space import SearchSpace, with_values
from nrms.training.sweep_config import SweepConfig

REQUIRED = ["--data", "in", "--output", "out"]


@dataclass(frozen=True, kw_only=True)
class BagConfig(ModelConfig):
    """Bag of words"""

    bag_dim: PositiveInt = option(8, "size of a bag")
    dropout: float = option(0.5, "share of a bag")


def build_bag(*_):
    raise AssertionError("nobody builds one here")


@pytest.fixture(autouse=True)
def _bag(monkeypatch):
    nrms = registry._ARCHITECTURES["nrms"]
    monkeypatch.setattr(registry, "_ARCHITECTURES", {"nrms": nrms})
    register("bag", BagConfig, build_bag, sampler="lists", defaults={"lr": 0.01, "patience": 7})


def parsed(*argv, config_class=TrainConfig):
    return parse(config_class, [*REQUIRED, *argv], "python -m jobs.train", "Trains.")


def refused(*argv):
    with pytest.raises(ConfigError) as caught:
        parsed(*argv)
    return str(caught.value)


def toml(folder, text):
    path = folder / "a.toml"
    path.write_text(text)
    return str(path)


def help_of(capsys, *argv):
    with pytest.raises(SystemExit):
        parsed(*argv, "--help")
    return " ".join(capsys.readouterr().out.split())


def test_a_model_is_found_by_its_name_and_by_its_options():
    bag = architectures()["bag"]
    assert architecture_of(BagConfig()) is bag
    assert (bag.name, bag.sampler, bag.build) == ("bag", "lists", build_bag)
    assert architectures()["nrms"].sampler == "clicks"


def test_help_shows_the_flags_and_defaults_of_the_model_that_is_chosen(capsys, tmp_path):
    nrms, bag = help_of(capsys), help_of(capsys, "--model", "bag")
    assert "NRMS: --word-dim" in nrms
    assert "Bag of words" not in nrms
    assert "(a number > 0 and <= 1; default: 0.0001)" in nrms
    assert "Bag of words: --bag-dim" in bag
    assert "--word-dim" not in bag
    assert "(a number > 0 and <= 1; default: 0.01)" in bag
    titles = ("Model: --model", "Bag of words: --bag-dim", "Training: --output")
    places = [bag.index(title) for title in titles]
    assert places == sorted(places)
    assert help_of(capsys, "--config", toml(tmp_path, 'model = "bag"')) == bag


def test_common_defaults_then_the_model_then_the_file_then_flags(tmp_path):
    file = ["--config", toml(tmp_path, 'model = "bag"\npatience = 5')]
    assert parsed().lr == 1e-4
    config = parsed(*file)
    assert (config.model, config.lr, config.patience, config.epochs) == ("bag", 0.01, 5, 10)
    assert parsed(*file, "--patience", "4").patience == 4
    assert parsed("--config", toml(tmp_path, 'model = "bag"'), "--model", "nrms").lr == 1e-4


def test_the_configuration_is_flat_and_in_the_order_of_the_help(tmp_path):
    config = parsed("--model", "bag", "--bag-dim", "3")
    assert config.model_config == BagConfig(bag_dim=3)
    names = list(as_dict(config))
    assert names[names.index("model") :][:4] == ["model", "bag_dim", "dropout", "context"]
    assert "word_dim" not in names
    file = toml(tmp_path, "\n".join(config_lines(config)))
    assert parse(TrainConfig, ["--config", file], "p", "") == config
    expected = ['data = "in"', 'model = "bag"', "bag_dim = 3", 'output = "out"']
    assert changed_lines(config) == expected
    assert TrainConfig(data="in", output="out", model="bag", bag_dim=3) == config


def test_a_flag_or_key_of_another_model_is_one_line_that_names_it(tmp_path):
    assert refused("--bag-dim", "3") == (
        "--bag-dim belongs to --model bag. Received: --model nrms. Leave it out, or choose a model "
        "that has it."
    )
    assert refused("--model=bag", "--word_dim=3").startswith(
        "--word-dim belongs to --model nrms. Received: --model bag. "
    )
    file = toml(tmp_path, "heads = 3")
    assert refused("--model", "bag", "--config", file).startswith(
        f"heads in {file} belongs to --model nrms. Received: --model bag. "
    )
    unknown = "--model must be one of nrms, bag. Received: 'cnn'."
    assert refused("--model", "cnn", "--bag-dim", "3") == unknown
    with pytest.raises(ConfigError) as caught:
        TrainConfig(data="in", output="out", model="cnn")
    assert str(caught.value) == unknown


def test_a_sweep_has_the_flags_of_its_model(tmp_path):
    flags = ["--model", "bag", "--space", "s", "--dropout", "0.25"]
    base = parsed(*flags, config_class=SweepConfig).train_config
    assert base == TrainConfig(data="in", output="out", model="bag", dropout=0.25)
    path = tmp_path / "space.yaml"
    path.write_text("method: grid\nparameters: {bag-dim: {values: [1, 2]}}")
    points = SearchSpace.read(path, "bag").grid(0)
    assert {with_values(base, point).bag_dim for point in points} == {1, 2}
    with pytest.raises(ConfigError, match="--bag-dim belongs to --model bag"):
        SearchSpace.read(path)
    path.write_text("method: grid\nparameters: {model: {values: [nrms, bag]}}")
    with pytest.raises(ConfigError, match="model is the same in all trials, given as --model, and"):
        SearchSpace.read(path)


@pytest.mark.parametrize("argv", [[], ["--model", "bag", "--bag-dim", "5"]])
def test_a_configuration_goes_to_another_process(argv):
    config = parsed(*argv)
    assert pickle.loads(pickle.dumps(config)) == config
    assert replace(config, lr=0.3).model_config == config.model_config


@pytest.mark.parametrize(
    ("name", "config_class", "reason"),
    [
        ("nrms", BagConfig, "a name and a class of options of its own"),
        ("sack", BagConfig, "a name and a class of options of its own"),
        ("sack", dict, "must be a dataclass of ModelConfig"),
    ],
)
def test_a_registration_that_would_hide_another_is_refused(name, config_class, reason):
    with pytest.raises(ValueError, match=reason):
        register(name, config_class, build_bag)


def test_a_model_may_not_redefine_a_flag_that_all_share():
    @dataclass(frozen=True, kw_only=True)
    class GreedyConfig(ModelConfig):
        """Greedy"""

        lr: float = option(1.0, "its own")

    register("greedy", GreedyConfig, build_bag)
    with pytest.raises(ValueError, match="greedy, with the flags lr"):
        parsed("--model", "greedy")


HELP = """
import contextlib, io, runpy, sys
sys.argv = ["job", "--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
    runpy.run_module(job, run_name="__main__")
assert "--help" in out.getvalue()
print(sorted({"keras", "tensorflow", "wandb"} & sys.modules.keys()))
"""


@pytest.mark.system
@pytest.mark.parametrize("job", ["prepare", "train", "sweep", "score", "nightly"])
def test_help_imports_neither_keras_nor_tensorflow(job):
    command = [sys.executable, "-c", f"job = 'jobs.{job}'" + HELP]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.system
def test_keras_loads_a_model_after_the_package_was_imported(world):
    path = str(world.files / "model.keras")
    code = f"import nrms.models, keras; print(keras.models.load_model({path!r}).count_params())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert int(done.stdout) > 0, done.stderr
