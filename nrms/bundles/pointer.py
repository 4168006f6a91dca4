"""`latest.json` of a model root, which names the version to use."""

from __future__ import annotations

import json
import logging
import re

from nrms import storage
from nrms.errors import ArtifactError, ObjectNotFound, PreconditionFailed
from nrms.storage import commit

logger = logging.getLogger(__name__)

LATEST = "latest.json"
VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")


def point(models: str, version: str, sha256: str) -> None:
    """Moves `latest.json` to a version, unless another training that began to point later has moved
    it in the meantime.

    Each pointer has a number, one more than that of the pointer that it found at first and set out
    to replace. So a training that finds another's pointer comes after it, whatever clocks say. Of
    two that found the same pointer, the one stays whose version sorts later.

    Args:
        models: the model root.
        version: the version's name.
        sha256: checksum of its `meta.json`.

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
            current = None  # a damaged pointer must not stop a training from publishing
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
            continue  # another training moved it first, so it is read again


def latest_version(models: str) -> str | None:
    """The version that `latest.json` of a model root names; None where there is no such file, as in
    a version's folder.
    """
    latest = read_latest(models)
    return None if latest is None else latest["version"]


def read_latest(models: str) -> dict | None:
    """The content of `latest.json`; None where there is no such file. Raises ArtifactError: it is
    damaged.
    """
    stored = _stored_latest(models)
    return None if stored is None else _pointer(stored[0], models)


def _stored_latest(models: str) -> tuple[bytes, str] | None:
    """The bytes of `latest.json`, and their generation; None where there is no such file."""
    while True:
        try:
            info = storage.stat(storage.join(models, LATEST))
            return storage.read_bytes(info), info.generation
        except ObjectNotFound:
            return None
        except PreconditionFailed:
            continue  # it was replaced between the two calls


def _pointer(data: bytes, models: str) -> dict:
    uri = storage.join(models, LATEST)
    pointer = read_json(data, uri)
    if not VERSION.fullmatch(str(pointer.get("version"))) or "sha256" not in pointer:
        raise ArtifactError(
            f"{uri}: must name a version and its sha256. Received: {pointer}. Train again."
        )
    return pointer


def _number(pointer: dict) -> int:
    """The pointer's number; 0 for one of the first release, which wrote none."""
    number = pointer.get("number")
    return number if type(number) is int else 0


def read_json(data: bytes, uri: str) -> dict:
    """A JSON object from a bundle's file. Raises ArtifactError for other content."""
    content = commit.read_json(data)
    if content is None:
        raise ArtifactError(
            f"{uri}: must be a JSON object. Received: {data[:40]!r}. Restore it or train again."
        )
    return content
