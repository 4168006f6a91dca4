"""Publishes the files of a training as a version."""

from __future__ import annotations

import hashlib
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path

from nrms import __version__, storage
from nrms.bundles.bundle import sha256_of
from nrms.bundles.parts import FORMAT, META, Parts
from nrms.bundles.pointer import VERSION, point
from nrms.errors import ArtifactError, ObjectNotFound
from nrms.storage import commit


class Tries:
    """The versions that this and earlier tries of a training began to publish. Each is marked by an
    empty file, until one of the tries is done.

    Args:
        folder: where the marks are, a folder or `gs://` URI.
        key: identifies the training; all its tries have the same.
    """

    def __init__(self, folder: str, key: str) -> None:
        self._marks = storage.join(folder, f"{key}.")
        self._own: list[str] = []
        marks = [info.uri.removeprefix(self._marks) for info in storage.list_files(folder)]
        self._before = [name for name in marks if VERSION.fullmatch(name)]

    def begin(self, version: str) -> None:
        """Marks a version, before anything of it is written."""
        self._own.append(version)
        storage.write_bytes(b"", self._marks + version)

    def finished(self, models: str, meta: dict) -> tuple[str, str] | None:
        """The version that an earlier try wrote whole, with the data, metrics and epochs of `meta`:
        its name, and the sha256 of its `meta.json`. None where there is no such version.
        """
        ours = json.loads(json.dumps(meta))
        for version in self._before:
            try:
                data = storage.read_bytes(storage.join(models, version, META))
            except ObjectNotFound:
                continue
            stored = commit.read_json(data) or {}
            if all(stored.get(name) == ours.get(name) for name in ("data", "metrics", "epochs")):
                return version, hashlib.sha256(data).hexdigest()
        return None

    def end(self, models: str) -> None:
        """Removes, when the training is done, the unfinished versions of all tries, and all
        marks.
        """
        for name in [*self._before, *self._own]:
            if not storage.exists(storage.join(models, name, META)):
                commit.remove(storage.join(models, name))
            storage.delete(self._marks + name)


def publish(
    models: str, folder: Path, meta: dict, promote: bool = True, tries: Tries | None = None
) -> str:
    """Publishes the files in `folder` as a new version and moves `latest.json` to it.

    Args:
        models: the model root, a folder or `gs://` URI.
        folder: local folder with `model.keras` and all files of the parts that `meta` lists. Its
            other files, such as plots, are published beside them.
        meta: the content of `meta.json`, JSON-ready. Format, release, version, time and checksums
            are added to it.
        promote: False leaves `latest.json` as it is.
        tries: the tries of this training; a version that an earlier one finished is not written
            again.

    Returns:
        The URI of the version.

    Raises:
        ArtifactError: `folder` lacks a file.
        StorageError: writing failed; `latest.json` then points where it did.
    """
    earlier = tries.finished(models, meta) if tries else None
    version, sha256 = earlier or _write_version(models, folder, meta, tries)
    if promote:
        point(models, version, sha256)
    return storage.join(models, version)


def _write_version(models: str, folder: Path, meta: dict, tries: Tries | None) -> tuple[str, str]:
    """Writes a version. Gives its name, and the sha256 of its `meta.json`."""
    now = datetime.now(UTC)
    version = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    uri = storage.join(models, version)
    names = [
        path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()
    ]
    needed = set(Parts.of(meta, str(folder)).files(("keras", "onnx")))
    if missing := needed - set(names):
        raise ArtifactError(
            f"a model must have {', '.join(sorted(needed))}. Received: {folder}, without "
            f"{', '.join(sorted(missing))}."
        )
    content = {
        "format": FORMAT,
        "release": __version__,
        "version": version,
        "trained_at": now.isoformat(timespec="seconds"),
        **meta,
        "files": {name: {"sha256": sha256_of(folder / name)} for name in names},
    }
    data = json.dumps(content, indent=2).encode()
    if tries is not None:
        tries.begin(version)
    commit.write_once(uri, {name: folder / name for name in names}, META, data)
    return version, hashlib.sha256(data).hexdigest()
