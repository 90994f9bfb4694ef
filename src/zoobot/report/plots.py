"""Figures of predictions beside votes, for papers and for the report; arrays in, matplotlib Figures out.

Colours are Okabe & Ito's and cividis, which colour-blind readers can tell apart; blue is the model, vermilion the
volunteers. A figure is as wide as the column of a journal or less: ``draw_reliability(bins).savefig("figure.pdf")``.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray
from scipy import integrate

from zoobot.report.galaxies import GalaxyPosterior, Titles, walk
from zoobot.schemas import Question, Schema
from zoobot.stats import dirichlet
from zoobot.stats.agreement import Reliability
from zoobot.stats.calibration import Estimate, PitHistogram
from zoobot.stats.classification import RocCurve

__all__ = [
    "COLOURS",
    "draw_confusion",
    "draw_coverage",
    "draw_fractions",
    "draw_pit",
    "draw_posteriors",
    "draw_reliability",
    "draw_roc",
]

Floats = NDArray[np.float64]
Arguments = ParamSpec("Arguments")

COLOURS = {
    "ink": "#22252a",
    "muted": "#6a7078",
    "rule": "#d9dade",
    "paper": "#fffffe",  # not quite white, so that a page can tell it from the background
    "model": "#0072b2",
    "volunteers": "#d55e00",
}
"""What the figures are drawn in; a page may give each its own shade for dark mode."""

_STYLE: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "text.parse_math": False,  # a $ in an answer is a $
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_NINETY = 1.645  # standard deviations to either side that hold 90% of a normal distribution
_ROW, _HEADING = 0.205, 0.30  # inches
_ACROSS = 1.9  # inches from fraction 0 to 1
_RIGHT_EDGE = 1.3  # where numbers of votes end, as a fraction
_POINTS = (np.arange(200) + 0.5) / 200
_CELLS = 20
_PALETTE = (COLOURS["model"], "#e69f00", "#009e73", "#cc79a7", "#56b4e9", COLOURS["volunteers"], "#22252a", "#b8a800")
_CURVE_POINTS = 300


def _styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Make figures look alike, whatever the reader's own settings of matplotlib, which come back afterwards."""

    @functools.wraps(draw)
    def draw_in_style(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return draw_in_style


@_styled
def draw_posteriors(galaxy: GalaxyPosterior, schema: Schema, questions: Sequence[Question] | None = None) -> Figure:
    """Draw the posterior of each answer's vote fraction beside the volunteers' votes, the tree walked downwards.

    A ridge is the density of the fraction (all of one height), the line below it the 90% credible interval with
    the mean, a diamond the fraction of votes; at the right, the number of votes. Beside each question stands the
    expected share of volunteers who are asked it. The predicted leading answer is drawn stronger.

    Args:
        galaxy: its posterior and votes.
        schema: the decision tree.
        questions: which to draw; the path of the predicted leading answers if not given.
    """
    shown = [question for question, _ in walk(schema, galaxy.fractions)] if questions is None else list(questions)
    titles, asked = Titles(schema), schema.proportion_asked(galaxy.fractions)
    densities = _densities(galaxy, schema)
    rows = sum(_HEADING + _ROW * len(question.answers) for question in shown)
    left = 0.1 + 0.058 * max((len(_short(text)) for question in shown for text in titles.answers(question)), default=0)
    figure = Figure(figsize=(left + _ACROSS * _RIGHT_EDGE + 0.05, rows + 0.36))
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, 0.34 / height, _ACROSS / width, rows / height))
    axes.set(xlim=(0, 1), ylim=(rows, 0), xticks=[0, 0.5, 1], xticklabels=["0", "½", "1"], yticks=[])
    axes.set_xlabel("fraction of votes", labelpad=1)
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=2, pad=2)
    top = 0.0
    for question in shown:
        index = schema.questions.index(question)
        axes.text(-left / _ACROSS, top + 0.19, titles.question(question), weight="bold", va="center", size=8.5)
        _write_right(axes, top + 0.19, f"{_percent(asked[index])} asked", "muted")
        first, _ = schema.question_index_groups[index]
        leading = first + int(galaxy.fractions[first : first + len(question.answers)].argmax())
        for number, name in enumerate(titles.answers(question)):
            base = top + _HEADING + _ROW * (number + 0.8)
            axes.text(-0.05, base - 0.05, _short(name), ha="right", va="center")
            axes.plot([0, 1], [base, base], color=COLOURS["rule"], lw=0.5, zorder=0)
            if densities is not None:
                _draw_ridge(axes, densities[:, first + number], base, first + number == leading)
            _draw_interval(axes, galaxy, first + number, base)
            _draw_votes(axes, galaxy, slice(first, first + len(question.answers)), number, base)
        top += _HEADING + _ROW * len(question.answers)
    return figure


