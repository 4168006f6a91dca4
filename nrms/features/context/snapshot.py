"""A state as a file, which a bundle holds and a night starts from.

It is one Parquet file of one row, in which each column is a list: `articles` and `readers` are ids;
`<table>.key`, `<table>.start`, ... and `<table>.sum<N>` are tables (see `table.Table`); `pending.*`
is what is not counted yet. Its footer holds the checksum of the file (see `nrms.storage.parquet`),
the time of the state and the rules by which events were counted.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from nrms.errors import ArtifactError
from nrms.features.context.events import Events
from nrms.features.context.state import KINDS, NO_ID, Delays, State
from nrms.features.context.table import Table, unpaired
from nrms.features.context.vocabulary import Vocabulary
from nrms.storage import parquet

FILE = "context.parquet"
FORMAT = 1
_ABOUT = b"nrms.context"
_PENDING = ("time", "reader", "page", "offsets", "article", "clicked", "exposed")
_COLUMNS = ("key", "start", "last", "whole", "value")


def save(state: State, path: Path) -> None:
    """Writes a state into a local file, without the ids that nothing is known of any more."""
    state = state.compact()
    columns: dict[str, pa.Array] = {"articles": state.articles.ids, "readers": state.readers.ids}
    for kind in KINDS:
        table = state.tables[kind.name]
        columns |= {f"{kind.name}.{name}": pa.array(getattr(table, name)) for name in _COLUMNS}
        columns |= {
            f"{kind.name}.sum{number}": pa.array(row) for number, row in enumerate(table.sums)
        }
    pending = state.pending
    for name in (*_PENDING, "articles", "readers"):
        values = getattr(pending, name)
        columns[f"pending.{name}"] = values if isinstance(values, pa.Array) else pa.array(values)
    row = pa.table(
        {
            name: pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
            for name, values in columns.items()
        }
    )
    about = {
        "format": FORMAT,
        "rules": asdict(state.rules),
        "time": state.time,
        "newest": state.newest,
        "position": state.position,
    }
    # Hardly a number occurs twice, and nobody looks for one.
    options = {"use_dictionary": False, "write_statistics": False}
    parquet.write(path, row, {_ABOUT: json.dumps(about).encode()}, **options)


def load(path: Path, where: str) -> State:
    """Reads a state that `save` wrote; `where` is what messages call it.

    Raises:
        ArtifactError: the file is damaged, or was not written by this release.
    """
    try:
        about = json.loads((parquet.metadata(path) or {})[_ABOUT])
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']}, not {FORMAT}")
        row = parquet.read(path)
        columns = {name: row[name].combine_chunks().flatten() for name in row.column_names}
        articles, readers = Vocabulary(columns["articles"]), Vocabulary(columns["readers"])
        tables = {}
        for kind in KINDS:
            parts = [columns[f"{kind.name}.{name}"].to_numpy(False) for name in _COLUMNS]
            sums = [
                columns[f"{kind.name}.sum{number}"].to_numpy(False)
                for number in range(len(kind.sums))
            ]
            stacked = np.array(sums, float).reshape(len(sums), len(parts[0]))
            tables[kind.name] = Table(parts[0], stacked, *parts[1:])
        arrays = {name: columns[f"pending.{name}"].to_numpy(False) for name in _PENDING}
        ids = {name: columns[f"pending.{name}"] for name in ("articles", "readers")}
        pending = Events(**arrays, **ids)
        state = State(
            Delays(**about["rules"]),
            int(about["time"]),
            articles,
            readers,
            tables,
            pending,
            max(NO_ID, int(about["newest"])),
            int(about["position"]),
        )
        _check(state)
    except (KeyError, TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        received = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"{where}: must be a state of the moment that this release wrote. Received: "
            f"{type(error).__name__}: {received}. Make it again with jobs.context, or train again."
        ) from error
    return state


def _check(state: State) -> None:
    """Raises ValueError where a table does not fit the ids. Its checksum says that a file is as it
    was written, not who wrote it.
    """
    sizes = {"articles": len(state.articles), "readers": len(state.readers)}
    for kind in KINDS:
        table = state.tables[kind.name]
        parts = zip(reversed(kind.keys), reversed(unpaired(table.key)), strict=False)
        fits = bool((np.diff(table.key) > 0).all() and (table.key >= 0).all())
        fits &= all(bool((code < sizes[of]).all()) for of, code in parts)
        fits &= len(kind.keys) == 2 or bool((table.key >> 32 == 0).all())
        fits &= bool(np.isfinite(table.sums).all() and (table.sums >= 0).all())
        fits &= bool((table.start <= table.last).all() and (table.value < sizes["articles"]).all())
        if not fits or len({len(getattr(table, name)) for name in _COLUMNS}) != 1:
            raise ValueError(f"the table {kind.name} does not fit its ids")
    pending = state.pending
    lengths = np.diff(pending.offsets)
    if not (
        len(pending.offsets) == len(pending.time) + 1 == len(pending.reader) + 1
        and len(pending.page) == len(pending.exposed) == len(pending.time)
        and pending.offsets[0] == 0
        and (lengths >= 0).all()
        and pending.offsets[-1] == len(pending.article) == len(pending.clicked)
        and ((pending.article >= 0) & (pending.article < len(pending.articles))).all()
        and ((pending.page >= -1) & (pending.page < len(pending.articles))).all()
        and ((pending.reader >= 0) & (pending.reader < len(pending.readers))).all()
    ):
        raise ValueError("what is pending does not fit its ids")
