"""The model bundle: `<models>/<version>/` and the pointer `<models>/latest.json`.

A version holds `model.keras`, `news_encoder.onnx`, `user_encoder.onnx`, `tokenizer.json`, `prior.npy` (versions of the
first release lack it) and `meta.json`, which is written last and carries the sha256 of the others: a version without it
does not exist. Nothing in a version ever changes. Loading verifies every checksum before any file is parsed, since
`.keras` files carry code.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from nrms import storage
from nrms.errors import ArtifactError, ObjectNotFound, PreconditionFailed

FORMAT = 1
FILES = ("model.keras", "news_encoder.onnx", "user_encoder.onnx", "tokenizer.json")
PRIOR = "prior.npy"
LATEST = "latest.json"
_META = "meta.json"
_VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")


@dataclass(frozen=True)
class Bundle:
    """A verified model version.

    Attributes:
        uri: the version's folder.
        version: its name, `YYYYMMDDTHHMMSSZ-` and eight hex digits; later trainings sort later.
        sha256: of `meta.json`, and through it of everything in the version.
        meta: the content of `meta.json`.
        files: local path of each verified file, by name.
    """

    uri: str
    version: str
    sha256: str
    meta: dict
    files: dict[str, Path]

    @property
    def joins(self) -> dict[str, float]:
        """The training split's own shares, see `nrms.data.joins`. Raises ArtifactError where they are none."""
        shares = self.meta.get("joins", {})  # a model of an earlier release has none
        if not isinstance(shares, dict) or not all(isinstance(share, float) for share in shares.values()):
            raise ArtifactError(
                f"{self.uri}: meta.json must give the joins of the training split as numbers. Received: "
                f"{repr(shares)[:80]}. Train the model again."
            )
        return shares

    def number(self, name: str) -> int:
        """A whole number >= 1 of the training's configuration. Raises ArtifactError where there is none."""
        value = self.meta.get("config", {}).get(name)
        if not isinstance(value, int) or value < 1:
            raise ArtifactError(
                f"{self.uri}: meta.json must give {name} of the training's configuration. Received: {value!r}. "
                "Train the model again."
            )
        return value

    def prior(self) -> np.ndarray | None:
        """The vector of a reader of whom nothing is known, float32 `(dim,)`; None in a version that has none.

        Raises:
            ArtifactError: the file holds no such vector.
        """
        path = self.files.get(PRIOR)
        if path is None:
            return None
        try:
            vector = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            vector, received = None, str(error)
        else:
            received = f"{vector.dtype} of shape {vector.shape}"
        if vector is None or vector.dtype != np.float32 or vector.ndim != 1 or not np.isfinite(vector).all():
            raise ArtifactError(
                f"{self.uri}: {PRIOR} must hold one vector of finite float32. Received: {received}. "
                "Train the model again."
            )
        return vector


def publish(models: str, folder: Path, meta: dict, promote: bool = True) -> str:
    """Publishes the files in `folder` as a new version and moves `latest.json` to it.

    Args:
        models: the model root, a folder or `gs://` URI.
        folder: local folder with every file of `FILES`; what else it holds, such as plots, is published beside them.
        meta: what else `meta.json` shall say, JSON-ready.
        promote: False leaves `latest.json` where it is.

    Returns:
        The URI of the version.

    Raises:
        StorageError: writing failed; `latest.json` then points where it did.
    """
    now = datetime.now(UTC)
    version = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    uri = storage.join(models, version)
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    if missing := set(FILES) - set(names):
        raise ArtifactError(f"a model must have {', '.join(FILES)}. Received: none of {missing} in {folder}.")
    for name in names:
        storage.upload(folder / name, storage.join(uri, name), if_generation=storage.ABSENT)
    content = {
        "format": FORMAT,
        "version": version,
        "trained_at": now.isoformat(timespec="seconds"),
        **meta,
        "files": {name: {"sha256": _sha256(folder / name)} for name in names},
    }
    data = json.dumps(content, indent=2).encode()
    storage.write_bytes(data, storage.join(uri, _META), if_generation=storage.ABSENT)
    if promote:
        _point_latest(models, {"version": version, "sha256": hashlib.sha256(data).hexdigest()})
    return uri


def latest_version(models: str) -> str | None:
    """The version that `latest.json` of a model root names; None where there is none, as in a version's folder."""
    latest = _read_latest(models)
    return None if latest is None else latest["version"]


