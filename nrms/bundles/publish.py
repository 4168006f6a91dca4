"""How a training's files become a version."""

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
        self._before = [name for name in marks if VERSION.fullmatch(name)]

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
                data = storage.read_bytes(storage.join(models, version, META))
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
            if not storage.exists(storage.join(models, name, META)):
                commit.remove(storage.join(models, name))
            storage.delete(self._marks + name)


def publish(
    models: str, folder: Path, meta: dict, promote: bool = True, tries: Tries | None = None
) -> str:
    """Publishes the files in `folder` as a new version and moves `latest.json` to it.

    Args:
        models: the model root, a folder or `gs://` URI.
        folder: local folder with `model.keras` and every file of the parts that `meta` lists; what
            else it holds, such as plots, is published beside them.
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


def _write_version(models: str, folder: Path, meta: dict, tries: Tries | None) -> tuple[str, str]:
    """Writes a version; its name, and the sha256 of its `meta.json`."""
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
