"""The one way a folder becomes valid, local or in a bucket.

    <folder>/manifest.json    at first the plan alone, which says all that the content depends on;
                              at the end the files as well
    <folder>/...              the files
    <folder>/_SUCCESS         empty; written last: without it, nothing here is valid

Three rules keep the folder whole, even if a run is killed or two runs write at the same time. The
plan is claimed by compare-and-swap before anything else. Each part names the plan that it was made
for, so a part of another plan counts as missing. Each write names the generation that it replaces,
so of two runs at the same time one writes a part and the other reads it.

`Found.is_complete` does not rely on `_SUCCESS` alone: it compares the files with the manifest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nrms import storage
from nrms.errors import ConfigError, ObjectNotFound, PreconditionFailed, StorageError
from nrms.storage import parquet
from nrms.storage.checksum import crc32c_of
from nrms.storage.scratch import scratch_folder

logger = logging.getLogger(__name__)

MANIFEST, SUCCESS = "manifest.json", "_SUCCESS"

Plan = dict[str, Any]
Value = TypeVar("Value")

_PLAN = b"nrms.plan"  # key of the Parquet metadata
_SHOWN = 3  # a message names so many differences


def fingerprint(info: storage.FileInfo, cache: Path) -> Plan:
    """Size and crc32c of a file, by which a plan tells whether its input is still the same.

    Args:
        info: the file.
        cache: local folder for what comes from a bucket.
    """
    return {"size": info.size, "crc32c": info.crc32c or crc32c_of(storage.fetch(info, cache))}


def read_json(data: bytes) -> dict[str, Any] | None:
    """The JSON object in these bytes; None where they hold anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # RecursionError: brackets in brackets in ...
        return None
    return value if isinstance(value, dict) else None


def write_once(uri: str, files: Mapping[str, Path], last: str, content: bytes) -> None:
    """Writes a folder that no other run writes and that never changes afterwards.

    Args:
        uri: the folder; nothing is there.
        files: local files by their path below it.
        last: name of the file that makes the folder valid, written after all others.
        content: the content of that file.

    Raises:
        StorageError: writing failed; the folder is not valid.
    """
    for name, path in files.items():
        storage.upload(path, storage.join(uri, name), if_generation=storage.ABSENT)
    storage.write_bytes(content, storage.join(uri, last), if_generation=storage.ABSENT)


def remove(uri: str) -> None:
    """Deletes a folder with all that is in it. Raises StorageError."""
    for info in storage.list_files(uri):
        storage.delete(info.uri)
    if not storage.is_gcs(uri):
        # hidden files that a killed process left, and the folders
        shutil.rmtree(uri, ignore_errors=True)


@dataclass(frozen=True)
class Found:
    """What lies in a folder.

    Attributes:
        uri: the folder.
        manifest: the content of the manifest; empty where it is missing or cannot be read.
        generation: that of the manifest.
        success: the file `_SUCCESS`; None where the folder is not finished.
        files: all other files, by their path below the folder.
    """

    uri: str
    manifest: Plan
    generation: str
    success: storage.FileInfo | None
    files: dict[str, storage.FileInfo]

    def is_occupied(self, belongs: Callable[[str], bool]) -> bool:
        """Whether the folder holds anything of an output: what makes it valid, or a file that
        `belongs` picks by path.
        """
        return (
            self.generation != storage.ABSENT
            or self.success is not None
            or any(map(belongs, self.files))
        )

    def is_complete(self, verify: bool = False) -> bool:
        """Whether the folder was finished and its files are as they were written. Files that are
        not are logged.

        Sizes are always compared. Checksums are compared in a bucket, where they cost nothing; of
        local files only those that changed after the folder was finished, or all with `verify`.
        """
        if self.success is None:
            return False
        entries = self.manifest.get("files")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            entries = [{"name": MANIFEST}]
        damaged = [str(entry.get("name")) for entry in entries if not self._is_whole(entry, verify)]
        if damaged:
            logger.warning(
                "%s: missing or damaged: %s%s",
                self.uri,
                ", ".join(damaged[:_SHOWN]),
                f" and {len(damaged) - _SHOWN:,} others" if damaged[_SHOWN:] else "",
            )
        return not damaged

    def _is_whole(self, entry: Plan, verify: bool) -> bool:
        info = self.files.get(str(entry.get("name", "")))
        if info is None or info.size != entry.get("size"):
            return False
        if info.crc32c is not None:
            return info.crc32c == entry.get("crc32c")
        done = None if self.success is None else self.success.changed_ns
        if (
            not verify
            and info.changed_ns is not None
            and done is not None
            and info.changed_ns < done
        ):
            return True
        try:
            return crc32c_of(Path(info.uri)) == entry.get("crc32c")
        except OSError:
            return False