def load(uri: str, cache: Path, names: Sequence[str] = (*FILES, PRIOR)) -> Bundle:
    """Fetches and verifies a model.

    Args:
        uri: a version's folder, or a model root, whose `latest.json` then says which version.
        cache: local folder for what comes from a bucket.
        names: the files that are needed, `PRIOR` where the version has it; the others are neither fetched nor verified.

    Raises:
        ArtifactError: no model there, or one that is incomplete, altered or of another format.
        StorageError: the storage cannot be read.
    """
    expected = None
    latest = _read_latest(uri)
    if latest is not None:
        uri, expected = storage.join(uri, latest["version"]), latest["sha256"]
    try:
        data = storage.read_bytes(storage.join(uri, _META))
    except ObjectNotFound:
        raise _no_model(uri) from None
    sha256 = hashlib.sha256(data).hexdigest()
    if expected not in (None, sha256):
        raise _altered(storage.join(uri, _META), expected, sha256)
    meta = _json(data, storage.join(uri, _META))
    if meta.get("format") != FORMAT:
        raise ArtifactError(
            f"{uri}: a model must be of format {FORMAT}. Received: format {meta.get('format')!r}. "
            "Train it again, or install the release that wrote it."
        )
    recorded = meta.get("files")
    if not isinstance(recorded, dict) or PRIOR not in recorded:
        names = [name for name in names if name != PRIOR]
    files = {name: _fetch(storage.join(uri, name), _recorded(meta, name, uri), cache) for name in names}
    return Bundle(uri, str(meta.get("version")), sha256, meta, files)


def _no_model(uri: str) -> ArtifactError:
    if storage.exists(uri):
        return ArtifactError(f"{uri}: is no model but a file. Name the folder that it is in: {storage.parent(uri)}")
    missing = not storage.is_gcs(uri) and not Path(uri).exists()
    why = "there is no such folder" if missing else f"neither {LATEST} nor {_META} is there"
    return ArtifactError(f"{uri}: is no model: {why}. Name the --output of a training that ended.")


def _fetch(uri: str, sha256: str, cache: Path) -> Path:
    try:
        path = storage.fetch(storage.stat(uri), cache)
    except ObjectNotFound:
        raise ArtifactError(f"{uri}: is missing, the model is incomplete. Train it again.") from None
    if (found := _sha256(path)) != sha256:
        raise _altered(uri, sha256, found)
    return path


def _recorded(meta: dict, name: str, uri: str) -> str:
    try:
        return str(meta["files"][name]["sha256"])
    except (KeyError, TypeError):
        raise ArtifactError(
            f"{uri}: {_META} must give the sha256 of {name}. Received: none. Train the model again."
        ) from None


def _altered(uri: str, expected: str, found: str) -> ArtifactError:
    return ArtifactError(
        f"{uri}: was cut short or altered: sha256 must be {expected[:12]}…. Received: {found[:12]}…. "
        "Nothing of it was loaded; use another version or train again."
    )


def _json(data: bytes, uri: str) -> dict:
    try:
        content = json.loads(data)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ArtifactError(f"{uri}: must be a JSON object. Received: {data[:40]!r}. Restore it or train again.")
    return content


def _read_latest(models: str) -> dict | None:
    """The pointer; None where there is none."""
    stored = _stored_latest(models)
    return None if stored is None else _pointer(stored[0], models)


def _stored_latest(models: str) -> tuple[bytes, str] | None:
    """What lies where the pointer belongs, and its generation; None where nothing does."""
    while True:
        try:
            info = storage.stat(storage.join(models, LATEST))
            return storage.read_bytes(info), info.generation
        except ObjectNotFound:
            return None
        except PreconditionFailed:
            continue  # it moved in between


def _pointer(data: bytes, models: str) -> dict:
    uri = storage.join(models, LATEST)
    pointer = _json(data, uri)
    if not _VERSION.fullmatch(str(pointer.get("version"))) or "sha256" not in pointer:
        raise ArtifactError(f"{uri}: must name a version and its sha256. Received: {pointer}. Train again.")
    return pointer


def _point_latest(models: str, pointer: dict) -> None:
    """Moves `latest.json` by compare-and-swap, never from a later version to an earlier one."""
    while True:
        stored = _stored_latest(models)
        try:
            current = "" if stored is None else _pointer(stored[0], models)["version"]
        except ArtifactError:
            current = ""  # a damaged pointer shall not stop a training from being published
        if current >= pointer["version"]:
            return
        try:
            storage.write_bytes(
                json.dumps(pointer).encode(),
                storage.join(models, LATEST),
                if_generation=storage.ABSENT if stored is None else stored[1],
            )
            return
        except PreconditionFailed:
            # Another training moved it first: look again. Each round, one of them gets through.
            continue


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
