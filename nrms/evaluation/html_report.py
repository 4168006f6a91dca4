"""One HTML file that shows people how a split was scored.

All text that comes from data is escaped, and isolated (`<bdi>`) so that the writing direction of a
title does not go beyond it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nrms.evaluation.beyond_accuracy import CUTOFFS, TITLES
from nrms.evaluation.comparison import interval_text
from nrms.evaluation.html_page import METRIC_NAMES, pairs, picture, write_page
from nrms.evaluation.ranking import METRICS
from nrms.evaluation.slices import SLICES

RECENT = 10  # so many titles of a history are shown
BEST = 10  # so many candidates are shown, beside the clicked ones

_COUNT_NAMES = {
    "unlabelled": "impressions without labels",
    "skipped_one_class": "impressions not measured: all or none clicked",
    "unknown_articles": "candidates of unknown articles",
    "empty_histories": "impressions of users without history",
}
_GROUPS = {f"by_{name}": part for name, part in SLICES.items()}


@dataclass(frozen=True)
class Example:
    """An impression to be shown.

    Attributes:
        impression_id: as it came in.
        user_id: as it came in.
        time: in UTC; None or NaT when unknown.
        history: titles of the clicks that the model saw, oldest first; None for an unknown article.
        candidates: title (None for an unknown article), score, and whether it was clicked (None:
            unlabelled), best first.
    """

    impression_id: object
    user_id: object
    time: np.datetime64 | None
    history: Sequence[str | None]
    candidates: Sequence[tuple[str | None, float, bool | None]]


def write_report(
    path: Path,
    title: str,
    metrics: Mapping,
    figures: Mapping[str, Figure],
    examples: Sequence[Example],
    facts: Mapping[str, str],
) -> Path:
    """Writes the report and gives its path.

    Args:
        path: the file to write, `.html`; an existing one is replaced.
        title: heading of the page.
        metrics: as `Evaluation.metrics()` gives them. Further whole numbers are shown among the
            counts.
        figures: as `Evaluation.figures()` gives them. `auc_by_hour` is shown with the table
            `by_hour`, and so on. A screen reader says the name in words.
        examples: impressions to show, in this order.
        facts: model version, data, date, library versions and the like, by name.

    Raises:
        OSError: the file cannot be written.
    """
    grouped = [attribute for attribute in _GROUPS if metrics.get(attribute)]
    ungrouped = [name for name in figures if name not in map(_plot_name, grouped)]
    sections = [
        _warnings(metrics.get("warnings", [])),
        _headline(metrics),
        pairs("AUC, 95% interval", _intervals(metrics)),
        _beyond_accuracy(metrics),
        pairs("Run", facts.items()),
        pairs(
            "Counts",
            (
                (_count_name(name), f"{count:,}")
                for name, count in metrics.items()
                if _is_count(count)
            ),
        ),
        pairs(
            "Unknown",
            (
                (name.replace("_", " "), f"{share:.1%}")
                for name, share in metrics.get("joins", {}).items()
            ),
        ),
        *(
            _groups(attribute, metrics[attribute], figures.get(_plot_name(attribute)))
            for attribute in grouped
        ),
        *(picture(name, figures[name]) for name in ungrouped),
        _examples(examples),
    ]
    return write_page(path, title, sections)


def _warnings(texts: Sequence[str]) -> str:
    """A banner with the warnings that the figures below it may be wrong."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return (
        items
        and f'<section class="warnings" role="alert"><h2>Warnings</h2><ul>{items}</ul></section>'
    )


def _headline(metrics: Mapping) -> str:
    if "auc" not in metrics:
        why = (
            "These impressions are unlabelled: without clicks, nothing can be said about how well "
            "they are ranked."
            if 0 < metrics.get("unlabelled", 0) == metrics.get("impressions")
            else "No labelled impression has a clicked candidate beside one that was not: there is "
            "nothing to measure."
        )
        return f'<p class="note">{why}</p>'
    tiles = (_tile(metric, name, metrics) for metric, name in METRIC_NAMES.items())
    return f'<section class="tiles">{"".join(tiles)}</section>'


def _tile(metric: str, name: str, metrics: Mapping) -> str:
    """One metric of the model, beside that of each baseline."""
    rankings = {"this model": metrics, **metrics.get("baselines", {})}
    rows = "".join(
        f"<tr><th>{escape(ranking)}</th><td>{found[metric]:.4f}</td>"
        f'<td class="bar"><i style="width:{100 * found[metric]:.1f}%"></i></td></tr>'
        for ranking, found in rankings.items()
        if metric in found
    )
    return f"<div><h2>{name}</h2><strong>{metrics[metric]:.4f}</strong><table>{rows}</table></div>"


