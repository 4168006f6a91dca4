"""Figures for people: each function returns a Matplotlib `Figure` of its own and touches no global
state.

They look the same everywhere, because the user's matplotlibrc, which may ask for LaTeX, is ignored.
Colours are those of Okabe and Ito, which colour-blind readers can tell apart. Kinds also differ in
line style.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator

from nrms.evaluation.ranking import GroupMean
from nrms.storage.disk import refused

logger = logging.getLogger(__name__)

Drawn = TypeVar("Drawn")
Destination = TypeVar("Destination", Path, BinaryIO)

BLUE, ORANGE, GREY, DARK = "#0072B2", "#D55E00", "#8A8A8A", "#404040"


def attempt(what: str, draw: Callable[..., Drawn], *args: Any) -> Drawn | None:
    """What `draw` gives; None and a WARNING where it fails, because a figure that cannot be drawn
    must not end a training or a night. The error of a full disk is raised.
    """
    try:
        return draw(*args)
    except Exception as error:
        if refused(error, what):
            raise
        reason = (str(error).splitlines() or [""])[0]
        logger.warning(
            "going on without %s, which could not be made: %s: %s",
            what,
            type(error).__name__,
            reason,
        )
        return None


def _default_style(draw: Callable[..., Drawn]) -> Callable[..., Drawn]:
    @functools.wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Drawn:
        with style.context("default", after_reset=True):
            return draw(*args, **kwargs)

    return styled


@_default_style
def training_curves(
    history: Mapping[str, Sequence[float]], baselines: Mapping[str, float] | None = None
) -> Figure:
    """Loss, and validation AUC with its best epoch, by epoch.

    Args:
        history: `loss` (nats) and `val_auc`, one number for each epoch from epoch 1 on; and
            `train_auc`, of a sample of the training split, if it was measured.
        baselines: the AUC of other rankings of the same impressions, by name, drawn as lines to
            compare with.
    """
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    loss, auc = figure.subplots(1, 2)
    epochs = np.arange(1, len(history["loss"]) + 1)
    values = np.asarray(history["val_auc"])
    loss.plot(epochs, history["loss"], color=BLUE, marker="o")
    (validation,) = auc.plot(epochs, values, color=ORANGE, marker="o", zorder=3)
    if "train_auc" in history:
        validation.set_label("validation")
        auc.plot(
            epochs,
            history["train_auc"],
            color=BLUE,
            linestyle="--",
            marker="s",
            label="training (a sample)",
        )
    best = int(np.argmax(values))
    auc.set_title(
        f"best {values[best]:.3f} in epoch {epochs[best]}", loc="right", fontsize=9, color=DARK
    )
    auc.plot(epochs[best], values[best], "o", markersize=13, fillstyle="none", color=ORANGE)
    for (name, value), line in zip((baselines or {}).items(), itertools.cycle(("--", ":", "-."))):
        auc.axhline(value, color=DARK, linestyle=line, linewidth=1.2, label=f"{name} {value:.3f}")
    if baselines or "train_auc" in history:
        auc.legend(frameon=False, fontsize=9)
    for axes in (loss, auc):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, len(epochs) + 0.5)
        axes.margins(y=0.12)
        axes.set_xlabel("epoch")
        _tidy(axes)
    loss.set_title("Training loss", loc="left")
    loss.set_ylabel("cross-entropy per sample (nats)")
    auc.set_title("AUC" if "train_auc" in history else "Validation AUC", loc="left")
    auc.set_ylabel("mean AUC per impression")
    return figure


@_default_style
def auc_by_group(groups: Mapping[str, GroupMean], title: str, xlabel: str) -> Figure:
    """Mean AUC of each group, with these names in this order."""
    return _auc_by(list(groups), list(groups.values()), title, xlabel)


@_default_style
def auc_by_hour(groups: Mapping[int, GroupMean]) -> Figure:
    """Mean AUC by hour of the day, 0 to 23 in UTC; an hour without impressions stays empty."""
    none = GroupMean(0.0, 0.0, 0)
    return _auc_by(
        [str(hour) for hour in range(24)],
        [groups.get(hour, none) for hour in range(24)],
        "AUC by hour",
        "hour of the day (UTC)",
    )


@_default_style
def differences(
    groups: Mapping[str, tuple[float, Sequence[float] | None]],
    title: str,
    ylabel: str,
    xlabel: str,
    counts: Sequence[int] | None = None,
) -> Figure:
    """The difference of two rankings in each group with its 95% interval.

    Args:
        groups: by name, in this order, the difference and the ends of its interval, if known.
        title: of the figure.
        ylabel: what is different.
        xlabel: what the groups are.
        counts: impressions of each group, drawn below; None draws none.
    """
    names, found = list(groups), list(groups.values())
    if counts is None:
        figure = Figure(figsize=(6.5, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.set_xticks(np.arange(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_xlabel(xlabel)
        _tidy(axes)
    else:
        figure, axes = _above_counts(names, counts, xlabel)
    values = np.array([value for value, _ in found])
    # A group of one impression has no interval, and so no whiskers.
    ends = np.array([(value, value) if span is None else span for value, span in found]).T
    _whiskers(axes, values, np.maximum(0, [values - ends[0], ends[1] - values]), 0)
    axes.set_title(title, loc="left")
    axes.set_title("whiskers: 95% interval", loc="right", fontsize=9, color=DARK)
    axes.set_ylabel(ylabel)
    return figure


@_default_style
def score_distribution(samples: Mapping[str, np.ndarray], counts: Mapping[str, int]) -> Figure:
    """Density of scores, one outline a kind, between the 0.1% and the 99.9% quantile.

    Args:
        samples: float `[any]`, finite, not empty, by kind (`clicked`, ...): its scores or a uniform
            sample of them.
        counts: by kind, how many scores there were.
    """
    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    axes = figure.subplots()
    everything = np.concatenate(list(samples.values()))
    low, high = np.quantile(everything, [0.001, 0.999])
    pad = max(1e-3, 0.02 * (high - low))
    # the fewer the scores, the smoother the outline
    bins = int(np.clip(4 * min(map(len, samples.values())) ** (1 / 3), 10, 60))
    edges = np.linspace(low - pad, high + pad, bins + 1)
    styles = ((ORANGE, "-"), (BLUE, "--"), (DARK, "-"))
    for (kind, scores), (colour, line) in zip(samples.items(), styles[: len(samples)], strict=True):
        density = np.histogram(scores, edges)[0] / (len(scores) * np.diff(edges))
        label = f"{kind} ({counts[kind]:,})"
        axes.stairs(density, edges, color=colour, linestyle=line, linewidth=1.8, label=label)
        axes.stairs(density, edges, color=colour, alpha=0.15, fill=True)
    axes.set_title("Scores", loc="left")
    axes.set_xlabel("score (logit)")
    axes.set_ylabel("density")
    axes.legend(frameon=False)
    _tidy(axes)
    return figure


@_default_style
def parallel_coordinates(
    values: Mapping[str, Sequence[Any]],
    results: Sequence[float],
    title: str,
    logarithmic: Collection[str] = (),
) -> Figure:
    """A line for each trial of a search through its values, coloured by its result. The best line
    is thick and is drawn last.

    Args:
        values: by parameter, one value for each trial. Values that are not numbers are spread
            evenly over the axis.
        results: one number for each trial, larger is better.
        title: what the result is.
        logarithmic: the parameters with a logarithmic axis; their values are positive.
    """
    figure = Figure(figsize=(max(6.5, 1.7 * (len(values) + 2)), 4.4), layout="constrained")
    axes = figure.subplots()
    columns = [_coordinates(list(column), name in logarithmic) for name, column in values.items()]
    columns.append(_coordinates(list(results), False))
    heights = np.stack([coordinates for coordinates, _ in columns], axis=1)
    low, high = min(results), max(results)
    colours = ScalarMappable(Normalize(low - (1e-3 if low == high else 0), high), "viridis_r")
    along = np.linspace(0, 1, 30)
    # level where it meets an axis, so that lines through one point can be told apart
    bend = along * along * (3 - 2 * along)
    order = np.argsort(results, kind="stable")
    for trial in order:
        x = np.concatenate([i + along for i in range(len(columns) - 1)])
        y = np.concatenate([a + (b - a) * bend for a, b in itertools.pairwise(heights[trial])])
        best = trial == order[-1]
        width, shade = (3.5, 1.0) if best else (1.3, 0.75)
        axes.plot(
            x,
            y,
            color=colours.to_rgba(results[trial]),
            linewidth=width,
            alpha=shade,
            solid_capstyle="round",
        )
    for place, (_, ticks) in enumerate(columns):
        axes.axvline(place, color=DARK, linewidth=1)
        for height, label in ticks:
            axes.plot([place - 0.02, place + 0.02], [height, height], color=DARK, linewidth=1)
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
            axes.text(
                place + 0.04, height, label, fontsize=8, color=DARK, va="center", bbox=box, zorder=4
            )
    axes.set_xticks(range(len(columns)), [*values, title])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.1, len(columns) - 1 + 0.35)
    axes.set_ylim(-0.06, 1.06)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title("Trials", loc="left")
    axes.set_title(
        f"thick: best of {len(results)}, {high:.4f}", loc="right", fontsize=9, color=DARK
    )
    figure.colorbar(colours, ax=axes, label=title, pad=0.01, aspect=30)
    return figure


@_default_style
def save(figure: Figure, file: Destination, **options: Any) -> Destination:
    """Writes the figure in the format of the path's suffix, PNG, SVG or PDF, or as PNG to an open
    file.
    """
    figure.savefig(file, **{"dpi": 150, **options})
    return file


def save_all(figures: Mapping[str, Figure | None], folder: Path) -> dict[str, Path]:
    """Writes figures as `<name>.png`. Gives the paths of those that could be drawn, by name."""
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    paths = {
        name: attempt(f"{name}.png", save, figure, folder / f"{name}.png")
        for name, figure in drawn.items()
    }
    return {name: path for name, path in paths.items() if path is not None}


def _auc_by(names: Sequence[str], groups: Sequence[GroupMean], title: str, xlabel: str) -> Figure:
    """Mean AUC with its 95% interval above, the number of impressions below."""
    means = [group.mean if group.count else np.nan for group in groups]
    errors = [1.96 * group.standard_error if group.count else np.nan for group in groups]
    figure, axes = _above_counts(names, [group.count for group in groups], xlabel)
    _whiskers(axes, np.array(means), np.array([errors, errors]), 0.5)
    axes.set_title(title, loc="left")
    axes.set_title("whiskers: 95% interval; dashed: random", loc="right", fontsize=9, color=DARK)
    axes.set_ylabel("mean AUC per impression")
    return figure


def _above_counts(names: Sequence[str], counts: Sequence[int], xlabel: str) -> tuple[Figure, Axes]:
    """A figure with the number of impressions of each group at the bottom, and the axes above."""
    # Given margins, since a report has many of these, and finding them takes a third of the time.
    margins = {"left": 0.13, "right": 0.98, "top": 0.92, "bottom": 0.12, "hspace": 0.1}
    figure = Figure(figsize=(6.5, 4.4))
    above, impressions = figure.subplots(
        2, 1, sharex=True, height_ratios=[3, 1], gridspec_kw=margins
    )
    places = np.arange(len(names))
    impressions.bar(places, counts, color=BLUE, width=0.7)
    impressions.yaxis.set_major_formatter(EngFormatter(sep=""))
    impressions.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    impressions.set_ylabel("impressions")
    impressions.set_xticks(places, names)
    impressions.set_xlabel(xlabel)
    for axes in (above, impressions):
        _tidy(axes)
    return figure, above


def _whiskers(axes: Axes, values: np.ndarray, errors: np.ndarray, line: float) -> None:
    """A point with whiskers for each value that is a number, and a dashed line to compare with.

    Args:
        axes: where to draw.
        values: one at each place of the axis, NaN for none: float `[n]`.
        errors: how far the whiskers reach below each value, and above: float `[2, n]`.
        line: the height of the line.
    """
    places = np.flatnonzero(~np.isnan(values))
    axes.axhline(line, color=GREY, linestyle="--", linewidth=1)
    axes.errorbar(
        places,
        values[places],
        errors[:, places],
        fmt="o",
        color=ORANGE,
        ecolor=ORANGE,
        elinewidth=1.2,
        capsize=3,
    )


def _coordinates(
    values: list[Any], logarithmic: bool
) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Positions of values on an axis from 0 to 1, and its ticks: at each value if there are few,
    otherwise at round numbers.
    """
    marks: Sequence[Any]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        marks, numbers = sorted(set(values)), np.asarray(values, float)
        if len(marks) > 6:
            whole = all(isinstance(value, int) for value in values)
            locator = LogLocator(numticks=6) if logarithmic else MaxNLocator(5, integer=whole)
            marks = [
                mark
                for mark in locator.tick_values(marks[0], marks[-1])
                if marks[0] <= mark <= marks[-1]
            ]
        places, labels = np.asarray(marks, float), [f"{mark:.6g}" for mark in marks]
    else:
        labels = sorted({str(value) for value in values})
        places, numbers = (
            np.arange(len(labels)),
            np.array([labels.index(str(value)) for value in values]),
        )
    if logarithmic:
        numbers, places = np.log10(numbers), np.log10(places)
    low, span = numbers.min(), np.ptp(numbers)
    heights, ticks = ((x - low) / span if span else np.full(len(x), 0.5) for x in (numbers, places))
    return heights, list(zip(ticks.tolist(), labels, strict=True))


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    axes.set_axisbelow(True)
