"""Trains in a new process, because TensorFlow releases its memory only when a process ends.

This module imports little, since the process of each training imports it.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from nrms.errors import Interrupted, NrmsError, TrainingError
from nrms.evaluation.ranking import METRICS
from nrms.storage.scratch import remove_own
from nrms.training.config import TrainConfig

if TYPE_CHECKING:
    from nrms.training.run import TrainingResult

Train = Callable[[TrainConfig], "TrainingResult"]


def train_apart(
    train: Train, config: TrainConfig, stop: threading.Event
) -> tuple[dict[str, float], str]:
    """Trains in a new process, and waits for its end.

    Args:
        train: must be importable, and after SIGTERM write a checkpoint and raise `Interrupted`.
        config: the configuration of the training.
        stop: set it to stop the training with a checkpoint.

    Returns:
        The validation metrics, and the published version.

    Raises:
        NrmsError: what `train` raises; `TrainingError` where its process ended without an answer,
            but `Interrupted` where `stop` was set.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(train, config, sender), daemon=True)
    process.start()
    sender.close()
    asked = False
    try:
        while not receiver.poll(0.2):
            if stop.is_set() and not asked:
                process.terminate()
                asked = True
        answer = receiver.recv()
    except EOFError:
        process.join()
        answer = TrainingError(
            f"its process ended with exit code {process.exitcode}, see above; out of memory?"
        )
        if asked:
            answer = Interrupted("before it had begun")
    process.join()
    if isinstance(answer, NrmsError):
        raise answer
    return answer


def _work(train: Train, config: TrainConfig, sender: Connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        result = train(config)
    except NrmsError as error:
        sender.send(error)
    else:
        sender.send(({name: result.metrics[name] for name in METRICS}, result.model_uri))


def _end_with_parent() -> None:
    """Ends this process when a sweep is killed, so that no training stands in the way of the
    next one.
    """
    if parent := multiprocessing.parent_process():
        parent.join()
    remove_own()
    os._exit(1)