def _intervals(metrics: Mapping) -> Iterable[tuple[str, str]]:
    """The interval of each ranking."""
    rankings = {"this model": metrics, **metrics.get("baselines", {})}
    return (
        (ranking, interval_text(found))
        for ranking, found in rankings.items()
        if "auc_interval" in found
    )


def _beyond_accuracy(metrics: Mapping) -> str:
    """A table of what accuracy does not say, the model beside each baseline; empty without any."""
    rankings = {"this model": metrics, **metrics.get("baselines", {})}
    names = {f"{name}@{k}": f"{title}, top {k}" for name, title in TITLES.items() for k in CUTOFFS}
    rankings = {name: found for name, found in rankings.items() if names.keys() & found.keys()}
    rows = ""
    for metric, title in names.items():
        if any(metric in found for found in rankings.values()):
            cells = "".join(
                f"<td>{found[metric]:.4f}</td>" if metric in found else "<td></td>"
                for found in rankings.values()
            )
            rows += f"<tr><th>{title}</th>{cells}</tr>"
    head = "".join(f"<th>{escape(name)}</th>" for name in ("metric", *rankings))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return rows and (
        f'<section class="wide"><h2>Beyond accuracy</h2><div class="scroll">{table}</div></section>'
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _count_name(name: str) -> str:
    return _COUNT_NAMES.get(name, name.replace("_", " "))


def _plot_name(attribute: str) -> str:
    """The plot that stands with the table of an attribute."""
    return f"auc_{attribute}"


def _groups(attribute: str, groups: Mapping[str, Mapping], figure: Figure | None) -> str:
    """A table with the metrics of each group, below the plot."""
    part = _GROUPS[attribute]
    head = "".join(
        f"<th>{name}</th>" for name in (part.column, *METRIC_NAMES.values(), "impressions")
    )
    rows = ""
    for group, found in groups.items():
        means = "".join(f"<td>{found[metric]:.4f}</td>" for metric in METRICS)
        rows += (
            f"<tr><th>{escape(part.shown(group))}</th>{means}<td>{found['impressions']:,}</td></tr>"
        )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    plot = "" if figure is None else picture(_plot_name(attribute), figure)
    return (
        f'<section class="{attribute}"><h2>By {part.title}</h2>{plot}'
        f'<div class="scroll">{table}</div></section>'
    )


def _examples(examples: Sequence[Example]) -> str:
    shown = "".join(map(_example, examples))
    return shown and f'<section class="wide"><h2>Examples</h2>{shown}</section>'


def _example(example: Example) -> str:
    when = ""
    if example.time is not None and not np.isnat(example.time):
        when = f" · {str(np.datetime_as_string(example.time, 'm')).replace('T', ' ')} UTC"
    clicks = [place for place, (_, _, clicked) in enumerate(example.candidates, 1) if clicked]
    where = (
        f" · click ranked {' and '.join(map(str, clicks))} of {len(example.candidates)}"
        if clicks
        else ""
    )
    return (
        f"<article><h3>Impression {_text(example.impression_id)} · "
        f"user {_text(example.user_id)}{when}{where}</h3>"
        f"<div><h4>Read before, latest first</h4>{_history(example.history)}</div>"
        f"<div><h4>Candidates, best score first</h4>{_candidates(example.candidates)}</div>"
        "</article>"
    )


def _history(titles: Sequence[str | None]) -> str:
    if not titles:
        return '<p class="quiet">nothing</p>'
    recent = "".join(f"<li>{_title(title)}</li>" for title in titles[: -RECENT - 1 : -1])
    older = len(titles) - RECENT
    return f"<ul>{recent}</ul>" + (f'<p class="quiet">and {older:,} older</p>' if older > 0 else "")


def _candidates(candidates: Sequence[tuple[str | None, float, bool | None]]) -> str:
    if not candidates:
        return '<p class="quiet">none</p>'
    rows, before = [], 0
    for place, (title, score, clicked) in enumerate(candidates, 1):
        if place <= BEST or clicked:
            rows += _gap(place - before - 1)
            mark = " <mark>clicked</mark>" if clicked else ""
            rows.append(
                f"<tr><td>{place}</td><td>{_title(title)}{mark}</td><td>{score:.3f}</td></tr>"
            )
            before = place
    return f"<table>{''.join(rows + _gap(len(candidates) - before))}</table>"


def _gap(left_out: int) -> list[str]:
    return (
        [f'<tr class="quiet gap"><td>⋮</td><td colspan="2">{left_out:,} more</td></tr>']
        if left_out
        else []
    )


def _title(title: str | None) -> str:
    if title is None or not title.strip():
        return f'<span class="quiet">{"unknown article" if title is None else "no title"}</span>'
    return _text(title)


def _text(value: object) -> str:
    return f"<bdi>{escape(str(value))}</bdi>"
