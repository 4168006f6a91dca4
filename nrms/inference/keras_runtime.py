"""The Keras runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import nrms.models  # noqa: F401  the layers of every model must be known before one is loaded
from nrms.architectures.model_graph import Graph, HasGraphs
from nrms.features.spec import Spec


class KerasRuntime:
    """Executes the graphs of a Keras model (see `nrms.inference.runtime.Runtime`).

    Args:
        model: the model; its current weights are used at each call.
        articles: what it reads of articles, by name.
    """

    positions = 65_536  # tensors of 100 MB at 400 dimensions, worked on in 8 buckets

    def __init__(self, model: HasGraphs, articles: Mapping[str, Spec]):
        graphs = model.graphs(articles)
        self.inputs = {name: tuple(graph.inputs) for name, graph in graphs.items()}
        self._functions = {name: _function(graph) for name, graph in graphs.items()}

    @classmethod
    def load(cls, path: Path, articles: Mapping[str, Spec]) -> KerasRuntime:
        """Executes a `model.keras`, which must be verified: such a file carries code."""
        runtime = cls(keras.models.load_model(path, compile=False), articles)
        for function in runtime._functions.values():
            # Now and not in the first batch, whose time would say nothing.
            function.get_concrete_function()
        return runtime

    def run(self, graph: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """See `nrms.inference.runtime.Runtime`."""
        return self._functions[graph](dict(arrays)).numpy()


def _function(graph: Graph) -> tf.types.experimental.PolymorphicFunction:
    # Traced once for every shape: batches differ in size and length.
    signature = {
        name: tf.TensorSpec([None] * len(spec.axes), spec.dtype)
        for name, spec in graph.inputs.items()
    }
    return tf.function(graph.function, input_signature=[signature], autograph=False)