def look(uri: str) -> Found:
    """What lies in a folder. Raises StorageError: it cannot be read."""
    # The files are listed before the manifest is read, so that a file which another run writes in
    # between is not taken for something else.
    below = storage.join(uri, "x")[:-1]
    files = {info.uri.removeprefix(below): info for info in storage.list_files(uri)}
    success = files.pop(SUCCESS, None)
    files.pop(MANIFEST, None)
    return Found(uri, *_manifest(uri), success, files)


def clear(found: Found, belongs: Callable[[str], bool]) -> None:
    """Deletes what makes the folder valid, then its manifest, then the files that `belongs` picks
    by path.

    Raises ConfigError where one of them lies behind a linked folder: that may belong to others.
    """
    names = list(filter(belongs, found.files))
    _refuse_links(found.uri, names)
    for name in (SUCCESS, MANIFEST, *names):
        storage.delete(storage.join(found.uri, name))


def _refuse_links(uri: str, names: Iterable[str]) -> None:
    for name in names:
        path = Path(uri, name)
        if not storage.is_gcs(uri) and path.parent.resolve() != (Path(uri).resolve() / name).parent:
            raise ConfigError(
                "--output must hold no link to a folder that would be cleared. "
                f"Received: {path.parent}, which leads to {path.parent.resolve()}. "
                "Remove the link, or choose another --output."
            )


def taken(content: str, uri: str, why: str) -> ConfigError:
    """The error of an output that must not be replaced. It says what the output may hold, where it
    is, and in a relative clause why it must not be replaced.
    """
    return ConfigError(
        f"--output must be empty or hold {content}. Received: {uri}, {why}. Choose another "
        "--output or pass --overwrite to replace what is there."
    )


def refuse_foreign(
    found: Found, plan: str, belongs: Callable[[str], bool], content: str, other: str
) -> None:
    """Raises ConfigError where a folder holds files of anything else, such as a data set or a
    model, which must neither be replaced nor mixed with what an output writes.

    Args:
        found: what lies in the folder.
        plan: the key under which a manifest of such an output holds its plan.
        belongs: see `Output`.
        content: what the folder may hold, for the message.
        other: what its files are not.
    """
    foreign = [name for name in found.files if "/" not in name and not belongs(name)]
    if foreign and plan not in found.manifest:
        raise ConfigError(
            f"--output must be empty or hold {content}. Received: {found.uri}, which holds "
            f"{foreign[0]} and {len(foreign) - 1} other files that are {other}. Choose another "
            "--output."
        )


