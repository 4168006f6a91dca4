"""Keras knows every class of a saved model."""

import re
import subprocess
import sys

from tests.small_training import REPOSITORY

CODE = """
import keras
import nrms.models
print(*keras.saving.get_custom_objects())
"""


def test_after_the_import_alone_keras_reads_every_class_of_a_saved_model():
    # In a process of its own, since the tests beside this one have imported the rest.
    found = subprocess.run(
        [sys.executable, "-c", CODE], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    decorated = re.compile(
        r'^@.*register_keras_serializable\(package="(\w+)"(?:, name="(\w+)")?\)\nclass (\w+)', re.M
    )
    classes = [
        f"{package}>{name or own}"
        for path in (REPOSITORY / "nrms").rglob("*.py")
        for package, name, own in decorated.findall(path.read_text())
    ]
    assert len(classes) == 14
    assert set(classes) <= set(found.stdout.split())
