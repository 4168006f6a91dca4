"""Builds a Keras model from its options."""

from __future__ import annotations

import keras

from nrms.architectures import ModelConfig, architecture_of
from nrms.features.inputs import Inputs


def build_model(config: ModelConfig, inputs: Inputs, precision: str = "float32") -> keras.Model:
    """Builds the model whose options are given.

    Args:
        config: the options, an instance of a registered class.
        inputs: what the model reads, fitted.
        precision: Keras dtype policy of the computation; weights are always float32.

    Returns:
        The model, with its weights created.
    """
    model = architecture_of(config).build(config, inputs, precision)
    if not model.built:
        model.build()
    return model
