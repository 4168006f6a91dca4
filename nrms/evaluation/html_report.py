"""One HTML file that shows people how a split was scored. It loads nothing, so it can be mailed or
archived.

All text that comes from data is escaped, and isolated (`<bdi>`) so that the writing direction of a
title does not go beyond it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from matplotlib.figure import Figure

from nrms.evaluation import plots
from nrms.evaluation.comparison import interval_text
from nrms.evaluation.ranking import METRICS
from nrms.evaluation.slices import SLICES

RECENT = 10  # so many titles of a history are shown
BEST = 10  # so many candidates are shown, beside the clicked ones

_METRIC_NAMES = dict(zip(METRICS, ("AUC", "MRR", "nDCG@5", "nDCG@10"), strict=True))
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
        _pairs("AUC, 95% interval", _intervals(metrics)),
        _pairs("Run", facts.items()),
        _pairs(
            "Counts",
            (
                (_count_name(name), f"{count:,}")
                for name, count in metrics.items()
                if _is_count(count)
            ),
        ),
        _pairs(
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
        *(_plot(name, figures[name]) for name in ungrouped),
        _examples(examples),
    ]
    path.write_text(
        _PAGE.substitute(title=escape(title), body="\n".join(filter(None, sections))),
        "utf-8",
        newline="\n",
    )
    return path


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
    tiles = (_tile(metric, name, metrics) for metric, name in _METRIC_NAMES.items())
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


def _pairs(heading: str, pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return rows and f"<section><h2>{heading}</h2><dl>{rows}</dl></section>"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _count_name(name: str) -> str:
    return _COUNT_NAMES.get(name, name.replace("_", " "))


def _plot_name(attribute: str) -> str:
    """The plot that stands with the table of an attribute."""
    return f"auc_{attribute}"


def _plot(name: str, figure: Figure) -> str:
    png = plots.attempt(name, _png, figure)
    return (
        ""
        if png is None
        else f'<img alt="{escape(name.replace("_", " "))}" src="data:image/png;base64,{png}">'
    )


def _png(figure: Figure) -> str:
    file = io.BytesIO()
    # Transparent, so that the background of the page shows, light or dark.
    plots.save(figure, file, dpi=180, transparent=True)
    return base64.b64encode(file.getvalue()).decode()


def _groups(attribute: str, groups: Mapping[str, Mapping], figure: Figure | None) -> str:
    """A table with the metrics of each group, below the plot."""
    part = _GROUPS[attribute]
    head = "".join(
        f"<th>{name}</th>" for name in (part.column, *_METRIC_NAMES.values(), "impressions")
    )
    rows = ""
    for group, found in groups.items():
        means = "".join(f"<td>{found[metric]:.4f}</td>" for metric in METRICS)
        rows += (
            f"<tr><th>{escape(part.shown(group))}</th>{means}<td>{found['impressions']:,}</td></tr>"
        )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    plot = "" if figure is None else _plot(_plot_name(attribute), figure)
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


# The dark colours are for screens only, as paper is white. Plots are drawn for a white page, so on
# a dark one they are inverted and their hues turned back. The policy forbids all requests, in case
# text should slip through unescaped.
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
:root { --back: #fff; --card: #f6f7f9; --text: #1c1e21; --quiet: #62676e; --line: #dcdfe4;
  --model: #c24e00; --other: #9aa0a8; --click: #ffe3cf; }
@media screen and (prefers-color-scheme: dark) {
  :root { --back: #16181c; --card: #1f2228; --text: #e6e7e9; --quiet: #9ba1a9; --line: #363b43;
    --model: #ff9a52; --other: #6d747d; --click: #57300f; }
  img { filter: invert(1) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 76rem; background: var(--back);
  color: var(--text);
  font: .95rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1.25rem; }
h2 { font-size: 1.1rem; margin: 0 0 .6rem; }
h3 { font-size: 1rem; margin: 0; }
h4 { font-size: .8rem; margin: 0 0 .3rem; color: var(--quiet); font-weight: 600; }
.by_hour { grid-row: span 3; }
main { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 2.25rem 2.5rem;
  align-items: start; }
.wide, .tiles, .note, .warnings { grid-column: 1 / -1; }
.note { margin: 0; padding: 1rem 1.25rem; background: var(--card);
  border-left: 4px solid var(--model); }
.warnings { padding: 1rem 1.25rem; background: var(--click); border-left: 4px solid var(--model);
  print-color-adjust: exact; }
.warnings ul { margin: 0; padding-left: 1.1rem; }
.quiet { color: var(--quiet); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { font-weight: 400; text-align: left; }
td, th { padding: .2rem .75rem .2rem 0; vertical-align: top; }
td:last-child, .scroll { white-space: nowrap; }
img { display: block; width: 100%; margin-bottom: .75rem; }
.scroll { overflow-x: auto; overflow-wrap: normal; }
.scroll tr > :not(:first-child) { text-align: right; }
.scroll tr > :last-child { padding-right: 0; }
.scroll tr { border-bottom: 1px solid var(--line); }
thead th { color: var(--quiet); white-space: nowrap; }
.tiles { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 1rem;
  overflow-wrap: normal; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .9rem 1rem; }
.tiles h2 { font-size: .9rem; margin: 0; color: var(--quiet); }
.tiles strong { display: block; font-size: 2rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.tiles table { margin-top: .4rem; font-size: .85rem; }
.tiles th { white-space: nowrap; }
.tiles .bar { width: 45%; padding: 0; vertical-align: middle; }
.bar i { display: block; height: .5rem; background: var(--other); print-color-adjust: exact; }
tr:first-child .bar i { background: var(--model); }
dl { margin: 0; display: grid; grid-template-columns: fit-content(75%) 1fr; }
dt, dd { margin: 0; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--line); }
dt { color: var(--quiet); }
article { display: grid; grid-template-columns: 2fr 3fr; gap: .6rem 2.5rem; padding: 1rem 0;
  border-top: 1px solid var(--line); break-inside: avoid; }
article h3 { grid-column: 1 / -1; }
article ul { margin: 0; padding-left: 1.1rem; }
article p { margin: 0; }
article td:first-child { width: 2rem; color: var(--quiet); }
article td:last-child { width: 4.5rem; text-align: right; padding-right: 0; }
article .gap td { text-align: left; }
article table { table-layout: fixed; }
article tr:has(mark) { background: var(--click); print-color-adjust: exact; }
mark { background: var(--model); color: var(--back); border-radius: 4px; padding: 0 .4em;
  font-size: .8em; white-space: nowrap; print-color-adjust: exact; }
@media screen and (max-width: 50rem) {
  main, article { grid-template-columns: minmax(0, 1fr); }
  .by_hour { grid-row: auto; }
  .scroll { font-size: .75rem; }
  .scroll td, .scroll th { padding-right: .45rem; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
@media screen and (max-width: 30rem) { .tiles { grid-template-columns: minmax(0, 1fr); } }
@media print {
  :root { font-size: 11px; }
  body { padding: 0; }
  section, tr, img { break-inside: avoid; }
  .wide { break-inside: auto; }
}
</style>
</head>
<body>
<h1>$title</h1>
<main>
$body
</main>
</body>
</html>
""")
