"""The models that can be trained. Each has a file here with its flags and its registration, and a
file of the same name in `nrms.models` with its Keras part.
"""

import importlib
import pkgutil

from nrms.architectures.registry import (
    DEFAULT,
    Architecture,
    ModelConfig,
    architecture_of,
    architectures,
    register,
)

__all__ = [
    "DEFAULT",
    "Architecture",
    "ModelConfig",
    "architecture_of",
    "architectures",
    "register",
]

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
