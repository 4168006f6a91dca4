"""The parts of a model that a runtime executes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nrms.features.spec import Spec


@dataclass(frozen=True)
class Graph:
    """Arrays in, one array out.

    Attributes:
        function: of one dictionary of tensors, by the names in `inputs`.
        inputs: what it reads, by name.
        gives: name of what it gives.
        output: axes of that, float32.
    """

    function: Callable[[dict[str, Any]], Any]
    inputs: Mapping[str, Spec]
    gives: str
    output: tuple[str | int, ...]


class HasGraphs(Protocol):
    """A Keras model as the rooms above see it.

    Attributes:
        scoring: how scores are made of what its graphs give, see `nrms.inference.loaded_model`.
    """

    scoring: str

    def graphs(self, articles: Mapping[str, Spec], buckets: int | None = None) -> dict[str, Graph]:
        """Its graphs by name, in the order in which one reads what another gives.

        Args:
            articles: what the model reads of articles, by name.
            buckets: see `nrms.layers.sequence_encoder`; None for what the layers have.
        """
