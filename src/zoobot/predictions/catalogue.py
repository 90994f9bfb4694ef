"""Posteriors as a table: the columns of a catalogue of predictions."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from zoobot.data import tables
from zoobot.errors import PredictionError, SettingError
from zoobot.schemas import Schema
from zoobot.stats import dirichlet
from zoobot.stats.concentrations import Floats
from zoobot.stats.trees import blank_unlikely_asked, estimate_tree
from zoobot.stats.uncertainty import next_vote_uncertainty, probability_leads

__all__ = [
    "CREDIBILITY",
    "INTERVALS",
    "check_tables_to_write",
    "count_columns",
    "make_catalogue",
    "make_friendly",
    "read_concentrations",
    "read_fractions",
    "read_intervals",
]

CREDIBILITY = 0.9
INTERVALS = {"equal-tailed": dirichlet.fraction_intervals, "shortest": dirichlet.highest_density_intervals}
"""The kinds of credible intervals of fractions; the shortest take longer."""


def make_catalogue(
    id_str: Sequence[str],
    file_loc: Sequence[str],
    concentrations: NDArray[np.float32],
    schema: Schema,
    *,
    bad_pixels: NDArray[np.int64] | None = None,
    keep_concentrations: bool = True,
    raw: NDArray[np.float32] | None = None,
    uncertainty: bool = False,
    intervals: str = "equal-tailed",
) -> pd.DataFrame:
    """Turn concentrations into a table with a row for each galaxy.

    Args:
        id_str: names, (galaxies,).
        file_loc: where the images came from, (galaxies,).
        concentrations: (galaxies, samples, answers).
        schema: the decision tree.
        bad_pixels: how many pixels of each image were filled, (galaxies,), to add too.
        keep_concentrations: add the concentrations themselves.
        raw: concentrations from before a recalibration, to add too; same shape.
        uncertainty: add what else the posterior says, see below.
        intervals: which credible intervals of fractions, one of `INTERVALS`.

    Returns:
        Columns ``id_str``, ``file_loc``, ``bad_pixels``; for each answer ``<answer>_fraction`` (the expected fraction),
        ``_fraction_lower`` and ``_fraction_upper`` (the 90% credible interval of the mixture over samples); for each
        question ``<question>_proportion_asked`` (the expected share of volunteers who are asked it); if kept,
        ``<answer>_concentration``, or ``_concentration_0``, ``_1``, … of several samples, and the same of
        ``_raw_concentration``. With ``uncertainty``, for each answer ``<answer>_probability_leads`` (that its fraction
        is the highest of its question), ``_cumulative``, ``_cumulative_lower`` and ``_cumulative_upper`` (its share of
        all volunteers), and for each question ``<question>_proportion_asked_lower``, ``_upper``, ``_entropy`` (of the
        next vote, in nats) and ``_between_samples`` (the part of it that is the samples' disagreement); these intervals
        are equal-tailed, and quantiles of 1,000 draws (see `estimate_tree`). All float32.
    """
    groups = schema.question_index_groups
    lower, upper = INTERVALS[intervals](concentrations, groups, CREDIBILITY)
    fractions = dirichlet.expected_fractions(concentrations, groups)
    columns = _name(schema.label_cols, {"_fraction": fractions, "_fraction_lower": lower, "_fraction_upper": upper})
    columns |= _name(schema.question_names, {"_proportion_asked": _proportions_asked(concentrations, schema)})
    if uncertainty:
        columns |= _measure_uncertainty(concentrations, schema)
    kept = {"concentration": concentrations if keep_concentrations else None, "raw_concentration": raw}
    for kind, values in kept.items():
        if values is not None:
            samples = values.shape[1]
            suffixes = [f"_{kind}_{sample}" for sample in range(samples)] if samples > 1 else [f"_{kind}"]
            columns |= _name(schema.label_cols, dict(zip(suffixes, values.swapaxes(0, 1), strict=True)))
    numbers = {name: values.astype(np.float32) for name, values in columns.items()}
    filled = {} if bad_pixels is None else {"bad_pixels": bad_pixels}
    return pd.DataFrame({"id_str": list(id_str), "file_loc": list(file_loc), **filled, **numbers})


def _name(names: Sequence[str], measures: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Columns of arrays of (galaxies, answers) or (galaxies, questions), by name and suffix."""
    return {
        f"{name}{suffix}": values[:, number] for number, name in enumerate(names) for suffix, values in measures.items()
    }


def _proportions_asked(concentrations: NDArray[np.float32], schema: Schema) -> Floats:
    """The mean over samples of what each expects, since questions are independent only within a sample."""
    groups, samples = schema.question_index_groups, concentrations.shape[1]
    each = (dirichlet.expected_fractions(concentrations[:, sample], groups) for sample in range(samples))
    asked: Floats = np.mean([schema.proportion_asked(fractions) for fractions in each], axis=0)
    return asked


def _measure_uncertainty(concentrations: NDArray[np.float32], schema: Schema) -> dict[str, NDArray[Any]]:
    groups = schema.question_index_groups
    next_vote = next_vote_uncertainty(concentrations, groups)
    tree = estimate_tree(concentrations, schema, CREDIBILITY)
    asked, cumulative = tree.proportions_asked, tree.cumulative_fractions
    of_answers = {
        "_probability_leads": probability_leads(concentrations, groups),
        "_cumulative": cumulative.mean,
        "_cumulative_lower": cumulative.lower,
        "_cumulative_upper": cumulative.upper,
    }
    of_questions = {
        "_proportion_asked_lower": asked.lower,
        "_proportion_asked_upper": asked.upper,
        "_entropy": next_vote.entropy,
        "_between_samples": next_vote.between_samples,
    }
    return _name(schema.label_cols, of_answers) | _name(schema.question_names, of_questions)


def make_friendly(catalogue: pd.DataFrame, schema: Schema, threshold: float = 0.5) -> pd.DataFrame:
    """Make a table to read out of one to compute with: what is not likely to be asked of a galaxy is left blank.

    Args:
        catalogue: from :func:`make_catalogue`.
        schema: the decision tree.
        threshold: the least share of volunteers who are expected to be asked, for a question to be answered.

    Returns:
        ``id_str``, ``file_loc``; for each question ``<question>``, the leading answer in words, and for each of its
        answers ``<answer>_fraction``, rounded to a thousandth; missing where it is blank.
    """
    asked = catalogue[[f"{name}_proportion_asked" for name in schema.question_names]].to_numpy(np.float64)
    fractions = blank_unlikely_asked(read_fractions(catalogue, schema), asked, schema, threshold)
    columns: dict[str, Any] = {"id_str": catalogue["id_str"], "file_loc": catalogue["file_loc"]}
    for question, (first, last) in zip(schema.questions, schema.question_index_groups, strict=True):
        shown = fractions[:, first : last + 1]
        texts = np.array([answer.text for answer in question.answers], object)
        leading = texts[np.nan_to_num(shown).argmax(axis=1)]
        columns[question.name] = np.where(np.isnan(shown[:, 0]), None, leading)
        for place, answer in enumerate(question.answers):
            columns[f"{answer.label_col}_fraction"] = shown[:, place].round(3)
    return pd.DataFrame(columns)


def count_columns(schema: Schema, samples: int, *, uncertainty: bool = False) -> int:
    """How many columns :func:`make_catalogue` gives, with ``bad_pixels`` and the concentrations of so many samples."""
    answers, questions = len(schema.label_cols), len(schema.questions)
    return 3 + (3 + samples) * answers + questions + (4 * (answers + questions) if uncertainty else 0)


def check_tables_to_write(written: Mapping[str, str | Path | None], read: Sequence[str | Path | None]) -> None:
    """Check before the work that tables can be written, each to a place of its own, and over none that is read.

    Args:
        written: where they go, by what the message calls them; None for those that are not wanted.
        read: where others are.

    Raises:
        SettingError: they cannot.

    >>> check_tables_to_write({"save_loc": "catalog.csv"}, ["./catalog.csv"])
    Traceback (most recent call last):
    zoobot.errors.SettingError: save_loc: got catalog.csv, where another table is or goes; choose another name
    """
    taken = {Path(path).resolve() for path in read if path is not None}
    for name, path in written.items():
        if path is not None:
            tables.check_table_suffix(path)
            if Path(path).resolve() in taken:
                raise SettingError(f"{name}: got {path}, where another table is or goes; choose another name")
            taken.add(Path(path).resolve())


def read_fractions(catalogue: pd.DataFrame, schema: Schema) -> NDArray[np.float64]:
    """The expected vote fractions of a catalogue: (galaxies, answers).

    Raises:
        PredictionError: columns are missing, or hold something else than fractions.
    """
    names = [f"{answer}_fraction" for answer in schema.label_cols]
    missing = [name for name in names if name not in catalogue.columns]
    if missing:
        raise PredictionError(
            f"the predictions lack {len(missing)} of the {len(names)} columns for schema {schema.name}: "
            f"{', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}; were they made for another schema?"
        )
    fractions = _as_numbers(catalogue, names)
    wrong = ~((fractions >= 0) & (fractions <= 1)).all(axis=1)
    if wrong.any():
        raise PredictionError(
            f"the predictions hold {int(wrong.sum())} rows whose fractions are not between 0 and 1, "
            f"the first at row {int(np.flatnonzero(wrong)[0]) + 1}"
        )
    return fractions


def read_intervals(catalogue: pd.DataFrame, schema: Schema) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lower and upper edges of the fractions' credible intervals: each (galaxies, answers).

    Raises:
        PredictionError: columns are missing, or hold something else than intervals within 0 to 1.
    """
    edges = [[f"{answer}_fraction_{edge}" for answer in schema.label_cols] for edge in ("lower", "upper")]
    missing = [name for names in edges for name in names if name not in catalogue.columns]
    if missing:
        raise PredictionError(
            f"the predictions lack intervals: {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}"
        )
    lower, upper = _as_numbers(catalogue, edges[0]), _as_numbers(catalogue, edges[1])
    wrong = ~((lower >= 0) & (lower <= upper) & (upper <= 1)).all(axis=1)
    if wrong.any():
        raise PredictionError(
            f"the predictions hold {int(wrong.sum())} rows with intervals that are not within 0 to 1, "
            f"the first at row {int(np.flatnonzero(wrong)[0]) + 1}"
        )
    return lower, upper


def read_concentrations(catalogue: pd.DataFrame, schema: Schema) -> NDArray[np.float64] | None:
    """The concentrations of a catalogue, (galaxies, samples, answers), or nothing where it does not hold them.

    Raises:
        PredictionError: some are there and others are missing, or are not above zero.
    """
    answers = "|".join(map(re.escape, schema.label_cols))
    pattern = re.compile(rf"(?:{answers})_concentration(_\d+)?")
    matches = (pattern.fullmatch(str(name)) for name in catalogue.columns)
    samples = list(dict.fromkeys(match[1] or "" for match in matches if match))
    if not samples:
        return None
    names = [f"{answer}_concentration{sample}" for sample in samples for answer in schema.label_cols]
    missing = [name for name in names if name not in catalogue.columns]
    if missing:
        raise PredictionError(f"the predictions hold some concentrations but lack {', '.join(missing[:3])}")
    concentrations = _as_numbers(catalogue, names).reshape(len(catalogue), len(samples), -1)
    if not (concentrations > 0).all() or not np.isfinite(concentrations).all():
        raise PredictionError("the predictions hold concentrations that are not finite numbers above zero")
    return concentrations


def _as_numbers(catalogue: pd.DataFrame, names: list[str]) -> NDArray[np.float64]:
    try:
        return catalogue[names].to_numpy(np.float64)
    except (ValueError, TypeError) as error:
        raise PredictionError(f"the predictions hold something else than numbers: {error}") from error
