"""What a report shows of calibration: coverage, PIT histograms and a table, of all questions and of each."""

from typing import Any

import numpy as np

from zoobot.report import plots
from zoobot.report.embed import embed_figure
from zoobot.report.galaxies import Titles
from zoobot.report.run import Run
from zoobot.stats.calibration import Calibration, Estimate, measure_calibration
from zoobot.stats.concentrations import round_votes

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
    titles = [Titles(run.schema).question(question) for question in run.schema.questions]
    questions, everything = measure_calibration(
        round_votes(run.votes[some], run.schema.question_index_groups),
        run.concentrations[some],
        run.schema.question_index_groups,
        credibilities=_CREDIBILITIES,
    )
    asked = [(title, question) for title, question in zip(titles, questions, strict=True) if question.galaxies]
    return {
        "galaxies": everything.galaxies,
        "coverage": embed_figure(
            plots.draw_coverage(_CREDIBILITIES, everything.coverages), "coverage of all questions"
        ),
        "pit": embed_figure(plots.draw_pit(everything.pit), "PIT histogram of all questions"),
        "rows": [_row(*named) for named in zip([*titles, "All questions"], [*questions, everything], strict=True)],
        "pits": [
            embed_figure(plots.draw_pit(question.pit, title, small=True), f"PIT histogram of {title}")
            for title, question in asked
        ],
    }


def _row(title: str, measured: Calibration) -> dict[str, Any]:
    cells = [_cell(measured.coverages[_CREDIBILITIES.index(wanted)], wanted) for wanted in _TABLE]
    cells += [_cell(measured.calibration_error), _cell(measured.width)]
    return {"name": title, "galaxies": measured.galaxies, "cells": cells}


def _cell(estimate: Estimate, wanted: float | None = None) -> dict[str, Any]:
    """An estimate as text, and whether it is what it should be."""
    form = ".3f" if wanted is None else ".1%"
    value, error = ("" if np.isnan(each) else format(each, form) for each in (estimate.value, estimate.standard_error))
    good = wanted is not None and abs(estimate.value - wanted) <= _TOLERANCE
    return {"value": value or "–", "error": error, "good": good}
