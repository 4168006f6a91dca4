"""Refuses a TF_CONFIG of several workers, because one process trains a model."""

from __future__ import annotations

import json
from collections.abc import Mapping

from nrms.errors import ConfigError


def refuse_cluster(environ: Mapping[str, str]) -> None:
    """Makes sure that the environment does not ask for several processes that train one model.

    Raises:
        ConfigError: `TF_CONFIG` names more than one worker, or cannot be read.
    """
    setting = environ.get("TF_CONFIG")
    if not setting:
        return
    try:
        tasks = [
            address
            for addresses in json.loads(setting).get("cluster", {}).values()
            for address in addresses
        ]
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise ConfigError(
            "TF_CONFIG must be TensorFlow's JSON object. "
            f"Received: {setting[:80]!r}. Unset it, or mend it."
        ) from None
    if len(tasks) > 1:
        raise ConfigError(
            "TF_CONFIG must name one worker: each of several would train and "
            f"publish a model of its own. Received: {len(tasks)} workers. "
            "Unset TF_CONFIG; one process uses all GPUs of its machine."
        )
