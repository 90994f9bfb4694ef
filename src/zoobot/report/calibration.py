"""What a report shows of calibration: coverage, PIT histograms and a table, of all questions and of each."""

from typing import Any

import numpy as np

from zoobot.report import plots
from zoobot.report.embed import embed_figure
from zoobot.report.galaxies import Titles
from zoobot.report.run import Run
from zoobot.stats import agreement
from zoobot.stats.calibration import Estimate, Transform, calibration_error, coverage, pit_histogram, transform_votes
from zoobot.stats.concentrations import Floats, sum_questions

__all__ = ["measure"]

_CREDIBILITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_TABLE = (0.8, 0.9)
_TOLERANCE = 0.03
_MOST_GALAXIES = 20_000  # enough for a third of a percent


def measure(run: Run) -> dict[str, Any]:
    """Figures and rows of a table for the template; the run has concentrations."""
    if run.concentrations is None:
        raise ValueError("calibration is of concentrations, which this run does not have")
    some = slice(None, None, max(1, -(-len(run.votes) // _MOST_GALAXIES)))
    groups, titles = run.schema.question_index_groups, Titles(run.schema)
    votes = np.rint(run.votes[some])
    transform = transform_votes(votes, run.concentrations[some], groups)
    sizes = [last - first + 1 for first, last in groups]
    weights = np.repeat(1 / np.array(sizes), sizes)
    coverages = [coverage(transform, credibility, weights) for credibility in _CREDIBILITIES]
    widths = (run.upper - run.lower)[some]
    rows, pits = [], []
    for question, (first, last) in zip(run.schema.questions, groups, strict=True):
        part, own, title = slice(first, last + 1), transform.take(first, last), titles.question(question)
        bins = agreement.reliability(votes[:, part], run.fractions[some, part])
        rows.append(_row(title, own, calibration_error(bins), widths[:, part], np.ones(last - first + 1)))
        if rows[-1]["galaxies"]:
            figure = plots.draw_pit(pit_histogram(own), title, small=True)
            pits.append(embed_figure(figure, f"PIT histogram of {title}"))
    rows.append(_row("All questions", transform, None, widths, weights))
    pit = plots.draw_pit(pit_histogram(transform, weights=weights))
    return {
        "galaxies": int((sum_questions(votes, groups) > 0).any(axis=1).sum()),
        "coverage": embed_figure(plots.draw_coverage(_CREDIBILITIES, coverages), "coverage of all questions"),
        "pit": embed_figure(pit, "PIT histogram of all questions"),
        "rows": rows,
        "pits": pits,
    }


def _row(title: str, transform: Transform, error: Estimate | None, widths: Floats, weights: Floats) -> dict[str, Any]:
    there = np.isfinite(transform.lower)
    shares = there * weights
    cells = [_cell(coverage(transform, credibility, weights), credibility) for credibility in _TABLE]
    cells.append(_cell(error) if error else {"value": "", "error": None, "good": False})
    width = float((widths * shares).sum() / shares.sum()) if there.any() else np.nan
    cells.append(_cell(Estimate(width, np.nan)))
    return {"name": title, "galaxies": int(there.any(axis=1).sum()), "cells": cells}


def _cell(estimate: Estimate, wanted: float | None = None) -> dict[str, Any]:
    """An estimate as text, and whether it is what it should be."""
    form = ".3f" if wanted is None else ".1%"
    value, error = ("" if np.isnan(each) else format(each, form) for each in (estimate.value, estimate.standard_error))
    good = wanted is not None and abs(estimate.value - wanted) <= _TOLERANCE
    return {"value": value or "–", "error": error, "good": good}
