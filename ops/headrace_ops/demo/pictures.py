"""Two pictures of a run: how good the live predictions were, and how fast.

Drawn without a display. Colours are those of Okabe and Ito, which colour-blind people can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#9AA0A6", "#202124"
_Z95 = 1.96

Floats = NDArray[np.float64]


def draw_quality(file: Path, truth: Floats, predicted: Floats, *, title: str, outcome: str) -> None:
    """Calibration on the left: what was promised and what came. Gain on the right: whom to look at first.

    Args:
        file: PNG to write.
        truth: 1 where the outcome came, else 0.
        predicted: the probability that was served.
        title: of the picture.
        outcome: the outcome in words, such as ``late``.
    """
    figure, (left, right) = _figure(2, title)
    _calibration(left, truth, predicted, outcome)
    _gain(right, truth, predicted, outcome)
    _save(figure, file)


def draw_speed(file: Path, latencies_ms: Sequence[float], freshness_ms: Sequence[float], *, title: str) -> None:
    """How long a prediction took, and how long an event took to count in one.

    Args:
        file: PNG to write.
        latencies_ms: of requests, as the client saw them.
        freshness_ms: from an event's sending until a prediction reads it.
        title: of the picture.
    """
    figure, (left, right) = _figure(2, title)
    _distribution(left, np.asarray(latencies_ms), BLUE, "A prediction: request to answer over HTTP", "requests")
    _distribution(right, np.asarray(freshness_ms), GREEN, "Freshness: event sent to readable in a feature", "events")
    _save(figure, file)


def _figure(panels: int, title: str) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg", force=True)
    from matplotlib import pyplot

    mpl.rcParams.update({"font.size": 11, "axes.edgecolor": GREY, "axes.labelcolor": INK, "text.color": INK})
    figure, axes = pyplot.subplots(1, panels, figsize=(12, 5.2), layout="constrained")
    figure.suptitle(title, fontsize=15, fontweight="bold", x=0.01, ha="left")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#E8EAED", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(colors=INK, length=0)
    return figure, axes


def _save(figure: Any, file: Path) -> None:
    from matplotlib import pyplot

    figure.get_layout_engine().set(rect=(0, 0, 1, 0.98), h_pad=0.12, w_pad=0.12)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def _calibration(axis: Any, truth: Floats, predicted: Floats, outcome: str) -> None:
    order = np.argsort(predicted, kind="stable")
    bins = [part for part in np.array_split(order, 10) if len(part)]
    promised = np.array([predicted[part].mean() for part in bins])
    came = np.array([truth[part].mean() for part in bins])
    counts = np.array([len(part) for part in bins])
    low, high = _wilson(came, counts)
    axis.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    axis.axhline(
        truth.mean(), color=ORANGE, linewidth=1.2, linestyle=":", label=f"base rate {truth.mean() * 100:.1f} %"
    )
    axis.errorbar(
        promised, came, yerr=[came - low, high - came], color=BLUE, marker="o", markersize=6, capsize=3, linewidth=1.6,
        label="tenths of the predictions, 95 % interval",
    )  # fmt: skip
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="predicted probability", ylabel=f"share that was {outcome}")
    axis.set_title("What was promised, and what came", loc="left", fontsize=12)
    axis.legend(frameon=False, loc="upper left")


def _gain(axis: Any, truth: Floats, predicted: Floats, outcome: str) -> None:
    order = np.argsort(-predicted, kind="stable")
    share = np.arange(len(truth) + 1) / len(truth)
    found = np.concatenate([[0.0], np.cumsum(truth[order])]) / max(truth.sum(), 1.0)
    base = float(truth.mean())
    axis.fill_between(share, share, found, color=BLUE, alpha=0.12, linewidth=0)
    axis.plot(share, found, color=BLUE, linewidth=2, label="ordered by prediction")
    axis.plot([0, base, 1], [0, 1, 1], color=GREEN, linewidth=1, linestyle="--", label="a prophet")
    axis.plot([0, 1], [0, 1], color=ORANGE, linewidth=1.2, linestyle=":", label="base rate alone")
    at = int(0.2 * len(truth))
    axis.plot([share[at]], [found[at]], "o", color=BLUE)
    axis.annotate(
        f"the riskiest 20 % hold\n{found[at] * 100:.0f} % of all {outcome} ones",
        (share[at], found[at]), xytext=(0.36, max(found[at] - 0.26, 0.3)), arrowprops={"arrowstyle": "-", "color": GREY}, bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none"},
    )  # fmt: skip
    axis.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.04),
        xlabel="share of the predictions",
        ylabel=f"share of the {outcome} ones found",
    )
    axis.set_title("Gain over the base rate", loc="left", fontsize=12)
    axis.legend(frameon=False, loc="lower right")


def _distribution(axis: Any, values: Floats, colour: str, title: str, unit: str) -> None:
    from matplotlib.ticker import FuncFormatter

    low, high = float(values.min()) * 0.9, float(np.quantile(values, 0.999)) * 1.3
    edges = np.geomspace(max(low, 1e-3), high, 60)
    axis.hist(np.clip(values, edges[0], edges[-1]), bins=edges, color=colour, alpha=0.85)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ticks = [tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if edges[0] <= tick <= edges[-1]]
    axis.set_xticks(ticks)
    axis.minorticks_off()
    top = axis.get_ylim()[1]
    for quantile, height in ((0.5, 0.97), (0.99, 0.97)):
        value = float(np.quantile(values, quantile))
        axis.axvline(value, color=INK, linewidth=1, linestyle="--")
        axis.text(value * 1.03, top * height, f"p{quantile * 100:.0f} {value:.1f} ms", va="top")
    axis.set(xlabel="milliseconds (logarithmic)", ylabel=unit)
    axis.set_title(f"{title} ({len(values):,})", loc="left", fontsize=12)


def _wilson(share: Floats, counts: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Wilson's score interval, which stays inside 0 and 1 for small shares."""
    centre = (share + _Z95**2 / (2 * counts)) / (1 + _Z95**2 / counts)
    half = _Z95 / (1 + _Z95**2 / counts) * np.sqrt(share * (1 - share) / counts + _Z95**2 / (4 * counts**2))
    return np.minimum(centre - half, share), np.maximum(centre + half, share)
