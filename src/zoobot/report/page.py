"""One HTML page that shows a run: galaxies with posteriors and votes, scores beside a baseline, figures."""

import datetime
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from zoobot import __version__
from zoobot.data import tables
from zoobot.errors import ModelError, PredictionError, SettingError
from zoobot.files import replace_atomically
from zoobot.predictions.catalogue import CREDIBILITY
from zoobot.predictions.evaluate import summarise, tabulate
from zoobot.report import plots
from zoobot.report.calibration import measure
from zoobot.report.cards import make_sections
from zoobot.report.embed import embed_figure
from zoobot.report.galaxies import Titles
from zoobot.report.run import Run, read_run
from zoobot.schemas import Question, Schema
from zoobot.stats import agreement
from zoobot.stats.classification import roc_curve
from zoobot.stats.concentrations import Floats
from zoobot.stats.galaxy_scores import find_leading
from zoobot.stats.score_table import ScoreConfig
from zoobot.training.history import HISTORY_NAME, draw_learning_curve

__all__ = ["make_report"]

_MIN_SHARE_ASKED = 0.5
_TILES = {
    "accuracy": "of the leading answers are right",
    "agreed_accuracy": "are right where volunteers agree",
    "rms_error": "RMS error of the vote fractions",
    "loss": "loss a galaxy (−log probability of its votes)",
}
_FORMATS = {"loss": ".2f", "rms_error": ".3f", "accuracy": ".1%", "agreed_accuracy": ".1%"}  # the table's columns
_HIGHER_IS_BETTER = ("accuracy", "agreed_accuracy")


