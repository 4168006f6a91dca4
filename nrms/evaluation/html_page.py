"""The page of every report: an HTML file that loads nothing, so it can be mailed or archived."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template

from matplotlib.figure import Figure

from nrms.evaluation import plots
from nrms.evaluation.ranking import METRICS

METRIC_NAMES = dict(zip(METRICS, ("AUC", "MRR", "nDCG@5", "nDCG@10"), strict=True))


def write_page(path: Path, title: str, sections: Iterable[str]) -> Path:
    """Writes a page and gives its path.

    Args:
        path: the file to write, `.html`; an existing one is replaced.
        title: heading of the page, not escaped yet.
        sections: parts of the page, in HTML; empty ones are left out.

    Raises:
        OSError: the file cannot be written.
    """
    body = "\n".join(filter(None, sections))
    path.write_text(_PAGE.substitute(title=escape(title), body=body), "utf-8", newline="\n")
    return path


def pairs(heading: str, pairs: Iterable[tuple[str, str]]) -> str:
    """A section of names and values; empty without any."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return rows and f"<section><h2>{heading}</h2><dl>{rows}</dl></section>"


def picture(name: str, figure: Figure) -> str:
    """A figure inside the page, which a screen reader names in words; empty where it cannot be
    drawn.
    """
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
.wide > img { max-width: 40rem; }
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
