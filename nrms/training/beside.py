"""Published models whose validation metrics stand beside those of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nrms import bundles
from nrms.errors import ConfigError
from nrms.storage.scratch import scratch_folder


def model_name(config: Mapping[str, Any]) -> str:
    """What a table calls the model of a training with this configuration."""
    model = str(config.get("model", "model"))
    return f"{model} + context" if config.get("context") else model


def metrics_beside(uris: str | None, fingerprint: str) -> dict[str, dict[str, Any]]:
    """The validation metrics of published models, by name.

    Args:
        uris: versions' folders or model roots, with commas between; None for none.
        fingerprint: that of the data of the training beside which they stand.

    Raises:
        ArtifactError: one of them is no model.
        ConfigError: one was trained on other data, by which metrics cannot be compared.
        StorageError: one cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    for uri in filter(None, (each.strip() for each in (uris or "").split(","))):
        with scratch_folder() as cache:
            meta = bundles.load(uri, cache, []).meta
        if meta.get("data", {}).get("fingerprint") != fingerprint:
            raise ConfigError(
                "--beside must name models that were trained on the same data. Received: "
                f"{uri}, trained on {meta.get('data', {}).get('uri')}. "
                "Score a split with both, and use jobs.compare."
            )
        name = model_name(meta.get("config", {}))
        found[name if name not in found else f"{name} ({uri})"] = meta["metrics"]
    return found
