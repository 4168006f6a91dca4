"""The folder that a night's scoring writes: one part for each behaviours file, and what makes the parts valid.

    <output>/part-NNNNN.parquet    predictions of the behaviours file number N, in the order of their names
    <output>/metrics.json, report.html, predictions.zip, ...
    <output>/manifest.json         first the plan alone: what is scored, by which model; at the end all about the files
    <output>/_SUCCESS              empty; written last

Whatever is killed or runs twice, three rules keep the folder whole. The plan is claimed by compare-and-swap before
anything else. Each part names the plan it was made for, so a part of any other plan counts as missing. Each write
names the generation it replaces, so of two runs at once one writes a part and the other reads it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrms import storage
from nrms.data.columns import unnest
from nrms.data.impressions import Impressions
from nrms.data.sources.writer import MANIFEST, SUCCESS, checksum
from nrms.errors import ConfigError, ObjectNotFound, PreconditionFailed, StorageError
from nrms.scoring import predictions
from nrms.storage.scratch import scratch_folder

_OURS = re.compile(r"part-\d{5,}\.parquet|metrics\.json|report\.html|predictions?\.zip")
_PLAN = b"nrms.plan"  # key of the Parquet metadata


class Predictions:
    """One output folder, local or in a bucket.

    Args:
        uri: the folder.
        plan: all that the predictions depend on, JSON-ready. Equal plans mean equal predictions.

    Attributes:
        files: name, rows, size and crc32c of each file written or found whole, by name.
        written: names of the parts that this run wrote.
        key: of folder and plan, hex digits: the same for every run that would write the same.
    """

    def __init__(self, uri: str, plan: dict[str, Any]) -> None:
        self.uri = uri
        self.files: dict[str, dict[str, Any]] = {}
        self.written: list[str] = []
        self._plan = plan
        self._key = _sha256(plan).encode()
        self.key = _sha256([uri, plan])
        self._generation = storage.ABSENT  # of the manifest

    def claim(self, wanted: Iterable[str], overwrite: bool) -> bool:
        """Makes the folder this plan's, unless it is and is complete.

        Args:
            wanted: names of files that it must hold to be complete, beside the parts.
            overwrite: take a folder that holds the predictions of another plan.

        Returns:
            Whether there is anything to do.

        Raises:
            ConfigError: the folder holds something else.
            StorageError: it could not be read or written.
        """
        while True:
            # In this order: what another run of this plan writes in between must not look like something else.
            finished = storage.exists(self._at(SUCCESS))
            occupied = [info.uri for info in self._listed()]
            manifest, self._generation = self._manifest()
            if "plan" not in manifest:
                self._refuse_foreign()
            if manifest.get("plan") == self._plan:
                if finished and set(wanted) <= {file["name"] for file in manifest.get("files", [])}:
                    return False
                break
            if not overwrite and (occupied or self._generation != storage.ABSENT):
                raise ConfigError(
                    "--output must be empty or hold predictions of the same data by the same model. Received: "
                    f"{self.uri}, {_difference(self._plan, manifest.get('plan'))}. Choose another --output, or pass "
                    "--overwrite to replace what is there."
                )
            try:
                self._write_manifest({"plan": self._plan})
                break
            except PreconditionFailed:
                continue  # another run claimed it first: look again
        if finished:
            storage.delete(self._at(SUCCESS))
        return True

    def part(self, number: int, impressions: Impressions, score: Callable[[], np.ndarray]) -> np.ndarray:
        """The scores of a shard: those of its part if it is there whole; else `score()`, written as its part.

        Args:
            number: of the shard.
            impressions: the shard, `c` candidates in all.
            score: gives float32 `[c]`.

        Returns:
            Float32 `[c]`, exactly as the part in the folder has them.

        Raises:
            StorageError: reading or writing failed, or a run with another plan took the folder.
        """
        name = f"part-{number:05}.parquet"
        scores = None
        with scratch_folder() as folder:
            while True:
                try:
                    info = storage.stat(self._at(name))
                    path = storage.fetch(info, folder)
                except ObjectNotFound:
                    generation = storage.ABSENT
                except PreconditionFailed:
                    continue  # replaced in between
                else:
                    found = self._read(path, impressions)
                    if found is not None:
                        self._note(name, path, len(impressions))
                        return found
                    self._check_ours()
                    generation = info.generation
                if scores is None:
                    scores = score()
                    path = folder / name
                    self._write(path, impressions, scores)
                    written = pq.read_metadata(path).num_rows
                    assert written == len(impressions), f"{name}: {len(impressions)} rows in, {written} rows out"
                try:
                    storage.upload(folder / name, self._at(name), if_generation=generation)
                except PreconditionFailed:
                    continue  # another run wrote it: take what is there
                self._note(name, folder / name, len(impressions))
                self.written.append(name)
                return scores

    def add(self, path: Path) -> None:
        """Writes a local file into the folder, under its own name, in place of any that is there.

        Raises:
            StorageError: writing failed, or a run with another plan took the folder.
        """
        uri = self._at(path.name)
        while True:
            # In this order: whoever takes the folder after the check also changes the file after the look at it.
            generation = storage.stat(uri).generation if storage.exists(uri) else storage.ABSENT
            self._check_ours()
            try:
                storage.upload(path, uri, if_generation=generation)
                break
            except PreconditionFailed:
                continue
        self._note(path.name, path)

    def finish(self, about: dict[str, Any]) -> None:
        """Writes the manifest and `_SUCCESS`, after removing what an earlier plan left.

        Args:
            about: what the manifest shall say beside the plan and the files, JSON-ready.

        Raises:
            StorageError: writing failed, or a run with another plan took the folder.
        """
        self._check_ours()
        for info in self._listed():
            if storage.name(info.uri) not in self.files:
                storage.delete(info.uri)
        while True:
            try:
                self._write_manifest({"plan": self._plan, "files": list(self.files.values()), **about})
                break
            except PreconditionFailed:
                self._check_ours()  # it is another run of the same plan, with files as whole as ours
        storage.write_bytes(b"", self._at(SUCCESS))

    def _at(self, name: str) -> str:
        return storage.join(self.uri, name)

    def _listed(self) -> list[storage.FileInfo]:
        """The files of the folder that this class could have written, but for manifest and `_SUCCESS`."""
        return [info for info in self._direct() if _OURS.fullmatch(storage.name(info.uri))]

    def _direct(self) -> list[storage.FileInfo]:
        """The files of the folder, without those of folders in it."""
        return [info for info in storage.list_files(self.uri) if info.uri == self._at(storage.name(info.uri))]

    def _refuse_foreign(self) -> None:
        """Data sets, models and whatever else lies directly in the folder: nothing to be replaced, or mixed with."""
        names = [storage.name(info.uri) for info in self._direct()]
        foreign = [name for name in names if not _OURS.fullmatch(name) and name not in (MANIFEST, SUCCESS)]
        if foreign:
            raise ConfigError(
                f"--output must be empty or hold predictions. Received: {self.uri}, which holds {foreign[0]} and "
                f"{len(foreign) - 1} other files that are none. Choose another --output."
            )

    def _manifest(self) -> tuple[dict, str]:
        """The manifest and its generation; nothing and ABSENT where there is none."""
        uri = self._at(MANIFEST)
        while True:
            try:
                info = storage.stat(uri)
                manifest = json.loads(storage.read_bytes(info))
            except ObjectNotFound:
                return {}, storage.ABSENT
            except PreconditionFailed:
                continue  # replaced in between
            except ValueError:
                return {}, info.generation
            return manifest if isinstance(manifest, dict) else {}, info.generation

    def _write_manifest(self, manifest: dict[str, Any]) -> None:
        data = json.dumps(manifest, indent=1).encode() + b"\n"
        self._generation = storage.write_bytes(data, self._at(MANIFEST), if_generation=self._generation).generation

    def _check_ours(self) -> None:
        manifest, self._generation = self._manifest()
        if manifest.get("plan") != self._plan:
            raise StorageError(
                f"{self.uri}: is now written by a run of other data or another model: "
                f"{_difference(self._plan, manifest.get('plan'))}. This run stopped; give each its own --output."
            )

    def _note(self, name: str, path: Path, rows: int | None = None) -> None:
        counted = {} if rows is None else {"rows": rows}
        self.files[name] = {"name": name, **counted, "size": path.stat().st_size, "crc32c": checksum(path)}

    def _write(self, path: Path, impressions: Impressions, scores: np.ndarray) -> None:
        table = predictions(impressions, scores).replace_schema_metadata({_PLAN: self._key})
        pq.write_table(table, path, compression="zstd")

    def _read(self, path: Path, impressions: Impressions) -> np.ndarray | None:
        """The scores of a part of this plan; None if it is of another or damaged."""
        try:
            with pq.ParquetFile(path) as file:
                if (file.schema_arrow.metadata or {}).get(_PLAN) != self._key:
                    return None
                columns = file.read(columns=["impression_id", "scores"])
            offsets, scores = unnest(columns["scores"].combine_chunks())
        except (pa.ArrowException, OSError, KeyError):
            return None
        same = np.array_equal(offsets, impressions.offsets) and columns["impression_id"].combine_chunks().equals(
            impressions.impression_id
        )
        return scores.to_numpy(zero_copy_only=False) if same else None


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _difference(plan: dict[str, Any], other: object) -> str:
    """What a person needs to see of two plans that differ."""
    if not isinstance(other, dict):
        return "which holds other files"
    for name, value in plan.items():
        if name != "inputs" and other.get(name) != value:
            return f"which is of {name} {other.get(name)!r} and not {value!r}"
    inputs, others = ({file["name"]: file for file in p.get("inputs", [])} for p in (plan, other))
    changed = [name for name in sorted({*inputs, *others}) if inputs.get(name) != others.get(name)]
    return f"whose input differs in {', '.join(changed[:3])}{' and others' if changed[3:] else ''}"
