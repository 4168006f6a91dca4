"""Whether ONNX Runtime computes what Keras does, before a model is published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nrms.architectures.model_graph import Graph
from nrms.errors import ArtifactError
from nrms.features.spec import Spec
from nrms.inference.onnx_runtime import OnnxRuntime
from nrms.inference.runtime import Runtime

# The largest difference that is allowed, relative to the largest entry of what a graph gives.
PARITY = 1e-5


def check_parity(
    graphs: Mapping[str, Graph],
    by_keras: Runtime,
    folder: Path,
    articles: Mapping[str, np.ndarray],
) -> float:
    """Compares the exported graphs of a model with itself.

    Args:
        graphs: those of a float32 model, by name.
        by_keras: executes them.
        folder: where `nrms.bundles.export.export_model` wrote them.
        articles: what it reads of a sample of at least two articles, `(articles, ...)` by name.

    Returns:
        The largest difference between what a graph gives by Keras and by ONNX Runtime, relative to
        the largest entry.

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
        largest = max(float(np.abs(expected).max()), 1e-6)
        worst = max(worst, float(np.abs(expected - got).max()) / largest)
    if not worst <= PARITY:
        raise ArtifactError(
            f"the ONNX graphs must equal the Keras model to {PARITY}. Received: a relative "
            f"difference of {worst}. The model was not published."
        )
    return worst


class _Sample:
    """Arrays to compare on."""

    def __init__(self, articles: Mapping[str, np.ndarray]) -> None:
        self._given = dict(articles)
        self._count = len(next(iter(articles.values()))) if articles else 64
        self._rng = np.random.default_rng(0)

    def add(self, name: str, array: np.ndarray) -> None:
        """What one graph gives, the next may read."""
        self._given[name] = array

    def array(self, name: str, spec: Spec) -> np.ndarray:
        """An array of every length that the sample allows, none among them."""
        n = self._count
        if name in self._given:
            array = self._given[name]
            # Of articles, or of the candidates of lists.
            lists = spec.axes[0] != "articles"
            return array[self._rng.integers(0, n, (n, n))] if lists else array
        shape = [axis if isinstance(axis, int) else n for axis in spec.axes]
        if spec.dtype == "bool":
            return np.tri(shape[0], shape[1], -1, dtype=bool)
        if spec.dtype == "int32":  # rows of articles, 0 = padding
            return np.tril(np.tile(np.arange(1, n, dtype=np.int32), (n, 1)), -1)
        return self._rng.standard_normal(shape).astype(spec.dtype)
