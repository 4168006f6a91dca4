"""The Keras parts of the models. After `import nrms.models`, `keras.models.load_model` reads the
`model.keras` of every bundle.
"""

import keras

from nrms.architectures import ModelConfig, architectures, register
from nrms.errors import ConfigError

if (keras.config.backend(), keras.config.floatx()) != ("tensorflow", "float32"):
    # The jobs set both. A program that imports this package decides for its process itself.
    raise ConfigError(
        "Keras must run on tensorflow, in float32. Received: "
        f"{keras.config.backend()}, in {keras.config.floatx()}, of KERAS_BACKEND or keras.json. "
        "Set KERAS_BACKEND=tensorflow, and floatx to float32, before Keras is imported."
    )

for _architecture in architectures().values():
    _ = _architecture.build  # imports its module, which registers its classes with Keras

# After the check above. A text model below a ranker is of no architecture of its own.
from nrms.models import ranked_text  # noqa: E402, F401
from nrms.models.build import build_model  # noqa: E402

__all__ = ["ModelConfig", "build_model", "register"]
