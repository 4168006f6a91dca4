"""Graphs: the parts of a model that a runtime executes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nrms.features.spec import Spec


@dataclass(frozen=True)
class Graph:
    """A function from named arrays to one array.

    Attributes:
        function: takes a dictionary of tensors with the names in `inputs`, and gives a tensor.
        inputs: the arrays that it reads, by name.
        gives: the name of the array that it gives.
        output: the axes of that array, which is float32; each a length, or a name for any length.
    """

    function: Callable[[dict[str, Any]], Any]
    inputs: Mapping[str, Spec]
    gives: str
    output: tuple[str | int, ...]


class HasGraphs(Protocol):
    """What inference and export need of a Keras model.

    Attributes:
        scoring: how scores are made from its graphs, see `nrms.inference.loaded_model`.
    """

    scoring: str

    def graphs(self, articles: Mapping[str, Spec], buckets: int | None = None) -> dict[str, Graph]:
        """Its graphs by name. A graph that reads what another gives comes after it.

        Args:
            articles: what the model reads of articles, by name.
            buckets: see `nrms.layers.sequence_encoder`; None for the buckets of the layers.
        """
