"""Checks that ONNX Runtime computes what Keras does, before a model is published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nrms.architectures.model_graph import Graph
from nrms.errors import ArtifactError
from nrms.features.spec import Spec
from nrms.inference.onnx_runtime import OnnxRuntime
from nrms.inference.runtime import Runtime

# The largest difference allowed, relative to the largest entry of a graph's output.
PARITY = 1e-5
_NOTHING = -1e8  # less than the score of any candidate: a list has none there


def check_parity(
    graphs: Mapping[str, Graph],
    by_keras: Runtime,
    folder: Path,
    articles: Mapping[str, np.ndarray],
) -> float:
    """Compares the exported graphs of a model with the model itself.

    Args:
        graphs: the graphs of a float32 model, by name.
        by_keras: executes them in Keras.
        folder: where `nrms.bundles.export.export_model` wrote them.
        articles: what the model reads of a sample of at least two articles, `(articles, ...)` by
            name.

    Returns:
        The largest difference between the outputs of Keras and of ONNX Runtime, relative to the
        largest entry of that output.

    Raises:
        ArtifactError: the difference is above `PARITY`.
    """
    by_onnx = OnnxRuntime({name: folder / f"{name}.onnx" for name in graphs})
    sample = _Sample(articles)
    worst = 0.0
    for name, graph in graphs.items():
        arrays = {one: sample.array(one, spec) for one, spec in graph.inputs.items()}
        expected, got = (runtime.run(name, arrays) for runtime in (by_keras, by_onnx))
        sample.add(graph.gives, expected)
        expected, got = (np.where(expected > _NOTHING, each, 0) for each in (expected, got))
        largest = max(float(np.abs(expected).max()), 1e-6)
        worst = max(worst, float(np.abs(expected - got).max()) / largest)
    if not worst <= PARITY:
        raise ArtifactError(
            f"the ONNX graphs must equal the Keras model to {PARITY}. Received: a relative "
            f"difference of {worst}. The model was not published."
        )
    return worst


class _Sample:
    """Makes the arrays on which the graphs are compared."""

    def __init__(self, articles: Mapping[str, np.ndarray]) -> None:
        self._given = dict(articles)
        self._count = len(next(iter(articles.values()))) if articles else 64
        self._rng = np.random.default_rng(0)

    def add(self, name: str, array: np.ndarray) -> None:
        """Keeps the output of a graph, which later graphs may read."""
        self._given[name] = array

    def array(self, name: str, spec: Spec) -> np.ndarray:
        """The array for an input. Its sequences have all lengths from 0 on."""
        n = self._count
        if name in self._given:
            array = self._given[name]
            # A list ranker reads what is known of articles for each candidate of a list.
            lists = spec.axes[0] != "articles"
            return array[self._rng.integers(0, n, (n, n))] if lists else array
        shape = [axis if isinstance(axis, int) else n for axis in spec.axes]
        if spec.dtype == "bool":
            return np.tri(shape[0], shape[1], -1, dtype=bool)
        if spec.dtype == "int32":  # rows of articles, 0 = padding
            return np.tril(np.tile(np.arange(1, n, dtype=np.int32), (n, 1)), -1)
        return self._rng.standard_normal(shape).astype(spec.dtype)
