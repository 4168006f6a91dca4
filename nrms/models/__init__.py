"""The models in Keras: `import nrms.models`, and `keras.models.load_model` reads every bundle's
`model.keras`.
"""

import keras

from nrms.architectures import ModelConfig, architectures, register
from nrms.errors import ConfigError

if (keras.config.backend(), keras.config.floatx()) != ("tensorflow", "float32"):
    # The jobs set both; who imports this package sets them like everything else of his process.
    raise ConfigError(
        "Keras must run on tensorflow, in float32. Received: "
        f"{keras.config.backend()}, in {keras.config.floatx()}, of KERAS_BACKEND or keras.json. "
        "Set KERAS_BACKEND=tensorflow, and floatx to float32, before Keras is imported."
    )

for _architecture in architectures().values():
    _ = _architecture.build  # its module's classes are then known to Keras

from nrms.models.registry import build_model  # noqa: E402  after the check above

__all__ = ["ModelConfig", "build_model", "register"]
