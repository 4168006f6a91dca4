"""What every job does around its work: configuration, logging, errors, exit code."""

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jobs import signals
from nrms import logs
from nrms.config import Config, as_dict, changed_lines, parse
from nrms.errors import ConfigError, Interrupted, NotPromoted, NrmsError
from nrms.evaluation.comparison import interval_text
from nrms.evaluation.ranking import METRICS
from nrms.quiet import quiet_tensorflow
from nrms.storage.disk import refused
from nrms.storage.scratch import as_temporary_folder, temporary_folder

logger = logging.getLogger("nrms.jobs")

# its keras.json is read instead of the one in the home directory
_KERAS_HOME = Path(__file__).parent / "keras_home"
_COMMAND = re.compile(r"python\s+-m\s+jobs\.\w+")


def run(
    main: Callable[[Config], None],
    config_class: type[Config],
    prog: str,
    description: str | None,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Runs a job and ends the process.

    Args:
        main: the job's work.
        config_class: the dataclass of its configuration, see `nrms.config.parse`.
        prog: the command, as `python -m jobs.train`.
        description: what the job does, for `--help`; `python -m jobs.train` in it becomes `prog`.
        argv: the arguments; None for those of this process.

    Ends the process with an exit code: 0 done; 1 failed (data, storage, model, training); 2 the
    configuration is wrong; 3 a model was trained but is not promoted; 130 stopped by Ctrl-C; 143
    stopped by SIGTERM. All but 0 come with one line on stderr, where log lines are JSON objects
    unless it is a terminal. Any other exception is a bug and passes through.
    """
    described = _COMMAND.sub(prog, description or "")
    end_with(lambda: main(parse(config_class, argv, prog, described)))


def end_with(work: Callable[[], None]) -> NoReturn:
    """Does the work of a job, flags and imports included, and ends the process as `run` says."""
    set_up_process()
    try:
        with signals.raised(), as_temporary_folder():
            if not os.access(os.environ.get("HOME", "."), os.W_OK):
                # Otherwise Matplotlib makes a temporary folder of its own, and complains at its end
                # that the folder has gone.
                os.environ.setdefault("MPLCONFIGDIR", str(temporary_folder()))
            work()
    except ConfigError as error:
        _fail(error, 2)
    except Interrupted as error:
        _fail(error, signals.exit_code())
    except NotPromoted as error:
        _fail(error, 3)
    except NrmsError as error:
        _fail(error, 1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("nrms", "jobs", ""):
            raise
        _fail(
            f"the packages of requirements.txt must be installed. Received: {sys.executable}, "
            f"without {package}. Run `{sys.executable} -m pip install -r requirements.txt`, or "
            ".venv/bin/python, which `make demo` makes.",
            2,
        )
    except KeyboardInterrupt:
        _fail(signals.last_words(), signals.exit_code())
    except Exception as error:
        refusal = refused(error, temporary_folder())
        if refusal is None:
            raise
        _fail(refusal, 1)
    sys.exit(0)


def set_up_process() -> None:
    """Sets up logging, silences messages that are not worth a line, and sets the backends of Keras
    and Matplotlib, whatever the user's settings are.

    It must run before either is imported. A job's child processes call it, too.
    """
    quiet_tensorflow()
    os.environ |= {
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": str(_KERAS_HOME),
        "MPLBACKEND": "agg",
    }
    # A matplotlibrc can make Matplotlib set the user's locale when it is imported, and that fails
    # where the locale is not installed.
    os.environ["LC_ALL"] = "C"
    # A title of one word has a single attention weight, which is 1, and Keras warns of that.
    warnings.filterwarnings("ignore", "You are using a softmax over axis -1", UserWarning)
    logs.to_stderr()


def log_config(config: object) -> None:
    """Says what the configuration changes; where stderr goes to a log, that gets all of it."""
    for line in changed_lines(config):
        logger.info("%s", line)
    if not sys.stderr.isatty():
        logger.info("configuration: %s", json.dumps(as_dict(config), ensure_ascii=False))


def print_rankings(title: str, rankings: Mapping[str, Mapping[str, float]]) -> None:
    """Prints a table of the ranking metrics, a line for each ranking."""
    print(f"{title:<16}" + "".join(f"{name:>10}" for name in METRICS) + "    95% interval of auc")
    for ranking, metrics in rankings.items():
        line = f"{ranking:<16}" + "".join(f"{metrics[name]:>10.4f}" for name in METRICS)
        print(f"{line}    {interval_text(metrics)}".rstrip())


def print_beyond_accuracy(rankings: Mapping[str, Mapping[str, float]]) -> None:
    """Prints a table of what accuracy does not say of the ten best, a column for each ranking."""
    # It takes the libraries that read data, which `--help` shall not wait for.
    from nrms.evaluation.beyond_accuracy import CUTOFFS, NAMES

    k = CUTOFFS[-1]
    print(f"\n{'beyond accuracy':<20}" + "".join(f"{ranking:>12}" for ranking in rankings))
    for name in (f"{name}@{k}" for name in NAMES):
        if all(name in metrics for metrics in rankings.values()):
            values = "".join(f"{metrics[name]:>12.4f}" for metrics in rankings.values())
            print(f"{name:<20}{values}")


def warn(metrics: Mapping[str, Any]) -> None:
    """Logs the `warnings` among the metrics: last, so that nothing scrolls them away."""
    for text in metrics.get("warnings", []):
        logger.warning("%s", text)


def _fail(message: object, code: int) -> NoReturn:
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(code)
