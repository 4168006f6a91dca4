"""A news recommender: trains from Parquet, scores every night, serves uploads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nrms.inference.loaded_model import RuntimeName
    from nrms.library import Model
    from nrms.storage import Location

__version__ = "0.2.0.dev0"


def load(uri: Location, runtime: RuntimeName = "onnx") -> Model:
    """Loads a published model.

    Args:
        uri: a version's folder, or a model root, whose latest version is loaded; local or `gs://`.
        runtime: what executes it. `onnx` needs neither Keras nor TensorFlow, and `keras` uses a
            GPU.

    Raises:
        ArtifactError: there is no model, or it is incomplete, altered or of another format.
        ConfigError: there is no such runtime.
        StorageError: the storage cannot be read.
    """
    from nrms.library import Model  # imported here, so that `import nrms` is quick

    return Model(uri, runtime)
