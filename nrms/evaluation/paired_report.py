"""What people see of a comparison: an HTML file with tables and plots."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nrms.evaluation import plots
from nrms.evaluation.html_page import METRIC_NAMES, pairs, picture, write_page
from nrms.evaluation.paired import p_text, span_text
from nrms.evaluation.slices import SLICES

_COUNTS = {
    "impressions": "impressions",
    "measured": "impressions compared",
    "skipped_one_class": "impressions not measured: all or none clicked",
    "unlabelled": "impressions without labels",
}
_DRAWN = 24  # groups beyond so many are left to the table


def write_comparison(path: Path, metrics: Mapping[str, Any], facts: Mapping[str, str]) -> Path:
    """Writes the report and gives its path.

    Args:
        path: the file to write, `.html`; an existing one is replaced.
        metrics: as `nrms.nights.compare` writes them: the differences by metric, the counts, and
            the same of the groups of each slice as `by_hour` and so on.
        facts: what was compared, by name.

    Raises:
        OSError: the file cannot be written.
    """
    counts = ((words, f"{metrics[name]:,}") for name, words in _COUNTS.items())
    overall = {
        words: (metrics[name]["difference"], metrics[name].get("interval"))
        for name, words in METRIC_NAMES.items()
    }
    figure = plots.attempt(
        "differences", plots.differences, overall, "B less A", "difference of the means", "metric"
    )
    tiles = "".join(_tile(name, metrics) for name in METRIC_NAMES)
    sections = [
        f'<section class="tiles">{tiles}</section>',
        pairs("Compared", facts.items()),
        pairs("Counts", counts),
        "" if figure is None else f"<section>{picture('differences', figure)}</section>",
        *(_slice(name, metrics[f"by_{name}"]) for name in SLICES if f"by_{name}" in metrics),
    ]
    return write_page(path, "B against A", sections)


def _tile(metric: str, metrics: Mapping[str, Any]) -> str:
    """One metric: how much higher B's is, and how sure that is."""
    found = metrics[metric]
    rows = "".join(
        f"<tr><th>{name}</th><td>{value}</td></tr>"
        for name, value in (
            ("A", f"{found['a']:.4f}"),
            ("B", f"{found['b']:.4f}"),
            ("95% interval", span_text(found)),
            ("p", p_text(found)),
        )
    )
    return (
        f"<div><h2>{METRIC_NAMES[metric]}</h2><strong>{found['difference']:+.4f}</strong>"
        f"<table>{rows}</table></div>"
    )


def _slice(name: str, groups: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of the groups' differences, below the plot of the AUC's."""
    part = SLICES[name]
    auc, *others = METRIC_NAMES
    head = "".join(
        f"<th>{text}</th>"
        for text in (
            part.column,
            *("AUC of A", "of B", "difference", "95% interval", "p"),
            *(METRIC_NAMES[other] for other in others),
            "impressions",
        )
    )
    rows = "".join(
        f"<tr><th>{escape(part.shown(group))}</th>"
        + "".join(
            f"<td>{text}</td>"
            for text in (
                f"{found[auc]['a']:.4f}",
                f"{found[auc]['b']:.4f}",
                f"{found[auc]['difference']:+.4f}",
                span_text(found[auc]),
                p_text(found[auc]),
                *(f"{found[other]['difference']:+.4f}" for other in others),
                f"{found['impressions']:,}",
            )
        )
        + "</tr>"
        for group, found in groups.items()
    )
    plot = f"auc_difference_by_{name}"
    figure = plots.attempt(plot, _figure, name, groups) if len(groups) <= _DRAWN else None
    return (
        f'<section class="wide"><h2>By {part.title}</h2>'
        f"{'' if figure is None else picture(plot, figure)}"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        "</div></section>"
    )


def _figure(name: str, groups: Mapping[str, Mapping[str, Any]]) -> Figure:
    part = SLICES[name]
    return plots.differences(
        {
            part.shown(group): (found["auc"]["difference"], found["auc"].get("interval"))
            for group, found in groups.items()
        },
        f"B less A by {part.title}",
        "difference of the mean AUC",
        part.axis,
        [found["impressions"] for found in groups.values()],
    )
