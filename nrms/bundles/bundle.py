"""A version of a model, fetched and verified."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

import numpy as np

from nrms import __version__, storage
from nrms.bundles.parts import LOADED, META, PRIOR, Parts
from nrms.bundles.pointer import LATEST, VERSION, read_json, read_latest
from nrms.errors import ArtifactError, ObjectNotFound

logger = logging.getLogger(__name__)

_RELEASE = re.compile(r"\d{1,4}(\.\d{1,4}){1,2}(\.?[a-z]{1,4}\d{1,4})?")


@dataclass(frozen=True)
class Bundle:
    """A verified model version.

    Attributes:
        uri: the version's folder.
        version: its name, `YYYYMMDDTHHMMSSZ-` and eight hex digits. The time is that of publishing,
            by the clock of the machine that did it.
        sha256: checksum of `meta.json`, and through it of everything in the version.
        meta: the content of `meta.json`.
        files: local path of each verified file, by name.
        parts: the parts that the version lists.
    """

    uri: str
    version: str
    sha256: str
    meta: dict
    files: dict[str, Path]
    parts: Parts

    @property
    def joins(self) -> dict[str, float]:
        """The shares of the training split, see `nrms.data.joins`; empty in a model of an earlier
        release. Raises ArtifactError for other values than shares.
        """
        shares = self.meta.get("joins", {})  # a model of an earlier release has none
        if not isinstance(shares, dict) or not all(
            isinstance(share, float) and 0 <= share <= 1 for share in shares.values()
        ):
            raise ArtifactError(
                f"{self.uri}: meta.json must give the joins of the training split, each from 0 to "
                f"1. Received: {repr(shares)[:80]}. Train the model again."
            )
        return shares

    def prior(self) -> np.ndarray | None:
        """The vector of a reader without a history, float32 `(dim,)`; None in a version without
        one.

        Raises:
            ArtifactError: the file does not hold such a vector.
        """
        path = self.files.get(PRIOR)
        if path is None:
            return None
        vector: np.ndarray | None = None
        try:
            with path.open("rb") as file:  # not np.load, which opens archives as well
                vector = np.lib.format.read_array(file, allow_pickle=False)
            received = f"{vector.dtype} of shape {vector.shape}"
        except (OSError, ValueError, EOFError, MemoryError) as error:
            received = str(error)
        if (
            vector is None
            or vector.dtype != np.float32
            or vector.ndim != 1
            or not np.isfinite(vector).all()
        ):
            raise ArtifactError(
                f"{self.uri}: {PRIOR} must hold one vector of finite float32. Received: "
                f"{received}. Train the model again."
            )
        return vector


def load(uri: str, cache: Path, runtimes: Collection[str] = ("keras", "onnx")) -> Bundle:
    """Fetches and verifies a model.

    Args:
        uri: a version's folder, or a model root, whose `latest.json` then names the version.
        cache: local folder for files from a bucket.
        runtimes: those that shall execute it. Files that only other runtimes need are neither
            fetched nor verified.

    Raises:
        ArtifactError: there is no model, or it is incomplete, altered or of another format.
        StorageError: the storage cannot be read.
    """
    uri = storage.normal(uri)
    expected = None
    latest = read_latest(uri)
    if latest is not None:
        uri, expected = storage.join(uri, latest["version"]), latest["sha256"]
    try:
        data = storage.read_bytes(storage.join(uri, META))
    except ObjectNotFound:
        raise _no_model(uri) from None
    sha256 = hashlib.sha256(data).hexdigest()
    if expected is not None and expected != sha256:
        raise _altered(storage.join(uri, META), expected, sha256)
    meta = read_json(data, storage.join(uri, META))
    if meta.get("format") not in LOADED:
        release = str(meta.get("release"))
        named = f"nrms {release}" if _RELEASE.fullmatch(release) else "the release that wrote it"
        raise ArtifactError(
            f"{uri}: a model must be of format {' or '.join(map(str, LOADED))} for nrms "
            f"{__version__}. Received: format {shorten(repr(meta.get('format')), 60)}. "
            f"Install {named}, or train the model again."
        )
    for name in ("config", "data", "metrics"):
        if not isinstance(meta.get(name, {}), dict):
            raise ArtifactError(
                f"{uri}: {META} must give {name} as an object. Received: "
                f"{shorten(repr(meta[name]), 60)}. Train the model again."
            )
    parts = Parts.of(meta, uri)
    files = {
        name: _fetch(storage.join(uri, name), _recorded(meta, name, uri), cache)
        for name in parts.files(runtimes)
    }
    if parts.lacking:
        logger.warning(
            "%s: is of an earlier release. Filled in: %s. Train again to have them.",
            uri,
            "; ".join(parts.lacking),
        )
    return Bundle(uri, str(meta.get("version")), sha256, meta, files, parts)


def _no_model(uri: str) -> ArtifactError:
    if storage.exists(uri):
        return ArtifactError(
            f"{uri}: is no model but a file. Name the folder that it is in: {storage.parent(uri)}"
        )
    names = {
        path.partition("/")[0] for path in storage.list_paths(uri, META) if path.count("/") == 1
    }
    if versions := sorted(filter(VERSION.fullmatch, names)):
        return ArtifactError(
            f"{uri}: has no {LATEST}: none of its {len(versions)} versions was promoted. Name one "
            f"of them, such as {storage.join(uri, versions[-1])}, or train with --promote always."
        )
    missing = not storage.is_gcs(uri) and not Path(uri).exists()
    why = "there is no such folder" if missing else f"neither {LATEST} nor {META} is there"
    return ArtifactError(f"{uri}: is no model: {why}. Name the --output of a training that ended.")


def _fetch(uri: str, sha256: str, cache: Path) -> Path:
    try:
        path = storage.fetch(storage.stat(uri), cache)
    except ObjectNotFound:
        raise ArtifactError(
            f"{uri}: is missing, the model is incomplete. Train it again."
        ) from None
    if (found := sha256_of(path)) != sha256:
        raise _altered(uri, sha256, found)
    return path


def _recorded(meta: dict, name: str, uri: str) -> str:
    try:
        return str(meta["files"][name]["sha256"])
    except (KeyError, TypeError):
        raise ArtifactError(
            f"{uri}: {META} must give the sha256 of {name}. Received: none. Train the model again."
        ) from None


def _altered(uri: str, expected: str, found: str) -> ArtifactError:
    return ArtifactError(
        f"{uri}: was cut short or altered: sha256 must be {expected[:12]}…. Received: "
        f"{found[:12]}…. Nothing of it was loaded; use another version or train again."
    )


def sha256_of(path: Path) -> str:
    """The checksum of a local file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
