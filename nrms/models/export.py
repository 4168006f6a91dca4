"""A trained model to the files that others load: Keras and ONNX."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import keras
import numpy as np

from nrms.errors import ArtifactError
from nrms.models.keras_encoders import KerasEncoders
from nrms.models.onnx_encoders import OnnxEncoders
from nrms.models.recommender import Recommender
from nrms.models.sequence_encoder import SequenceEncoder

# largest difference allowed between Keras and ONNX Runtime, relative to the largest vector entry
PARITY = 1e-5


def export_model(model: Recommender, folder: Path, titles: np.ndarray) -> float:
    """Writes `model.keras`, `news_encoder.onnx` and `user_encoder.onnx` into `folder`.

    Args:
        model: a float32 model.
        folder: an existing local folder.
        titles: int32 word ids of shape `(articles, title)`, a sample of the catalogue to compare
            the runtimes on.

    Returns:
        The largest difference between a vector by Keras and by ONNX Runtime, relative to the
        largest entry.

    Raises:
        ArtifactError: the difference is above `PARITY`.
    """
    model.save(folder / "model.keras")
    dim = model.news_encoder.compute_output_shape((None, None))[-1]
    rows = {"shape": (None, None), "dtype": "int32"}
    signatures = {
        "news_encoder": [keras.InputSpec(name="titles", **rows)],
        "user_encoder": [
            keras.InputSpec(shape=(None, dim), dtype="float32", name="news_vectors"),
            keras.InputSpec(name="history", **rows),
        ],
    }
    log = logging.getLogger("tf2onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    sequences = [layer for layer in model._flatten_layers() if isinstance(layer, SequenceEncoder)]
    buckets = [layer.buckets for layer in sequences]
    for layer in sequences:
        # A graph of an eighth of the size: it exports in a third of the time and runs small batches
        # twice as fast.
        layer.buckets = 1
    try:
        with warnings.catch_warnings():
            # tf2onnx 1.17 looks for `np.object`, which NumPy warns about.
            warnings.simplefilter("ignore", FutureWarning)
            for name, signature in signatures.items():
                getattr(model, name).export(
                    folder / f"{name}.onnx", format="onnx", input_signature=signature, verbose=False
                )
    finally:
        log.setLevel(level)
        for layer, count in zip(sequences, buckets, strict=True):
            layer.buckets = count
    return _check_parity(model, folder, titles)


def _check_parity(model: Recommender, folder: Path, titles: np.ndarray) -> float:
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
            f"difference of {worst}. The model was not published."
        )
    return worst