def _densities(galaxy: GalaxyPosterior, schema: Schema) -> Floats | None:
    """Densities of the posteriors at `_POINTS`: (points, answers)."""
    if galaxy.concentrations is None:
        return None
    return dirichlet.fraction_density(
        _POINTS[:, None, None], galaxy.concentrations[None], schema.question_index_groups
    )[:, 0]


def _draw_ridge(axes: Axes, density: Floats, base: float, strong: bool) -> None:
    if not 0 < density.max() < np.inf:  # so narrow that it falls between the points
        return
    density = density / density.max()
    seen = density > 0.004  # the rest would be a line on the base
    across = _POINTS[seen]
    upwards = base - 0.9 * _ROW * density[seen]
    outline = np.concatenate([across[:1], across, across[-1:]]), np.concatenate([[base], upwards, [base]])
    axes.fill(*outline, color=COLOURS["model"], lw=0, alpha=0.6 if strong else 0.28, zorder=1)


def _draw_interval(axes: Axes, galaxy: GalaxyPosterior, answer: int, base: float) -> None:
    style: dict[str, Any] = {"color": COLOURS["model"], "clip_on": False, "zorder": 3}
    edges = [galaxy.lower[answer], galaxy.upper[answer]]
    axes.plot(edges, [base, base], lw=1.5, solid_capstyle="round", **style)
    axes.plot(galaxy.fractions[answer], base, "o", ms=3.2, **style)


def _draw_votes(axes: Axes, galaxy: GalaxyPosterior, group: slice, number: int, base: float) -> None:
    """Mark the fraction of votes for one answer of a question, whose answers are ``group``."""
    if galaxy.votes is None or not galaxy.votes[group].any():
        return
    votes, total = galaxy.votes[group][number], galaxy.votes[group].sum()
    style: dict[str, Any] = {"mec": COLOURS["paper"], "mew": 0.5, "color": COLOURS["volunteers"]}
    axes.plot(votes / total, base, "D", ms=4, clip_on=False, zorder=4, **style)
    _write_right(axes, base - 0.05, f"{_count(votes)} of {_count(total)}", "volunteers")


def _write_right(axes: Axes, y: float, text: str, colour: str) -> None:
    axes.text(_RIGHT_EDGE, y, text, ha="right", va="center", color=COLOURS[colour], size=7)


def _short(text: str) -> str:
    return text if len(text) <= 22 else f"{text[:21]}…"