def make_report(
    predictions: str | Path,
    catalog: str | Path,
    save_loc: str | Path = "report.html",
    *,
    checkpoint_dir: str | Path | None = None,
    schema: Schema | None = None,
    truth: str | Path | None = None,
    galaxies: int = 6,
) -> Path:
    """Write one self-contained HTML page about predictions of galaxies that volunteers have looked at.

    Args:
        predictions: a table that predict wrote; without concentrations the page lacks densities and losses.
        catalog: a table with ``id_str`` and votes. Images lie where its ``file_loc`` says, relative to its
            folder, else where that of the predictions does, relative to the working directory.
        save_loc: the page to write.
        checkpoint_dir: the model's folder, for its facts and its learning curve.
        schema: the decision tree; without it the model's, or found by the predictions' columns.
        truth: of a simulated survey, a table with ``id_str`` and for each answer ``<answer>_probability``, the
            probability of that answer among those who are asked; NaN where there is none.
        galaxies: how many to show of each kind: typical, best, worst, most uncertain.

    Returns:
        ``save_loc``.

    Raises:
        PredictionError: the tables do not fit each other or the schema.
        CatalogError: a table cannot be read or has faults.
        ModelError: the model folder cannot be read.
        SettingError: ``galaxies`` is less than 1, or ``save_loc`` does not end in .html.
    """
    if galaxies < 1:
        raise SettingError(f"galaxies (--galaxies): got {galaxies}, expected at least 1")
    if Path(save_loc).suffix.lower() not in (".html", ".htm"):  # none of the files it reads can be meant
        raise SettingError(f"save_loc (--save-loc): got {save_loc}, expected a name that ends in .html")
    run = read_run(predictions, catalog, checkpoint_dir, schema)
    scores = summarise(tabulate(run.matched, ScoreConfig(resamples=0, draws=0)))
    true = None if truth is None else _read_truth(run, truth)
    questions = range(len(run.schema.questions))
    content = {
        "run": run,
        "facts": _facts(run),
        "tiles": [{"meaning": meaning, **_compare(scores["all_questions"], name)} for name, meaning in _TILES.items()],
        "scores": _score_rows(scores, run.schema),
        "sections": make_sections(run, galaxies),
        "learning_curve": None if checkpoint_dir is None else _embed_learning_curve(Path(checkpoint_dir)),
        "calibration": None if run.concentrations is None else measure(run),
        "questions": [_question_figures(run, index) for index in questions],
        "truth": None if true is None else [_truth_row(run, true, index) for index in questions],
        "credibility": f"{CREDIBILITY:.0%}",
        "min_share": f"{_MIN_SHARE_ASKED:.0%}",
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = resources.files("zoobot.report").joinpath("page.html").read_text(encoding="utf-8")
    page = environment.from_string(template).render(content)
    with replace_atomically(save_loc) as path:
        path.write_text(page, encoding="utf-8")
    return Path(save_loc)


def _facts(run: Run) -> list[tuple[str, str]]:
    """What was predicted by what, as names and values."""
    schema, predicted = run.schema, len(run.fractions) + run.matched.without_votes
    facts = [("Decision tree", f"{schema.name}: {len(schema.questions)} questions, {len(schema.answers)} answers")]
    versions = {"zoobot": __version__}
    if run.config is not None:
        model, versions = run.config["model"], run.config["versions"]
        colours = "grey" if model["channels"] == 1 else "colour"
        sizes = f"{model['input_size']} px, cropped to {model['crop_size']}, seen at {model['resize_size']}"
        facts += [("Encoder", model["encoder"]), ("Images", f"{colours}, {sizes}")]
    if run.trained_on is not None:
        facts.append(("Trained on", f"{run.trained_on:,} galaxies"))
    samples = 0 if run.concentrations is None else run.concentrations.shape[1]
    made = ", ".join(f"{package} {number}" for package, number in versions.items())
    return [
        *facts,
        ("Predicted", f"{predicted:,} galaxies, {len(run.fractions):,} with votes"),
        ("Volunteers", f"{np.median(run.volunteers):.0f} a galaxy (median)"),
        ("Posterior", f"{samples} sample{'s' if samples > 1 else ''} a galaxy" if samples else "intervals only"),
        ("Made", f"{datetime.date.today().isoformat()} with {made}"),
    ]


def _score_rows(scores: Mapping[str, Any], schema: Schema) -> list[dict[str, Any]]:
    titles = Titles(schema)
    named = [(titles.question(question), scores["questions"][question.name]) for question in schema.questions]
    return [
        {"name": name, "galaxies": row["galaxies"], "cells": [_compare(row, measure) for measure in _FORMATS]}
        for name, row in [*named, ("All questions", scores["all_questions"])]
    ]


def _compare(scores: Mapping[str, Any], measure: str) -> dict[str, Any]:
    """Give a score and its baseline as text, and which of the two is better."""
    ours, baseline = scores[measure], scores[f"baseline_{measure}"]
    texts = {
        name: "–" if value is None else format(value, _FORMATS[measure])
        for name, value in (("ours", ours), ("baseline", baseline))
    }
    if ours is None or baseline is None or texts["ours"] == texts["baseline"]:
        return {**texts, "best": None}
    return {**texts, "best": "ours" if (ours > baseline) == (measure in _HIGHER_IS_BETTER) else "baseline"}


def _embed_learning_curve(folder: Path) -> str | None:
    path = folder / HISTORY_NAME
    if not path.exists():  # of a model that was fetched and not trained here
        return None
    try:
        history = pd.read_csv(path)
        curve = draw_learning_curve(history)
    except (ValueError, KeyError, TypeError) as error:  # pandas' own are all ValueErrors
        raise ModelError(f"{path} cannot be drawn ({error}); delete it for a report without it") from error
    return embed_figure(curve, f"losses after each of {len(history)} epochs")


def _question_figures(run: Run, index: int) -> dict[str, Any]:
    """Draw the figures of one question, of the galaxies that enough volunteers were asked about."""
    question, titles = run.schema.questions[index], Titles(run.schema)
    first, last = run.schema.question_index_groups[index]
    rows = run.asked[:, index] >= _MIN_SHARE_ASKED
    votes, fractions = run.votes[rows, first : last + 1], run.fractions[rows, first : last + 1]
    title, answers = titles.question(question), titles.answers(question)
    found: dict[str, Any] = {
        "title": title,
        "galaxies": int(rows.sum()),
        "after": _describe_parents(run.schema, question),
    }
    if not rows.any():
        return found
    matrix = agreement.confusion_matrix(votes, fractions)
    bins, measured = agreement.reliability(votes, fractions), votes / votes.sum(axis=1, keepdims=True)
    return found | {
        "right": f"{np.trace(matrix) / matrix.sum():.0%}",
        "confusion": embed_figure(plots.draw_confusion(matrix, answers), f"confusion matrix of {title}"),
        "reliability": embed_figure(plots.draw_reliability(bins), f"reliability of {title}"),
        "roc": _embed_roc(title, answers, votes, fractions),
        "fractions": _embed_fractions(title, answers, fractions, measured, "fraction of votes"),
    }


def _embed_roc(title: str, answers: Sequence[str], votes: Floats, fractions: Floats) -> str | None:
    """Draw the ROC curves of the answers that lead in some galaxies but not in all; of two, one mirrors the other."""
    leads = find_leading(votes)
    told = [number for number in range(len(answers)) if leads[:, number].any() and not leads[:, number].all()]
    if not told:
        return None
    shown = told[:1] if len(answers) == 2 else told
    curves = {answers[number]: roc_curve(leads[:, number], fractions[:, number]) for number in shown}
    return embed_figure(plots.draw_roc(curves), f"ROC curves of {title}")


def _embed_fractions(
    title: str, answers: Sequence[str], predicted: Floats, measured: Floats, against: str
) -> list[str]:
    """Draw a histogram for each answer; of two, one mirrors the other and is left out."""
    shown = answers[:1] if len(answers) == 2 else answers
    return [
        embed_figure(
            plots.draw_fractions(predicted[:, number], measured[:, number], answer, against=against),
            f"{title}, {answer}: predicted fraction against {against}",
        )
        for number, answer in enumerate(shown)
    ]


def _describe_parents(schema: Schema, question: Question) -> str:
    titles = Titles(schema)
    ways = []
    for parent in schema.questions:
        texts = zip(parent.answers, titles.answers(parent), strict=True)
        leading = [text for answer, text in texts if answer.label_col in question.asked_after]
        if leading:
            ways.append(f"{titles.question(parent).lower()}: {' or '.join(leading)}")
    return f"asked after {', or '.join(ways)}" if ways else "asked of everyone"


def _truth_row(run: Run, true: Floats, index: int) -> dict[str, Any]:
    """Compare fractions with the true probabilities, for one question."""
    question, titles = run.schema.questions[index], Titles(run.schema)
    first, last = run.schema.question_index_groups[index]
    asked = run.schema.joint_p(np.nan_to_num(true), question.name) >= _MIN_SHARE_ASKED
    rows = asked & np.isfinite(true[:, first : last + 1]).all(axis=1)
    parts = (run.fractions, run.lower, run.upper, true)
    fractions, lower, upper, known = (values[rows, first : last + 1] for values in parts)
    found = agreement.compare_with_truth(fractions, lower, upper, known)
    numbers = {"correlation": ".3f", "rms_error": ".3f", "coverage": ".0%"}
    values = {name: getattr(found, name) for name in numbers}
    title = titles.question(question)
    return {
        "title": title,
        "galaxies": found.galaxies,
        **{name: "–" if np.isnan(value) else format(value, numbers[name]) for name, value in values.items()},
        "figures": _embed_fractions(title, titles.answers(question), fractions, known, "true probability")
        if rows.any()
        else [],
    }


def _read_truth(run: Run, truth: str | Path) -> Floats:
    table = tables.read_table(truth)
    names = [f"{answer}_probability" for answer in run.schema.label_cols]
    missing = [name for name in ("id_str", *names) if name not in table.columns]
    if missing:
        raise PredictionError(
            f"truth (--truth): {truth} lacks {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}; it needs "
            f"id_str and <answer>_probability for each answer of {run.schema.name}"
        )
    if table["id_str"].duplicated().any():
        raise PredictionError(f"truth (--truth): {truth} has an id_str more than once; expected each once")
    try:
        values = table.set_index("id_str")[names].reindex(run.matched.predicted.index).to_numpy(np.float64)
    except (ValueError, TypeError) as error:
        raise PredictionError(f"truth (--truth): {truth} holds something else than numbers: {error}") from error
    if not np.isfinite(values).any():
        raise PredictionError(
            f"truth (--truth): {truth} tells nothing of the predicted galaxies; is it of this survey?"
        )
    if ((values < 0) | (values > 1 + 1e-6)).any():
        raise PredictionError(f"truth (--truth): {truth} has probabilities outside 0 to 1")
    return values
