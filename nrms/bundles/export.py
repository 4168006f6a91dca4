"""Writes a trained model as the files that others load, for Keras and for ONNX Runtime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import keras
import onnx

from nrms.architectures.model_graph import Graph
from nrms.bundles.parts import KERAS
from nrms.features.spec import Spec

# With one bucket a graph has an eighth of the size, is exported in a third of the time, and runs
# small batches twice as fast.
_BUCKETS = 1


def export_model(model: keras.Model, folder: Path, articles: Mapping[str, Spec]) -> dict[str, dict]:
    """Writes `model.keras`, and a file `<graph>.onnx` for each of its graphs.

    Args:
        model: a float32 model.
        folder: an existing local folder.
        articles: what the model reads of articles, by name.

    Returns:
        The graphs by name, as a bundle's `meta.json` lists them: of each input its dtype and axes,
        and the axes of the output, JSON-ready.
    """
    model.save(folder / KERAS)
    graphs = model.graphs(articles, buckets=_BUCKETS)
    log = logging.getLogger("tf2onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # tf2onnx 1.17 reads `np.object`, about which NumPy warns.
            warnings.simplefilter("ignore", FutureWarning)
            for name, graph in graphs.items():
                _export(model, graph, folder / f"{name}.onnx")
    finally:
        log.setLevel(level)
    return {
        name: {
            "inputs": {
                one: {"dtype": spec.dtype, "axes": list(spec.axes)}
                for one, spec in graph.inputs.items()
            },
            "output": list(graph.output),
        }
        for name, graph in graphs.items()
    }


def _export(model: keras.Model, graph: Graph, path: Path) -> None:
    signature = {
        name: keras.InputSpec(shape=spec.shape, dtype=spec.dtype, name=name)
        for name, spec in graph.inputs.items()
    }
    _Exported(model, graph).export(path, format="onnx", input_signature=[signature], verbose=False)
    exported = onnx.load(path)
    named = {name: spec.axes for name, spec in graph.inputs.items()}
    for tensor, axes in (
        *((one, named[one.name]) for one in exported.graph.input),
        (exported.graph.output[0], graph.output),
    ):
        for dim, axis in zip(tensor.type.tensor_type.shape.dim, axes, strict=True):
            if isinstance(axis, str):
                dim.dim_param = axis
    onnx.save(exported, path)


class _Exported(keras.Model):
    """A graph in the form of a model, which is what Keras exports."""

    def __init__(self, model: keras.Model, graph: Graph) -> None:
        super().__init__(name="exported")
        self.model = model
        self._graph = graph
        self.built = True

    def call(self, arrays: dict) -> object:
        return self._graph.function(arrays)
