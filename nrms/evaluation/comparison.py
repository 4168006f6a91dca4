"""Whether a ranking is better than chance and than popularity, in words and as a decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHANCE = 0.5  # AUC of an arbitrary order


def auc_text(metrics: Mapping[str, Any]) -> str:
    """An AUC with its interval where that is known, as `0.7271 (95% interval 0.7190 to 0.7350)`."""
    if "auc_interval" not in metrics:
        return f"{metrics['auc']:.4f}"
    return f"{metrics['auc']:.4f} (95% interval {interval_text(metrics)})"


def interval_text(metrics: Mapping[str, Any]) -> str:
    """The interval of an AUC, as `0.7190 to 0.7350`; empty where it is not known."""
    return " to ".join(f"{end:.4f}" for end in metrics.get("auc_interval", ()))


def summary(metrics: Mapping[str, Any]) -> str:
    """One line: the AUC with its interval, beside the baselines'."""
    rankings = {"AUC": metrics, **metrics.get("baselines", {})}
    return "; ".join(
        f"{name} {auc_text(found)}" for name, found in rankings.items() if "auc" in found
    )


def above_chance(metrics: Mapping[str, Any]) -> bool:
    """Whether the whole interval of the AUC is above 0.5."""
    return "auc_interval" in metrics and metrics["auc_interval"][0] > CHANCE


def warnings(split: str, metrics: Mapping[str, Any]) -> list[str]:
    """One line for each of the two, chance and popularity, that a labelled split's ranking does not
    beat.

    Args:
        split: what the metrics are of.
        metrics: as `Evaluation.metrics()` gives them.
    """
    if "auc" not in metrics:
        return []
    lines = []
    measured = metrics["impressions"] - metrics["unlabelled"] - metrics["skipped_one_class"]
    if not above_chance(metrics):
        lines.append(
            f"{split}: the model must rank better than chance, whose AUC is {CHANCE}. Received: "
            f"{auc_text(metrics)} over {measured:,} impressions, not wholly above it. Look at the "
            "joins and at the clicks, train longer, or give more impressions."
        )
    popularity = metrics.get("baselines", {}).get("popularity", {}).get("auc")
    if popularity is not None and popularity > metrics["auc"]:
        lines.append(
            f"{split}: the model should rank better than popularity, which needs no model. "
            f"Received: AUC {metrics['auc']:.4f}, popularity {popularity:.4f}. Train longer or on "
            "more data, or rank by popularity."
        )
    return lines
