"""One shard of impressions, as flat arrays of row numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nrms import storage
from nrms.data.articles import Articles
from nrms.data.columns import list_places, list_rows, times_us, unnest
from nrms.data.histories import Histories
from nrms.data.mistakes import is_mask
from nrms.data.parquet import open_parquet
from nrms.data.quality import DataReport
from nrms.data.schema import BEHAVIORS, Column, Families, mask_error, refuse_nulls, schema_error


@dataclass(frozen=True)
class Impressions:
    """One behaviours file: n impressions with c candidates in total, in the order of the file.

    Attributes:
        impression_id: shape `(n,)`, of the type in the file.
        user_id: shape `(n,)`, of the type in the file.
        time: datetime64[us] in UTC of shape `(n,)`, NaT where null; None when the file has no
            times.
        user: row in `Histories`, int32 of shape `(n,)`; 0 without a history row.
        offsets: int64 of shape `(n + 1,)`; the candidates of impression i are `offsets[i]:offsets[i
            + 1]`.
        candidates: row in `Articles`, int32 of shape `(c,)`; 0 for an unknown article.
        clicked: bool of shape `(c,)`; None when the file is unlabelled.
        candidate_ids: shape `(c,)`, of the type in the file.
        device: `device_type`, int32 of shape `(n,)`, 0 where null or beyond int32; None when the
            file has none.
        clicks: `article_ids_clicked` as it is in the file, a list array of shape `(n,)`; None when
            the file is unlabelled.
        page_id: `article_id`, the article on whose page the list was shown, of shape `(n,)` and the
            type in the file, null for the front page; None when the file has none.
        report: what was counted in this file.
        uri: where the file is, for messages.
        past: what had happened before the shard, for the inputs that read it (see
            `nrms.features.context`); None where nobody told.
        per_impression: named arrays of shape `(n, ...)`, which the split's inputs filled.
        per_candidate: the same with shape `(c, ...)`.
    """

    impression_id: pa.Array
    user_id: pa.Array
    time: np.ndarray | None
    user: np.ndarray
    offsets: np.ndarray
    candidates: np.ndarray
    clicked: np.ndarray | None
    candidate_ids: pa.Array
    device: np.ndarray | None
    clicks: pa.Array | None
    report: DataReport
    uri: str = ""
    page_id: pa.Array | None = None
    past: object | None = None
    per_impression: dict[str, np.ndarray] = field(default_factory=dict)
    per_candidate: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: np.ndarray) -> Impressions:
        """These impressions alone, in the order of `rows`, int `[m]`. The report is still that of
        the whole file.
        """
        offsets, places = list_places(self.offsets, rows)
        by_row = ("impression_id", "user_id", "time", "user", "device", "clicks", "page_id")
        by_candidate = ("candidates", "clicked", "candidate_ids")
        taken = {
            name: (values, rows) for name in by_row if (values := getattr(self, name)) is not None
        }
        taken |= {
            name: (values, places)
            for name in by_candidate
            if (values := getattr(self, name)) is not None
        }
        return replace(
            self,
            offsets=offsets,
            per_impression={name: array[rows] for name, array in self.per_impression.items()},
            per_candidate={name: array[places] for name, array in self.per_candidate.items()},
            **{name: values.take(index) for name, (values, index) in taken.items()},
        )


class ShardInput(Protocol):
    """What a model or a baseline reads of the moment of an impression: an array for each shard.

    Attributes:
        name: the array's name.
        per: what each row of the array belongs to.
        columns: optional columns of the behaviours files that it reads, beyond `BEHAVIORS`.
    """

    name: str
    per: Literal["impression", "candidate"]
    columns: tuple[Column, ...]

    def fill(
        self,
        columns: Mapping[str, pa.Array],
        impressions: Impressions,
        articles: Articles,
        histories: Histories,
    ) -> np.ndarray | None:
        """The array of a shard.

        Args:
            columns: those columns of `BEHAVIORS` and of all inputs that the file has, unchanged.
            impressions: the shard, with the arrays of the inputs before this one.
            articles: the article table.
            histories: the readers' last clicks.

        Returns:
            An array of shape `(n, ...)` or `(c, ...)`; None where the file lacks what it needs.

        Raises:
            SchemaError: the columns do not fit the impressions.
        """
        ...


def behaviors_contract(inputs: Sequence[ShardInput]) -> tuple[Column, ...]:
    """`BEHAVIORS` and the columns that these inputs read."""
    columns = {column.name: column for column in BEHAVIORS}
    for column in (column for each in inputs for column in each.columns):
        known = columns.setdefault(column.name, column)
        assert known == column, f"`{column.name}` must be one column. Received: {known}, {column}"
        assert known in BEHAVIORS or not column.required, f"An input requires `{column.name}`"
    return tuple(columns.values())


def read_impressions(
    info: storage.FileInfo,
    cache: Path,
    articles: Articles,
    histories: Histories,
    inputs: Sequence[ShardInput] = (),
    past: object | None = None,
) -> Impressions:
    """Read one behaviours file, turn its ids into row numbers and fill the inputs' arrays. `past`
    is what had happened before it.

    Raises:
        SchemaError: unreadable or against the contract, a null id or candidate, or columns that an
            input refuses.
    """
    families: Families = {"article": articles.ids.type, "user": histories.users.type}
    with open_parquet(info, cache, behaviors_contract(inputs), families) as reader:
        columns = reader.read()
        for name in ("impression_id", "user_id"):
            refuse_nulls(name, columns[name], info.uri)
        offsets, candidate_ids = unnest(columns["article_ids_inview"])
        _refuse_null_candidates(candidate_ids, offsets, columns["impression_id"], info.uri)
        user = histories.user_rows(columns["user_id"])
        candidates = articles.rows(candidate_ids)
        time = times_us(columns["impression_time"]) if "impression_time" in columns else None
        device, unknown_device = (
            _device(columns["device_type"]) if "device_type" in columns else (None, 0)
        )
        clicks = columns.get("article_ids_clicked")
        if clicks is not None and len(clicks) and clicks.null_count == len(clicks):
            clicks = None
        click_offsets, click_ids = unnest(pa.nulls(len(user)) if clicks is None else clicks)
        candidate_keys, click_keys = pair_keys(
            (offsets, candidate_ids), (click_offsets, click_ids), articles.ids.type
        )

    n, in_view = len(user), np.sort(candidate_keys)
    report = DataReport(
        {
            "impressions": n,
            "empty_shard": n == 0,
            "null_time": n if time is None else np.count_nonzero(np.isnat(time)),
            "user_without_history": np.count_nonzero(user == 0),
            "unknown_device": unknown_device,
            "empty_inview": np.count_nonzero(np.diff(offsets) == 0),
            "candidates": len(candidates),
            "unknown_candidate": np.count_nonzero(candidates == 0),
            "duplicate_candidate": np.count_nonzero(np.diff(in_view) == 0),
        }
    )
    if clicks is None:
        clicked = None
        report.add("unlabelled", n)
    else:
        is_clicked = pc.is_in(pa.array(candidate_keys), value_set=pa.array(click_keys))
        clicked = is_clicked.to_numpy(zero_copy_only=False)
        if len(click_ids) and not clicked.any() and is_mask(clicks, columns["article_ids_inview"]):
            raise mask_error(n, info.uri)
        place = np.searchsorted(in_view, click_keys)
        report.add("clicks", len(click_ids))
        report.add("unknown_click", np.count_nonzero(articles.rows(click_ids) == 0))
        report.add(
            "click_not_in_view", np.count_nonzero(np.append(in_view, -1)[place] != click_keys)
        )
        report.add("null_clicks", clicks.null_count)
        report.add(
            "no_click", n - np.count_nonzero(np.bincount(list_rows(offsets)[clicked], minlength=n))
        )
    impressions = Impressions(
        impression_id=columns["impression_id"],
        user_id=columns["user_id"],
        time=time,
        user=user,
        offsets=offsets,
        candidates=candidates,
        clicked=clicked,
        candidate_ids=candidate_ids,
        device=device,
        clicks=clicks,
        report=report,
        uri=info.uri,
        page_id=columns.get("article_id"),
        past=past,
    )
    _fill(impressions, inputs, columns, articles, histories)
    return impressions


def _fill(
    impressions: Impressions,
    inputs: Sequence[ShardInput],
    columns: Mapping[str, pa.Array],
    articles: Articles,
    histories: Histories,
) -> None:
    places = {
        "impression": (impressions.per_impression, len(impressions)),
        "candidate": (impressions.per_candidate, len(impressions.candidates)),
    }
    for each in inputs:
        array = each.fill(columns, impressions, articles, histories)
        if array is None:
            continue
        arrays, rows = places[each.per]
        assert array.shape[:1] == (rows,), (
            f"The array `{each.name}` must have a row for each {each.per}. "
            f"Received: shape {array.shape} for {rows:,}, in {impressions.uri}."
        )
        assert each.name not in arrays, f"Two inputs fill an array `{each.name}`."
        arrays[each.name] = array


def pair_keys(
    candidates: tuple[np.ndarray, pa.Array],
    clicks: tuple[np.ndarray, pa.Array],
    id_type: pa.DataType,
) -> tuple[np.ndarray, np.ndarray]:
    """One int64 for each pair of impression and article. A candidate and a click on it have the
    same.

    They are made of ids and not of article rows, because two unknown articles both have row 0.
    """
    ids = pa.concat_arrays([candidates[1].cast(id_type), clicks[1].cast(id_type)])
    no_article = len(ids)  # larger than all codes, so that a null click equals no candidate
    codes = pc.fill_null(ids.dictionary_encode().indices, no_article).to_numpy().astype(np.int64)
    in_view, clicked = np.split(codes, [len(candidates[1])])
    size = no_article + 1
    return list_rows(candidates[0]) * size + in_view, list_rows(clicks[0]) * size + clicked


def _device(column: pa.Array) -> tuple[np.ndarray, int]:
    values = pc.fill_null(column, 0).to_numpy()
    known = (values >= -(2**31)) & (values < 2**31)
    return np.where(known, values, 0).astype(np.int32), int(np.count_nonzero(~known))


def _refuse_null_candidates(
    ids: pa.Array, offsets: np.ndarray, impression_id: pa.Array, uri: str
) -> None:
    if ids.null_count:
        rows = np.unique(list_rows(offsets)[ids.is_null().to_numpy(zero_copy_only=False)])
        raise schema_error(
            "Column `article_ids_inview` must not hold nulls.",
            f"a null candidate in {len(rows):,} of {len(impression_id):,} rows, first in "
            f"impression {impression_id[rows[0]].as_py()!r}",
            uri,
            "Remove the null candidates.",
        )
