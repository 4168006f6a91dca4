"""Executes graphs with Keras."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import nrms.models  # noqa: F401  registers the layers that a saved model is made of
from nrms.architectures.model_graph import Graph, HasGraphs
from nrms.errors import ArtifactError
from nrms.features.spec import Spec


class KerasRuntime:
    """Executes the graphs of a Keras model (see `nrms.inference.runtime.Runtime`).

    Args:
        model: the model. Each call uses the weights that it has then.
        articles: what the model reads of articles, by name.
    """

    positions = 65_536  # tensors have 100 MB at 400 dimensions, and 8 buckets divide them

    def __init__(self, model: HasGraphs, articles: Mapping[str, Spec]):
        graphs = model.graphs(articles)
        self.inputs = {name: tuple(graph.inputs) for name, graph in graphs.items()}
        self._functions = {name: _function(graph) for name, graph in graphs.items()}

    @classmethod
    def load(cls, path: Path, articles: Mapping[str, Spec]) -> KerasRuntime:
        """Loads a `model.keras`, which must be verified, because such a file carries code. Raises
        ArtifactError where Keras cannot load it.
        """
        try:
            runtime = cls(keras.models.load_model(path, compile=False), articles)
        except Exception as error:  # Keras raises whatever the layers and the file's parts raise
            received = " ".join(str(error).split())[:300]
            raise ArtifactError(
                f"{path.name}: must be a model that Keras loads, of layers that are registered. "
                f"Received: {received}. Train the model again."
            ) from error
        for function in runtime._functions.values():
            # Traced now, so that the time of the first batch is that of its own work.
            function.get_concrete_function()
        return runtime

    def run(self, graph: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """See `nrms.inference.runtime.Runtime`."""
        return self._functions[graph](dict(arrays)).numpy()


def _function(graph: Graph) -> tf.types.experimental.PolymorphicFunction:
    # All axes are of any length, so that a graph is traced once for batches of all sizes.
    signature = {
        name: tf.TensorSpec([None] * len(spec.axes), spec.dtype)
        for name, spec in graph.inputs.items()
    }
    return tf.function(graph.function, input_signature=[signature], autograph=False)