class Output:
    """One folder that this run makes.

    Args:
        uri: the folder.
        plan: what the manifest says from the start, JSON-ready. Equal plans mean equal files.
        belongs: whether a file, by its path below the folder, is one that such an output could have
            written.
        content: what the folder may hold already, for messages.

    Attributes:
        files: the manifest's entry of each file written or found whole, by name.
        written: names of the parts that this run wrote.
        key: of folder and plan, hex digits: the same for every run that would write the same.
    """

    def __init__(self, uri: str, plan: Plan, belongs: Callable[[str], bool], content: str) -> None:
        self.uri = uri
        self.files: dict[str, Plan] = {}
        self.written: list[str] = []
        self.key = _sha256([uri, plan])
        self._plan = plan
        self._belongs = belongs
        self._content = content
        self._generation = storage.ABSENT  # of the manifest

    def is_planned(self, found: Found) -> bool:
        """Whether what lies in the folder was made for this plan, or is being made for it."""
        return self._is_plan_of(found.manifest)

    def taken(self, found: Found) -> ConfigError:
        """The error of a folder that holds something else."""
        return taken(self._content, found.uri, self._difference(found.manifest))

    def claim(
        self, wanted: Iterable[str] = (), overwrite: bool = False, verify: bool = False
    ) -> bool:
        """Claims the folder for this plan, unless it is complete for this plan already.

        Args:
            wanted: names of files that it must hold to be complete, beside those that its manifest
                lists.
            overwrite: take a folder that holds the files of another plan.
            verify: read what is complete and compare its checksums.

        Returns:
            Whether there is anything to do.

        Raises:
            ConfigError: the folder holds something else.
            StorageError: it could not be read or written.
        """
        while True:
            found = look(self.uri)
            _refuse_links(self.uri, filter(self._belongs, found.files))
            self._generation = found.generation
            planned = self.is_planned(found)
            if (
                planned
                and found.is_complete(verify)
                and set(wanted) <= {f["name"] for f in found.manifest["files"]}
            ):
                return False
            if not planned and found.is_occupied(self._belongs) and not overwrite:
                raise self.taken(found)
            if found.success is not None:
                # Deleted before the claim, so that a run which ends in between leaves nothing that
                # looks whole.
                storage.delete(self._at(SUCCESS))
            if planned:
                return True
            try:
                self._write_manifest(self._plan)
                return True
            except PreconditionFailed:
                continue  # another run claimed it first, so look again

    def part(
        self, name: str, take: Callable[[Path], Value | None], make: Callable[[Path], Value]
    ) -> Value:
        """A Parquet file of this output: the existing one if it is whole and of this plan, or else
        a new one.

        Args:
            name: the file's name.
            take: gives the value of a local file; None where the file turns out to be wrong.
            make: writes a local file, by `write_part`, and gives its value. Called once at most.

        Raises:
            StorageError: reading or writing failed, or a run with another plan took the folder.
        """
        made: list[Value] = []
        with scratch_folder() as scratch:
            path = scratch / name
            while True:
                try:
                    info = storage.stat(self._at(name))
                    found = storage.fetch(info, scratch)
                except ObjectNotFound:
                    generation = storage.ABSENT
                except PreconditionFailed:
                    continue  # replaced in between
                else:
                    value = self._taken(found, take)
                    if value is not None:
                        self._note(name, found)
                        return value
                    self._check_ours()
                    generation = info.generation
                if not made:
                    made.append(make(path))
                try:
                    storage.upload(path, self._at(name), if_generation=generation)
                except PreconditionFailed:
                    continue  # another run wrote it, so take that one
                self._note(name, path)
                self.written.append(name)
                return made[0]

    def _taken(self, path: Path, take: Callable[[Path], Value | None]) -> Value | None:
        if (parquet.metadata(path) or {}).get(_PLAN) != self._stamp:
            return None
        try:
            return take(path)
        except StorageError:
            return None

    def write_part(self, path: Path, tables: Any, **options: Any) -> int:
        """Writes a local Parquet file that names the plan; see `parquet.write`."""
        return parquet.write(path, tables, {_PLAN: self._stamp}, **options)

    def add(self, path: Path) -> None:
        """Writes a local file into the folder under its own name, and replaces one of that name.

        Raises:
            StorageError: writing failed, or a run with another plan took the folder.
        """
        uri = self._at(path.name)
        while True:
            # The generation is read before the check. A run that takes the folder after the check
            # changes the file after that too, and then the upload fails.
            try:
                generation = storage.stat(uri).generation
            except ObjectNotFound:
                generation = storage.ABSENT
            self._check_ours()
            try:
                storage.upload(path, uri, if_generation=generation)
                break
            except PreconditionFailed:
                continue
        self._note(path.name, path)

    def finish(self, about: Mapping[str, Any]) -> None:
        """Writes the manifest and `_SUCCESS`, after removing what an earlier plan left.

        Args:
            about: what the manifest shall say beside the plan and the files, JSON-ready.

        Raises:
            StorageError: writing failed, or a run with another plan took the folder.
        """
        self._check_ours()
        left = [
            name for name in look(self.uri).files if self._belongs(name) and name not in self.files
        ]
        _refuse_links(self.uri, left)
        for name in left:
            storage.delete(self._at(name))
        while True:
            try:
                self._write_manifest({**self._plan, **about, "files": list(self.files.values())})
                break
            except PreconditionFailed:
                # Another run of the same plan wrote the manifest; its files are as good as ours.
                self._check_ours()
        storage.write_bytes(b"", self._at(SUCCESS))

    @property
    def _stamp(self) -> bytes:
        return _sha256(self._plan).encode()

    def _at(self, name: str) -> str:
        return storage.join(self.uri, name)

    def _write_manifest(self, manifest: Plan) -> None:
        data = json.dumps(manifest, indent=1).encode() + b"\n"
        self._generation = storage.write_bytes(
            data, self._at(MANIFEST), if_generation=self._generation
        ).generation

    def _check_ours(self) -> None:
        manifest, self._generation = _manifest(self.uri)
        if not self._is_plan_of(manifest):
            raise StorageError(
                f"{self.uri}: is now written by a run of other data or another model, "
                f"{self._difference(manifest)}. This run stopped; give each its own --output."
            )

    def _is_plan_of(self, manifest: Plan) -> bool:
        return self._plan.items() <= manifest.items()

    def _difference(self, manifest: Plan) -> str:
        if not self._plan.keys() <= manifest.keys():
            return "which holds other files"
        return f"whose {difference(self._plan, {name: manifest[name] for name in self._plan})}"

    def _note(self, name: str, path: Path) -> None:
        rows = {"rows": parquet.rows(path)} if name.endswith(".parquet") else {}
        self.files[name] = {
            "name": name,
            **rows,
            "size": path.stat().st_size,
            "crc32c": crc32c_of(path),
        }