@_styled
def draw_confusion(matrix: ArrayLike, answers: Sequence[str]) -> Figure:
    """Draw a confusion matrix: rows are volunteers' leading answers, columns the predicted ones.

    A cell holds the number of galaxies and is the stronger in colour the larger their share of its row.

    Args:
        matrix: (answers, answers) counts, of `confusion_matrix`.
        answers: their names.
    """
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(counts)
    side = 0.5 if size <= 3 else 0.38
    label = 0.2 + 0.058 * max(map(len, answers), default=0)
    slant = 0.045 * len(answers[-1])  # how far the last column's slanted name reaches beyond it
    figure = Figure(figsize=(label + 0.2 + side * size + slant, 0.7 * label + side * size + 0.3))
    width, height = figure.get_size_inches()
    axes = figure.add_axes(((label + 0.2) / width, 0.22 / height, side * size / width, side * size / height))
    for (row, column), share in np.ndenumerate(shares):
        axes.add_patch(
            Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, color=COLOURS["model"], alpha=float(share), lw=0)
        )
        axes.text(column, row, f"{counts[row, column]:,}" if counts[row, column] else "·", ha="center", va="center",
                  size=7.5, color=COLOURS["paper" if share > 0.55 else "ink"])  # fmt: skip
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xticks=range(size), yticks=range(size))
    axes.set_yticklabels(answers)
    axes.set_xticklabels(answers, rotation=40, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=3)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted answer", color=COLOURS["model"])
    axes.xaxis.set_label_position("bottom")
    axes.text(-(label + 0.1) / (side * size), 0.5, "volunteers’ answer", transform=axes.transAxes, rotation=90,
              ha="center", va="center", color=COLOURS["volunteers"])  # fmt: skip
    return figure


@_styled
def draw_reliability(bins: Reliability) -> Figure:
    """Draw how often volunteers agree with the leading answer against how sure of it the model is.

    A point is a bin of galaxies with the 90% interval of its agreement (1.645 standard errors).
    On the line, confidence is as it should be; below it, the model is too sure.

    Args:
        bins: of `reliability`.
    """
    figure = Figure(figsize=(2.8, 2.55), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=COLOURS["muted"], lw=0.8, ls=(0, (4, 3)))
    errors = _NINETY * np.nan_to_num(bins.standard_error)
    edges = np.stack([np.minimum(errors, bins.agreement), np.minimum(errors, 1 - bins.agreement)])
    axes.errorbar(bins.confidence, bins.agreement, edges, fmt="o-", color=COLOURS["model"], ms=4, lw=1, elinewidth=1)
    lowest = min([0.5, *bins.confidence, *(bins.agreement - edges[0])])
    low = max(0.0, np.floor((lowest - 0.02) * 10) / 10)
    axes.set(xlim=(low, 1.01), ylim=(low, 1.01), aspect="equal")
    axes.set(xlabel="predicted fraction of leading answer", ylabel="votes that agree")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(0.2 if low < 0.5 else 0.1))
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


@_styled
def draw_roc(curves: Mapping[str, RocCurve]) -> Figure:
    """Draw ROC curves of answers, with the area under each in the legend.

    On the dashed line a score tells nothing; the nearer to the upper left corner the better.

    Args:
        curves: of `roc_curve`, by the name of the answer; up to eight have a colour of their own.
    """
    figure = Figure(figsize=(2.8, 2.55), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=COLOURS["muted"], lw=0.8, ls=(0, (4, 3)))
    for number, (name, curve) in enumerate(curves.items()):
        across, upwards = curve.false_positive_rate, curve.true_positive_rate
        label = f"{integrate.trapezoid(upwards, across):.3f}  {_short(name)}"
        some = np.unique(np.linspace(0, len(across) - 1, _CURVE_POINTS).round().astype(int))
        axes.plot(across[some], upwards[some], color=_PALETTE[number % len(_PALETTE)], lw=1.2, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.005), aspect="equal")
    axes.set(xlabel="others that are taken for it", ylabel="galaxies found")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(0.2))
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(loc="lower right", frameon=False, fontsize=7, handlelength=1.2, labelspacing=0.25, borderaxespad=0.2)
    return figure


@_styled
def draw_coverage(credibilities: ArrayLike, coverages: Sequence[Estimate]) -> Figure:
    """Draw how often votes lie inside predicted intervals against how often they should, with 90% intervals.

    On the line all is well; below it intervals are too narrow.

    Args:
        credibilities: (intervals,) rising from 0 to 1.
        coverages: of `zoobot.stats.calibration.coverage`, one for each.
    """
    nominal = np.asarray(credibilities, dtype=np.float64)
    found = np.array([each.value for each in coverages])
    errors = _NINETY * np.nan_to_num([each.standard_error for each in coverages])
    figure = Figure(figsize=(2.8, 2.55), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=COLOURS["muted"], lw=0.8, ls=(0, (4, 3)))
    axes.errorbar(nominal, found, errors, fmt="o-", color=COLOURS["model"], ms=4, lw=1, elinewidth=1, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set(xlabel="credibility of the predicted interval", ylabel="votes inside it")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(0.2))
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


