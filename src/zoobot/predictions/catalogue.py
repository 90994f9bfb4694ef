"""Posteriors as a table: the columns of a catalogue of predictions."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from zoobot.errors import PredictionError
from zoobot.schemas import Schema
from zoobot.stats import dirichlet
from zoobot.stats.trees import blank_unlikely_asked

__all__ = [
    "CREDIBILITY",
    "count_columns",
    "make_catalogue",
    "make_friendly",
    "read_concentrations",
    "read_fractions",
    "read_intervals",
]

CREDIBILITY = 0.9


def make_catalogue(
    id_str: Sequence[str],
    file_loc: Sequence[str],
    concentrations: NDArray[np.float32],
    schema: Schema,
    *,
    keep_concentrations: bool = True,
    raw: NDArray[np.float32] | None = None,
) -> pd.DataFrame:
    """Turn concentrations into a table with a row for each galaxy.

    Args:
        id_str: names, (galaxies,).
        file_loc: where the images came from, (galaxies,).
        concentrations: (galaxies, samples, answers).
        schema: the decision tree.
        keep_concentrations: add the concentrations themselves.
        raw: concentrations from before a recalibration, to add too; same shape.

    Returns:
        Columns ``id_str``, ``file_loc``; for each answer ``<answer>_fraction`` (the expected vote fraction),
        ``_fraction_lower`` and ``_fraction_upper`` (the equal-tailed 90% credible interval of the mixture over
        samples); for each question ``<question>_proportion_asked`` (the expected share of volunteers who are asked
        it); if kept, ``<answer>_concentration``, or ``_concentration_0``, ``_1``, … of several samples, and the same
        of ``_raw_concentration``. All float32.
    """
    groups = schema.question_index_groups
    fractions = dirichlet.expected_fractions(concentrations, groups)
    lower, upper = dirichlet.fraction_intervals(concentrations, groups, CREDIBILITY)
    samples = concentrations.shape[1]
    asked = sum(
        schema.proportion_asked(dirichlet.expected_fractions(concentrations[:, sample], groups))
        for sample in range(samples)
    )
    columns: dict[str, NDArray[np.floating]] = {}
    for number, answer in enumerate(schema.label_cols):
        columns[f"{answer}_fraction"] = fractions[:, number]
        columns[f"{answer}_fraction_lower"] = lower[:, number]
        columns[f"{answer}_fraction_upper"] = upper[:, number]
    for number, question in enumerate(schema.question_names):
        columns[f"{question}_proportion_asked"] = np.asarray(asked)[:, number] / samples
    kept = {"concentration": concentrations if keep_concentrations else None, "raw_concentration": raw}
    for kind, values in kept.items():
        if values is not None:
            for number, answer in enumerate(schema.label_cols):
                for sample in range(samples):
                    suffix = f"_{sample}" if samples > 1 else ""
                    columns[f"{answer}_{kind}{suffix}"] = values[:, sample, number]
    numbers = {name: values.astype(np.float32) for name, values in columns.items()}
    return pd.DataFrame({"id_str": list(id_str), "file_loc": list(file_loc), **numbers})


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


def count_columns(schema: Schema, samples: int) -> int:
    """How many columns :func:`make_catalogue` gives, with the concentrations of so many samples."""
    return 2 + (3 + samples) * len(schema.label_cols) + len(schema.questions)


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