def difference(plan: Plan, other: Plan) -> str:
    """The fields in which two plans differ, in words that can follow "whose": first the value of
    `other`, then that of `plan`.
    """
    fields, inputs = [], []
    for path, wanted, found in _differences(plan, other, ()):
        if any(isinstance(value, dict) and "crc32c" in value for value in (wanted, found)):
            inputs.append(path[-1])
        else:
            fields.append((".".join(path[1:] or path), found, wanted))
    if len(fields) > 1:  # a hash tells a person less than the other fields
        fields = [field for field in fields if not field[0].endswith("sha256")] or fields
    parts = [
        f"{name} is {_shown(found)} and not {_shown(wanted)}"
        for name, found, wanted in fields[:_SHOWN]
    ]
    if inputs:
        parts.append(
            "input differs in "
            f"{', '.join(inputs[:_SHOWN])}{' and others' if inputs[_SHOWN:] else ''}"
        )
    return ", ".join(parts)


def _differences(
    plan: Any, other: Any, path: tuple[str, ...]
) -> Iterable[tuple[tuple[str, ...], Any, Any]]:
    plan, other = _by_name(plan), _by_name(other)
    if isinstance(plan, dict) and isinstance(other, dict) and "crc32c" not in plan:
        for name in [*plan, *(other.keys() - plan.keys())]:
            yield from _differences(plan.get(name), other.get(name), (*path, name))
    elif plan != other:
        yield path, plan, other


def _manifest(uri: str) -> tuple[Plan, str]:
    """The manifest of a folder and its generation; an empty one and ABSENT where it is missing."""
    while True:
        try:
            info = storage.stat(storage.join(uri, MANIFEST))
            return read_json(storage.read_bytes(info)) or {}, info.generation
        except ObjectNotFound:
            return {}, storage.ABSENT
        except PreconditionFailed:
            continue  # replaced in between


def _by_name(value: Any) -> Any:
    """A list of files as a dictionary; any other value as it is."""
    if isinstance(value, list) and all(
        isinstance(file, dict) and isinstance(file.get("name"), str) for file in value
    ):
        return {file["name"]: file for file in value}
    return value


def _shown(value: Any) -> str:
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
