"""Trainings that take no time and need no TensorFlow, for the tests of a sweep: importable, as its
processes need.
"""

import math
import os
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from nrms.config import parse
from nrms.errors import SchemaError, TrainingError
from nrms.training.sweep_config import SweepConfig


@dataclass
class Result:
    metrics: dict
    model_uri: str


def auc(config):
    return 0.7 - 0.02 * abs(math.log10(config.lr) + 3) - config.batch_size / 10_000


def train(config):
    """Notes process and values in a log beside the data. Each call gives another model's name."""
    with (Path(config.data) / "log").open("a") as log:
        log.write(
            f"{os.getpid()} {config.lr} {config.batch_size} {config.resume} {config.output}\n"
        )
    time.sleep(float(os.environ.get("STUB_SECONDS", "0")))
    if config.lr == 0.1:
        raise TrainingError("the loss must be finite. Received: nan.")
    if config.lr == 0.2:
        os._exit(9)
    if config.lr == 0.3:
        raise SchemaError("no such data")
    return Result({"auc": auc(config), "mrr": 0.1, "ndcg@5": 0.2, "ndcg@10": 0.3}, uuid.uuid4().hex)


def main(argv):
    from nrms.training.sweep import sweep  # a trial's process starts sooner without

    return sweep(parse(SweepConfig, argv, "sweep", ""), train, threading.Event())


if __name__ == "__main__":
    from tests import stub_training  # not __main__, which a trial's process does not have

    stub_training.main(sys.argv[1:])
