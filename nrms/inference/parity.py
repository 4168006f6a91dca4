"""Whether ONNX Runtime computes what Keras does, before a model is published."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nrms.errors import ArtifactError
from nrms.inference.keras_runtime import KerasEncoders
from nrms.inference.onnx_runtime import OnnxEncoders
from nrms.models.two_tower import Recommender

# The largest difference that is allowed, relative to the largest entry of a vector.
PARITY = 1e-5


def check_parity(model: Recommender, folder: Path, titles: np.ndarray) -> float:
    """Compares the exported encoders of a model with itself.

    Args:
        model: a float32 model.
        folder: where `nrms.bundles.export.export_model` wrote it.
        titles: int32 word ids of shape `(articles, title)`, a sample of the catalogue.

    Returns:
        The largest difference between a vector by Keras and by ONNX Runtime, relative to the
        largest entry.

    Raises:
        ArtifactError: the difference is above `PARITY`.
    """
    runtimes = (
        KerasEncoders(model),
        OnnxEncoders(folder / "news_encoder.onnx", folder / "user_encoder.onnx"),
    )
    news = [encoders.encode_news(titles) for encoders in runtimes]
    # Histories of every length that the sample allows, the empty one among them.
    history = np.tril(np.tile(np.arange(1, len(titles), dtype=np.int32), (len(titles), 1)), -1)
    users = [encoders.encode_users(news[0], history) for encoders in runtimes]
    worst = max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-6)) for a, b in (news, users))
    if not worst <= PARITY:
        raise ArtifactError(
            f"the ONNX encoders must equal the Keras ones to {PARITY}. Received: a relative "
            f"difference of {worst}. "
            "The model was not published."
        )
    return worst