@_styled
def draw_pit(histogram: PitHistogram, title: str = "", *, small: bool = False) -> Figure:
    """Draw a histogram of where votes stand in their predicted distributions, with 90% intervals.

    Flat, at the line, all is well; a U says that predictions are too sure, a hump that they are not sure enough.

    Args:
        histogram: of `zoobot.stats.calibration.pit_histogram`.
        title: such as the question.
        small: draw one of many.
    """
    edges = np.linspace(0, 1, len(histogram.density) + 1)
    errors = _NINETY * np.nan_to_num(histogram.standard_error)
    figure = Figure(figsize=(1.75, 1.6) if small else (2.8, 2.55), layout="constrained")
    axes = figure.subplots()
    middles, density = (edges[1:] + edges[:-1]) / 2, np.nan_to_num(histogram.density)
    axes.bar(middles, density, width=0.94 * np.diff(edges), color=COLOURS["model"], alpha=0.35, lw=0)
    axes.errorbar(middles, density, errors, fmt="none", ecolor=COLOURS["model"], elinewidth=1)
    axes.axhline(1, color=COLOURS["muted"], lw=0.8, ls=(0, (4, 3)))
    axes.set(xlim=(0, 1), xticks=[0, 0.5, 1], ylim=(0, max(2.0 if small else 1.6, 1.05 * (density + errors).max())))
    axes.set_xticklabels(["0", "½", "1"])
    axes.yaxis.set_major_locator(MultipleLocator(0.5 if axes.get_ylim()[1] <= 2 else 1))
    axes.set_title(title, loc="left", weight="bold")
    if not small:
        axes.set(xlabel="predicted probability below the votes", ylabel="galaxies, 1 if as predicted")
    return figure


@_styled
def draw_fractions(
    predicted: ArrayLike,
    measured: ArrayLike,
    title: str = "",
    *,
    against: str = "fraction of votes",
    cells: int = _CELLS,
) -> Figure:
    """Draw a two-dimensional histogram of predicted fractions of one answer against measured or true ones.

    The colour is the number of galaxies, on a logarithmic scale (cividis); empty cells are blank.

    Args:
        predicted: (galaxies,) fractions.
        measured: (galaxies,) fractions of votes, or true probabilities.
        title: such as the answer.
        against: what ``measured`` is, for the label of its axis.
        cells: along each side.
    """
    edges = np.linspace(0, 1, cells + 1)
    counts, _, _ = np.histogram2d(np.asarray(measured).ravel(), np.asarray(predicted).ravel(), bins=(edges, edges))
    figure = Figure(figsize=(1.75, 1.85), layout="constrained")
    axes = figure.subplots()
    image: dict[str, Any] = {"origin": "lower", "extent": (0, 1, 0, 1), "interpolation": "nearest", "cmap": "cividis"}
    shown = np.ma.masked_equal(counts.T, 0)
    axes.imshow(shown, norm=LogNorm(1, max(2.0, counts.max())), **image)
    axes.plot([0, 1], [0, 1], color=COLOURS["muted"], lw=0.8, ls=(0, (4, 3)))
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], xlabel=against, ylabel="predicted")
    axes.set_xticklabels(["0", "½", "1"])
    axes.set_yticklabels(["0", "½", "1"])
    axes.set_title(title, loc="left", weight="bold")
    return figure


def _count(votes: float) -> str:
    return f"{votes:.0f}" if votes == round(votes) else f"{votes:.1f}"


def _percent(share: float) -> str:
    return "<1%" if 0 < share < 0.01 else f"{share:.0%}"
