"""Scoring a catalogue of predictions against volunteers' votes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from zoobot import schemas
from zoobot.data import tables
from zoobot.data.catalog import read_catalog
from zoobot.errors import PredictionError, SettingError
from zoobot.files import replace_atomically
from zoobot.predictions.catalogue import check_tables_to_write, read_concentrations, read_fractions, read_intervals
from zoobot.predictions.score_files import write_latex, write_roc_curves, write_score_table
from zoobot.schemas import Schema
from zoobot.stats.score_table import (
    ALL_QUESTIONS,
    ScoreConfig,
    ScoreRow,
    roc_curves,
    tabulate_cumulative,
    tabulate_scores,
)

__all__ = ["Matched", "evaluate", "match_votes", "summarise", "tabulate"]

# The order of answers in the Kaggle Galaxy Challenge's columns Class1.1 … Class11.6, in the words of schema gz2_full.
# https://www.kaggle.com/c/galaxy-zoo-the-galaxy-challenge/overview/the-galaxy-zoo-decision-tree
_KAGGLE_ANSWERS = {
    "smooth-or-featured-gz2": ("smooth", "featured-or-disk", "artifact"),
    "disk-edge-on-gz2": ("yes", "no"),
    "bar-gz2": ("yes", "no"),
    "has-spiral-arms-gz2": ("yes", "no"),
    "bulge-size-gz2": ("no", "just-noticeable", "obvious", "dominant"),
    "something-odd-gz2": ("yes", "no"),
    "how-rounded-gz2": ("round", "in-between", "cigar"),
    "odd-feature-gz2": ("ring", "lens-or-arc", "disturbed", "irregular", "other", "merger", "dust-lane"),
    "bulge-shape-gz2": ("round", "boxy", "no-bulge"),
    "spiral-winding-gz2": ("tight", "medium", "loose"),
    "spiral-arm-count-gz2": ("1", "2", "3", "4", "more-than-4", "cant-tell"),
}
_KAGGLE_EVERYONE_ASKED = ("something-odd-gz2",)


@dataclass(frozen=True)
class Matched:
    """Predictions and votes, matched by ``id_str``: `predicted` has both, `voted` is the whole catalog.

    Both have ``id_str`` as index; ``votes`` are those of `predicted`, (galaxies, answers), in its order.
    """

    schema: Schema
    predicted: pd.DataFrame
    voted: pd.DataFrame
    votes: NDArray[np.float64]
    without_votes: int


def match_votes(predictions: str | Path, catalog: str | Path, schema: Schema | None = None) -> Matched:
    """Read predictions and the votes of the same galaxies; without a schema, find it among the known ones.

    Raises:
        PredictionError: the tables do not fit each other or the schema, or there are no votes.
        CatalogError: a table cannot be read or has faults.
    """
    predicted = tables.read_table(predictions)
    if predicted.empty or "id_str" not in predicted.columns or predicted["id_str"].duplicated().any():
        raise PredictionError(f"{predictions} is no table of predictions: it needs rows, each with its own id_str")
    schema = schema or _guess_schema(predicted, predictions)
    read_fractions(predicted, schema)  # before the catalog is blamed for what it lacks
    voted = read_catalog(catalog, schema.label_cols, need_files=False).set_index("id_str")
    predicted = predicted.set_index("id_str", drop=False)
    both = predicted[predicted.index.isin(voted.index)]
    if both.empty:
        raise PredictionError(
            f"{predictions} and {catalog} share no id_str (such as {predicted.index[0]!r} and {voted.index[0]!r}, say)"
        )
    votes = voted.loc[both.index, schema.label_cols].to_numpy(np.float64)
    if not votes.any():
        raise PredictionError(f"{catalog} has no votes for the galaxies of {predictions}, to compare the two by")
    return Matched(schema, both, voted, votes, len(predicted) - len(both))


def tabulate(matched: Matched, config: ScoreConfig | None = None) -> list[ScoreRow]:
    """Every score of matched predictions, see :func:`zoobot.stats.score_table.tabulate_scores`.

    Raises:
        PredictionError: the predictions do not fit the schema.
    """
    schema, predicted = matched.schema, matched.predicted
    intervals = None
    if f"{schema.label_cols[0]}_fraction_lower" in predicted.columns:
        intervals = read_intervals(predicted, schema)
    return tabulate_scores(
        matched.votes,
        read_fractions(predicted, schema),
        schema,
        read_concentrations(predicted, schema),
        reference_votes=matched.voted[schema.label_cols].to_numpy(np.float64),
        config=config,
        widths=None if intervals is None else intervals[1] - intervals[0],
    )


def summarise(rows: Sequence[ScoreRow]) -> dict[str, Any]:
    """``{"questions": {question: scores}, "all_questions": scores}`` of rows about all galaxies.

    Scores are ``galaxies`` and each measure but the PIT histogram, with ``baseline_...`` and ``floor_...``; those of
    agreed galaxies as ``agreed_galaxies`` and ``agreed_...``.

    >>> row = ScoreRow("bar", "", "accuracy", "agreed", 120, 0.9, None, None, 0.5, None)
    >>> summarise([row])["questions"]["bar"]["agreed_accuracy"]
    0.9
    """
    found: dict[str, dict[str, float | None]] = {}
    prefixes = {"all": "", "agreed": "agreed_"}
    for row in rows:
        if row.answer or row.subset not in prefixes or row.measure.startswith("pit_"):
            continue
        prefix, scores = prefixes[row.subset], found.setdefault(row.question, {})
        scores.setdefault(f"{prefix}galaxies", row.galaxies)  # of the loss, the first row
        for source, value in (("", row.value), ("baseline_", row.baseline), ("floor_", row.floor)):
            scores[f"{source}{prefix}{row.measure}"] = value
    return {ALL_QUESTIONS: found.pop(ALL_QUESTIONS, {}), "questions": found}


def evaluate(
    predictions: str | Path,
    catalog: str | Path,
    save_loc: str | Path | None = None,
    *,
    schema: Schema | None = None,
    fractions: str | Path | None = None,
    table_loc: str | Path | None = None,
    latex_loc: str | Path | None = None,
    roc_loc: str | Path | None = None,
    config: ScoreConfig | None = None,
) -> dict[str, Any]:
    """Score predictions against the votes of the galaxies that both tables hold.

    Args:
        predictions: a table that predict wrote.
        catalog: a table with ``id_str`` and votes.
        save_loc: where to write the scores as JSON.
        schema: the decision tree; found among the known ones by the predictions' columns when left out.
        fractions: a table of measured cumulative fractions (of everyone who looked, not of those who were asked):
            ``id_str`` and a column for each answer, or the Kaggle Galaxy Challenge's ``GalaxyID``, ``Class1.1``, ….
        table_loc: where to write ``measures`` as a table, csv, parquet or FITS by suffix.
        latex_loc: where to write the tables that papers print, as LaTeX.
        roc_loc: where to write the ROC curve of each answer as a table, a row a point.
        config: how ``measures`` are made.

    Returns:
        ``schema``, ``galaxies`` (scored), ``without_votes`` (predicted, but not in the catalog),
        ``without_predictions``; ``measures``, a list of each :class:`zoobot.stats.score_table.ScoreRow` as a
        dictionary: every score with its error bar, baseline and noise floor, with ``fractions`` also
        ``cumulative_rms_error``; those of all galaxies once more by name, as `summarise` gives them; and ``settings``.
        Baselines predict the mean votes of the whole catalog.

    Raises:
        PredictionError: the tables do not fit each other or the schema, or there are no votes.
        CatalogError: a table cannot be read or has faults.
        SettingError: ``save_loc`` does not end in .json, ``latex_loc`` not in .tex, or ``table_loc`` or ``roc_loc``
            has a suffix that cannot be written, or is one of the other files.
    """
    for name, given, suffix in (("save_loc", save_loc, ".json"), ("latex_loc", latex_loc, ".tex")):
        if given is not None and Path(given).suffix.lower() != suffix:  # none of the files it reads can be meant
            raise SettingError(f"{name}: got {given}, expected a name that ends in {suffix}")
    check_tables_to_write({"table_loc": table_loc, "roc_loc": roc_loc}, [predictions, catalog, fractions])
    settings = config or ScoreConfig()
    matched = match_votes(predictions, catalog, schema)
    cumulative = [] if fractions is None else [_score_cumulative(matched, fractions, settings)]
    rows = [*tabulate(matched, settings), *cumulative]
    scores = {
        "schema": matched.schema.name,
        "galaxies": len(matched.predicted),
        "without_votes": matched.without_votes,
        "without_predictions": len(matched.voted) - len(matched.predicted),
        **summarise(rows),
        "measures": [asdict(row) for row in rows],
        "settings": asdict(settings),
    }
    if save_loc is not None:
        with replace_atomically(save_loc) as path:
            path.write_text(json.dumps(scores, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if table_loc is not None:
        write_score_table(rows, table_loc)
    if latex_loc is not None:
        write_latex(rows, latex_loc, settings)
    if roc_loc is not None:
        known = read_fractions(matched.predicted, matched.schema)
        write_roc_curves(roc_curves(matched.votes, known, matched.schema, settings), matched.schema, roc_loc)
    return scores


def _guess_schema(predicted: pd.DataFrame, name: str | Path) -> Schema:
    answers = {
        str(column).removesuffix("_fraction") for column in predicted.columns if str(column).endswith("_fraction")
    }
    for known in schemas.available():
        schema = schemas.load(known)
        if set(schema.label_cols) == answers:
            return schema
    if not answers:
        raise PredictionError(f"{name} has no fractions of votes; expected what a model of votes predicted")
    raise PredictionError(
        f"{name} has fractions of {len(answers)} answers, which are those of no known schema; "
        "name yours with --schema (a name or a TOML file)"
    )


def _score_cumulative(matched: Matched, fractions: str | Path, config: ScoreConfig) -> ScoreRow:
    measured, everyone_asked = _read_cumulative(fractions, matched.schema)
    shared = matched.predicted.index.isin(measured.index)
    if not shared.any():
        raise PredictionError(
            f"{fractions} holds none of the predicted galaxies (its ids are such as {measured.index[0]!r})"
        )
    return tabulate_cumulative(
        matched.votes[shared],
        read_fractions(matched.predicted[shared], matched.schema),
        measured.loc[matched.predicted.index[shared]].to_numpy(np.float64),
        matched.schema,
        everyone_asked,
        reference_votes=matched.voted[matched.schema.label_cols].to_numpy(np.float64),
        config=config,
    )


def _read_cumulative(fractions: str | Path, schema: Schema) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Measured cumulative fractions by ``id_str``, and the questions that count as asked of everyone."""
    table = tables.read_table(fractions)
    if table.empty:
        raise PredictionError(f"{fractions} has no rows")
    everyone_asked: tuple[str, ...] = ()
    if "GalaxyID" in table.columns:
        table = table.drop(columns="id_str", errors="ignore").rename(columns={"GalaxyID": "id_str", **_kaggle_names()})
        everyone_asked = _KAGGLE_EVERYONE_ASKED
    missing = [name for name in ("id_str", *schema.label_cols) if name not in table.columns]
    if missing:
        raise PredictionError(
            f"{fractions} lacks {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}; it needs id_str and a "
            f"column for each answer of {schema.name}, or the Kaggle Galaxy Challenge's columns (of schema gz2_full)"
        )
    measured = table.assign(id_str=table["id_str"].astype(str)).set_index("id_str")[schema.label_cols]
    if measured.index.has_duplicates:
        raise PredictionError(f"{fractions} holds {measured.index[measured.index.duplicated()][0]!r} more than once")
    numbers = measured.apply(pd.to_numeric, errors="coerce")
    wrong = ~((numbers >= 0) & (numbers <= 1.0001)).all(axis=1)
    if wrong.any():
        raise PredictionError(
            f"{fractions} has {int(wrong.sum())} galaxies with values that are no fractions from 0 to 1, "
            f"such as {numbers.index[wrong][0]!r}"
        )
    return numbers, everyone_asked


def _kaggle_names() -> dict[str, str]:
    return {
        f"Class{question}.{answer}": f"{name}_{text}"
        for question, (name, texts) in enumerate(_KAGGLE_ANSWERS.items(), 1)
        for answer, text in enumerate(texts, 1)
    }
