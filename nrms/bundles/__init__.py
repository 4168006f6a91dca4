"""The model bundle: `<models>/<version>/` and the pointer `<models>/latest.json`.

A version holds `model.keras`, its graphs for ONNX Runtime, the files of its inputs, perhaps
`prior.npy`, and `meta.json`, which lists them (see `nrms.bundles.parts`) with the sha256 of each
file. `meta.json` is written last, and a version without it does not exist. Nothing in a version
ever changes. Loading verifies every checksum before any file is parsed, since `.keras` files carry
code.
"""

from nrms.bundles.bundle import Bundle, load
from nrms.bundles.parts import FIRST_RELEASE, PRIOR
from nrms.bundles.pointer import LATEST, latest_version, point
from nrms.bundles.publish import Tries, publish

__all__ = [
    "FIRST_RELEASE",
    "LATEST",
    "PRIOR",
    "Bundle",
    "Tries",
    "latest_version",
    "load",
    "point",
    "publish",
]
