"""What every job does around its work: configuration, logging, errors, exit code."""

import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from nrms import logs
from nrms.config import Config, as_dict, changed_lines, parse
from nrms.errors import ConfigError, Interrupted, NotPromoted, NrmsError
from nrms.evaluation.comparison import interval_text
from nrms.evaluation.ranking import METRICS
from nrms.quiet import quiet_tensorflow

logger = logging.getLogger("nrms.jobs")

_CONFIGS = Path(__file__).parents[1] / "configs"  # holds keras.json, in the place of the one in the home directory


def run(
    main: Callable[[Config], None],
    config_class: type[Config],
    prog: str,
    description: str,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Runs a job and ends the process.

    Args:
        main: the job's work.
        config_class: the dataclass of its configuration, see `nrms.config.parse`.
        prog: the command, as `python -m jobs.train`.
        description: what the job does, for `--help`.
        argv: the arguments; None for those of this process.

    Ends the process with an exit code: 0 done; 1 failed (data, storage, model, training); 2 the configuration is
    wrong; 3 a model was trained but is not promoted; 130 stopped by Ctrl-C; 143 stopped by a signal after writing a
    checkpoint. All but 0 come with one line on stderr, where log lines are JSON objects unless it is a terminal. Any
    other exception is a bug and passes through.
    """
    set_up_process()
    try:
        main(parse(config_class, argv, prog, description))
    except ConfigError as error:
        _fail(error, 2)
    except Interrupted as error:
        _fail(error, 143)
    except NotPromoted as error:
        _fail(error, 3)
    except NrmsError as error:
        _fail(error, 1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("nrms", "jobs", ""):
            raise
        _fail(
            f"the packages of requirements.txt must be installed. Received: {sys.executable}, without {package}. "
            f"Run `{sys.executable} -m pip install -r requirements.txt`, or .venv/bin/python, which `make demo` makes.",
            2,
        )
    except KeyboardInterrupt:
        _fail("stopped by Ctrl-C", 130)
    sys.exit(0)


def set_up_process() -> None:
    """Logging, what is not worth a line in it, and the backends of Keras and Matplotlib, whatever the user's settings
    are. Before either is imported; a job's child processes call it, too."""
    quiet_tensorflow()
    os.environ |= {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": str(_CONFIGS), "MPLBACKEND": "agg"}
    os.environ["LC_ALL"] = "C"  # which a matplotlibrc can make it use when it is imported, installed or not
    # A title of one word has one attention weight, which is 1.
    warnings.filterwarnings("ignore", "You are using a softmax over axis -1", UserWarning)
    logs.to_stderr()


def log_config(config: object) -> None:
    """Says what the configuration changes; where stderr goes to a log, that gets all of it."""
    for line in changed_lines(config):
        logger.info("%s", line)
    if not sys.stderr.isatty():
        logger.info("configuration: %s", json.dumps(as_dict(config), ensure_ascii=False))


def stop_on_signals() -> threading.Event:
    """An event that the first SIGTERM or Ctrl-C sets; the second has its usual effect."""
    stop = threading.Event()

    def ask_to_stop(number: int, frame: object) -> None:
        logger.info("stopping after this batch with a checkpoint; a second signal stops at once")
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    return stop


def print_rankings(title: str, rankings: Mapping[str, Mapping[str, float]]) -> None:
    """Prints a table of the ranking metrics, a line for each ranking."""
    print(f"{title:<14}" + "".join(f"{name:>10}" for name in METRICS) + "    95% interval of auc")
    for ranking, metrics in rankings.items():
        line = f"{ranking:<14}" + "".join(f"{metrics[name]:>10.4f}" for name in METRICS)
        print(f"{line}    {interval_text(metrics)}".rstrip())


def warn(metrics: Mapping[str, Any]) -> None:
    """Logs the `warnings` among the metrics: last, so that nothing scrolls them away."""
    for text in metrics.get("warnings", []):
        logger.warning("%s", text)


def _fail(message: object, code: int) -> NoReturn:
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(code)
