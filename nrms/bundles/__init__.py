"""The model bundle: `<models>/<version>/` and the pointer `<models>/latest.json`.

A version holds `model.keras`, `news_encoder.onnx`, `user_encoder.onnx`, `tokenizer.json`,
`prior.npy` (versions of the first release lack it) and `meta.json`, which is written last and
carries the sha256 of the others: a version without it does not exist. Nothing in a version ever
changes. Loading verifies every checksum before any file is parsed, since `.keras` files carry code.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten

import numpy as np

from nrms import storage
from nrms.errors import ArtifactError, ObjectNotFound, PreconditionFailed
from nrms.storage import commit

logger = logging.getLogger(__name__)

FORMAT = 1
FILES = ("model.keras", "news_encoder.onnx", "user_encoder.onnx", "tokenizer.json")
PRIOR = "prior.npy"
LATEST = "latest.json"
_META = "meta.json"
# of a size in the configuration: what is larger is damage, and would take all memory
_LARGEST = 100_000
_VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")


@dataclass(frozen=True)
class Bundle:
    """A verified model version.

    Attributes:
        uri: the version's folder.
        version: its name, `YYYYMMDDTHHMMSSZ-` and eight hex digits: when it was published, by that
            machine's clock.
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
        """The training split's own shares, see `nrms.data.joins`. Raises ArtifactError where they
        are none.
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

    def number(self, name: str) -> int:
        """A whole number of the training's configuration, from 1 to 100,000. Raises ArtifactError:
        there is none.
        """
        value = self.meta.get("config", {}).get(name)
        if type(value) is not int or not 1 <= value <= _LARGEST:
            raise ArtifactError(
                f"{self.uri}: meta.json must give {name} of the training's "
                f"configuration, a whole number from 1 to {_LARGEST:,}. "
                f"Received: {shorten(repr(value), 60)}. Train the model again."
            )
        return value

    def prior(self) -> np.ndarray | None:
        """The vector of a reader of whom nothing is known, float32 `(dim,)`; None in a version that
        has none.

        Raises:
            ArtifactError: the file holds no such vector.
        """
        path = self.files.get(PRIOR)
        if path is None:
            return None
        try:
            with path.open("rb") as file:  # not np.load, which opens archives as well
                vector = np.lib.format.read_array(file, allow_pickle=False)
        except (OSError, ValueError, EOFError, MemoryError) as error:
            vector, received = None, str(error)
        else:
            received = f"{vector.dtype} of shape {vector.shape}"
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


class Tries:
    """What earlier tries of the same training began to publish: a file for each version, until one
    of them is done.

    Args:
        folder: where these files are, a folder or `gs://` URI.
        key: the same for each try of a training, and of no other.
    """

    def __init__(self, folder: str, key: str) -> None:
        self._marks = storage.join(folder, f"{key}.")
        self._own: list[str] = []
        marks = [info.uri.removeprefix(self._marks) for info in storage.list_files(folder)]
        self._before = [name for name in marks if _VERSION.fullmatch(name)]

    def begin(self, version: str) -> None:
        """Before anything of the version is written."""
        self._own.append(version)
        storage.write_bytes(b"", self._marks + version)

    def finished(self, models: str, meta: dict) -> tuple[str, str] | None:
        """A version that an earlier try wrote whole, of the same metrics; its name, and the sha256
        of `meta.json`.
        """
        ours = json.loads(json.dumps(meta))
        for version in self._before:
            try:
                data = storage.read_bytes(storage.join(models, version, _META))
            except ObjectNotFound:
                continue
            stored = commit.read_json(data) or {}
            if all(stored.get(name) == ours.get(name) for name in ("data", "metrics", "epochs")):
                return version, hashlib.sha256(data).hexdigest()
        return None

    def end(self, models: str) -> None:
        """When the training is done: removes what earlier tries left unfinished, and its own
        traces.
        """
        for name in [*self._before, *self._own]:
            if not storage.exists(storage.join(models, name, _META)):
                commit.remove(storage.join(models, name))
            storage.delete(self._marks + name)


def publish(
    models: str, folder: Path, meta: dict, promote: bool = True, tries: Tries | None = None
) -> str:
    """Publishes the files in `folder` as a new version and moves `latest.json` to it.

    Args:
        models: the model root, a folder or `gs://` URI.
        folder: local folder with every file of `FILES`; what else it holds, such as plots, is
            published beside them.
        meta: what else `meta.json` shall say, JSON-ready.
        promote: False leaves `latest.json` where it is.
        tries: those before this one, looked up when the training began: what they finished is not
            written again.

    Returns:
        The URI of the version.

    Raises:
        StorageError: writing failed; `latest.json` then points where it did.
    """
    earlier = tries.finished(models, meta) if tries else None
    version, sha256 = earlier or _write_version(models, folder, meta, tries)
    if promote:
        point(models, version, sha256)
    return storage.join(models, version)


def point(models: str, version: str, sha256: str) -> None:
    """Moves `latest.json` to a version, unless it has moved to another since, whose training began
    to point later.

    A pointer's number is one more than that of the pointer that it set out to replace: so whoever
    sees another's pointer comes after it, whatever clocks say. Of two that set out from the same
    one, the version that sorts later stays.

    Args:
        models: the model root.
        version: name of the version.
        sha256: of its `meta.json`.

    Raises:
        StorageError: writing failed; `latest.json` then points where it did.
    """
    uri = storage.join(models, LATEST)
    for folder in (models, storage.join(models, version)):
        storage.tidy(folder)
    ours = None
    while True:
        stored = _stored_latest(models)
        try:
            current = None if stored is None else _pointer(stored[0], models)
        except ArtifactError:
            current = None  # a damaged pointer shall not stop a training from being published
        number, name = (0, "") if current is None else (_number(current), current["version"])
        ours = ours or (number + 1, version)
        if ours <= (number, name) or name == version:
            return
        if name > version:
            logger.warning(
                "%s: moves from %s to %s, whose name is of an earlier time: the clock of one of "
                "two trainings is wrong",
                uri,
                name,
                version,
            )
        pointer = {"version": version, "sha256": sha256, "number": ours[0]}
        try:
            generation = storage.ABSENT if stored is None else stored[1]
            storage.write_bytes(json.dumps(pointer).encode(), uri, if_generation=generation)
            return
        except PreconditionFailed:
            continue  # another training moved it first: look again


def latest_version(models: str) -> str | None:
    """The version that `latest.json` of a model root names; None where there is none, as in a
    version's folder.
    """
    latest = _read_latest(models)
    return None if latest is None else latest["version"]


def load(uri: str, cache: Path, names: Sequence[str] = (*FILES, PRIOR)) -> Bundle:
    """Fetches and verifies a model.

    Args:
        uri: a version's folder, or a model root, whose `latest.json` then says which version.
        cache: local folder for what comes from a bucket.
        names: the files that are needed, `PRIOR` where the version has it; the others are neither
            fetched nor verified.

    Raises:
        ArtifactError: no model there, or one that is incomplete, altered or of another format.
        StorageError: the storage cannot be read.
    """
    uri = storage.normal(uri)
    expected = None
    latest = _read_latest(uri)
    if latest is not None:
        uri, expected = storage.join(uri, latest["version"]), latest["sha256"]
    try:
        data = storage.read_bytes(storage.join(uri, _META))
    except ObjectNotFound:
        raise _no_model(uri) from None
    sha256 = hashlib.sha256(data).hexdigest()
    if expected is not None and expected != sha256:
        raise _altered(storage.join(uri, _META), expected, sha256)
    meta = _json(data, storage.join(uri, _META))
    if meta.get("format") != FORMAT:
        raise ArtifactError(
            f"{uri}: a model must be of format {FORMAT}. Received: format {meta.get('format')!r}. "
            "Train it again, or install the release that wrote it."
        )
    for name in ("config", "data", "metrics"):
        if not isinstance(meta.get(name, {}), dict):
            raise ArtifactError(
                f"{uri}: {_META} must give {name} as an object. Received: "
                f"{shorten(repr(meta[name]), 60)}. Train the model again."
            )
    recorded = meta.get("files")
    if not isinstance(recorded, dict) or PRIOR not in recorded:
        names = [name for name in names if name != PRIOR]
    files = {
        name: _fetch(storage.join(uri, name), _recorded(meta, name, uri), cache) for name in names
    }
    bundle = Bundle(uri, str(meta.get("version")), sha256, meta, files)
    for name in ("history_size", "title_size"):
        if name in meta.get("config", {}):
            bundle.number(name)
    return bundle


def _no_model(uri: str) -> ArtifactError:
    if storage.exists(uri):
        return ArtifactError(
            f"{uri}: is no model but a file. Name the folder that it is in: {storage.parent(uri)}"
        )
    names = {
        path.partition("/")[0] for path in storage.list_paths(uri, _META) if path.count("/") == 1
    }
    if versions := sorted(filter(_VERSION.fullmatch, names)):
        return ArtifactError(
            f"{uri}: has no {LATEST}: none of its {len(versions)} versions was promoted. Name one "
            f"of them, such as {storage.join(uri, versions[-1])}, or train with --promote always."
        )
    missing = not storage.is_gcs(uri) and not Path(uri).exists()
    why = "there is no such folder" if missing else f"neither {LATEST} nor {_META} is there"
    return ArtifactError(f"{uri}: is no model: {why}. Name the --output of a training that ended.")


def _fetch(uri: str, sha256: str, cache: Path) -> Path:
    try:
        path = storage.fetch(storage.stat(uri), cache)
    except ObjectNotFound:
        raise ArtifactError(
            f"{uri}: is missing, the model is incomplete. Train it again."
        ) from None
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
        f"{uri}: was cut short or altered: sha256 must be {expected[:12]}…. Received: "
        f"{found[:12]}…. Nothing of it was loaded; use another version or train again."
    )


def _json(data: bytes, uri: str) -> dict:
    content = commit.read_json(data)
    if content is None:
        raise ArtifactError(
            f"{uri}: must be a JSON object. Received: {data[:40]!r}. Restore it or train again."
        )
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
        raise ArtifactError(
            f"{uri}: must name a version and its sha256. Received: {pointer}. Train again."
        )
    return pointer


def _number(pointer: dict) -> int:
    """How many pointers came before it, as far as they said so: the first release's did not."""
    number = pointer.get("number")
    return number if type(number) is int else 0


def _write_version(models: str, folder: Path, meta: dict, tries: Tries | None) -> tuple[str, str]:
    """Writes a version; its name, and the sha256 of its `meta.json`."""
    now = datetime.now(UTC)
    version = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    uri = storage.join(models, version)
    names = [
        path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()
    ]
    if missing := set(FILES) - set(names):
        raise ArtifactError(
            f"a model must have {', '.join(FILES)}. Received: none of {missing} in {folder}."
        )
    content = {
        "format": FORMAT,
        "version": version,
        "trained_at": now.isoformat(timespec="seconds"),
        **meta,
        "files": {name: {"sha256": _sha256(folder / name)} for name in names},
    }
    data = json.dumps(content, indent=2).encode()
    if tries is not None:
        tries.begin(version)
    commit.write_once(uri, {name: folder / name for name in names}, _META, data)
    return version, hashlib.sha256(data).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
