"""The ONNX Runtime of the two encoders: without TensorFlow, for what must start fast and stay
small.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from nrms.errors import ArtifactError


class OnnxEncoders:
    """Runs a model's `news_encoder.onnx` and `user_encoder.onnx` on the CPU (see
    `nrms.inference.scorer.Encoders`).

    Args:
        news_encoder: file of the news encoder.
        user_encoder: file of the user encoder.

    Raises:
        ArtifactError: a file is no such model.
    """

    positions = 16_384  # larger batches are no faster and take memory

    def __init__(self, news_encoder: Path, user_encoder: Path):
        options = onnxruntime.SessionOptions()
        # The arena never shrinks: half the memory without it, a tenth slower.
        options.enable_cpu_mem_arena = False
        # Idle threads would wait in a loop, and take the processor from all else for a while after
        # each call.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # warnings about the graph's making are nothing a user can act on
        options.log_severity_level = 3
        self._news, self._users = (_session(path, options) for path in (news_encoder, user_encoder))

    def encode_news(self, titles: np.ndarray) -> np.ndarray:
        """See `nrms.inference.scorer.Encoders`."""
        return self._news.run(None, {"titles": titles})[0]

    def encode_users(self, news_vectors: np.ndarray, history: np.ndarray) -> np.ndarray:
        """See `nrms.inference.scorer.Encoders`."""
        return self._users.run(None, {"news_vectors": news_vectors, "history": history})[0]


def _session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's own exceptions have no common base
        received = " ".join(str(error).split())[:300]
        raise ArtifactError(
            f"{path.name}: must be a model that ONNX Runtime loads. Received: {received}. Train "
            f"the model again."
        ) from error
