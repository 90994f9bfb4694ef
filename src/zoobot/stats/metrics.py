"""The mean-vote baseline, which sees no image, and the errors of cumulative fractions."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from zoobot.errors import SettingError
from zoobot.schemas import Schema
from zoobot.stats.concentrations import Floats

__all__ = ["baseline_concentrations", "baseline_fractions", "check_answers", "cumulative_square_errors"]

# votes that are all alike, and answers that nobody gives, have no finite best fit
_LOG_CONCENTRATION_BOUNDS = (math.log(1e-4), math.log(1e6))


def baseline_fractions(votes: ArrayLike, schema: Schema) -> Floats:
    """Mean votes: of all votes for a question, the fraction for each answer.

    Args:
        votes: (galaxies, answers), finite and ≥ 0.
        schema: the decision tree.

    Returns:
        (answers,) float64; equal fractions where a question has no votes.

    Raises:
        SettingError: the shape does not fit, or a vote is not finite and ≥ 0.

    >>> from zoobot import schemas
    >>> baseline_fractions([[3, 0], [3, 2]], schemas.load("gz_rings"))
    array([0.75, 0.25])
    """
    pooled = check_answers("votes", votes, schema).sum(axis=0)
    fractions: Floats = np.empty_like(pooled)
    for first, last in schema.question_index_groups:
        question = pooled[first : last + 1]
        fractions[first : last + 1] = question / question.sum() if question.any() else 1 / len(question)
    return fractions


def baseline_concentrations(votes: ArrayLike, schema: Schema) -> Floats:
    """Concentrations that, used for every galaxy, make the votes most probable: the best constant prediction.

    Args:
        votes: (galaxies, answers), finite and ≥ 0.
        schema: the decision tree.

    Returns:
        (answers,) float64, between 1e-4 and 1e6, which stand for the limits 0 and infinity; 1 where a
        question has no votes.

    Raises:
        SettingError: the shape does not fit, or a vote is not finite and ≥ 0.

    >>> from zoobot import schemas
    >>> votes = [[4, 4]] * 3 + [[6, 2], [2, 6], [8, 0], [0, 8]]
    >>> baseline_concentrations(votes, schemas.load("gz_rings")).round(2)
    array([1.15, 1.15])
    """
    counts = check_answers("votes", votes, schema)
    groups = schema.question_index_groups
    fitted = [_most_probable(counts[:, first : last + 1]) for first, last in groups]
    return np.asarray(np.concatenate(fitted), dtype=np.float64)


def cumulative_square_errors(
    fractions: ArrayLike, measured_cumulative: ArrayLike, schema: Schema, everyone_asked: Sequence[str] = ()
) -> Floats:
    """Square error of each galaxy's cumulative fractions, the mean over the answers of the whole tree.

    A cumulative fraction is an answer's fraction among all volunteers: its fraction × the chance to be asked. The root
    of the mean over galaxies is the figure of the Kaggle Galaxy Challenge.

    Args:
        fractions: (galaxies, answers) or (answers,) for one prediction for all; predicted, not cumulative.
        measured_cumulative: (galaxies, answers); finite.
        schema: the decision tree, whose ``label_cols`` are the order of the answers.
        everyone_asked: names of questions that the measured fractions count as asked of everyone, whatever
            the tree says; Kaggle does so with GZ2's something-odd.

    Returns:
        (galaxies,) float64.

    Raises:
        SettingError: shapes do not fit, values are not finite, or the schema has no such question.

    >>> from zoobot import schemas
    >>> cumulative_square_errors([[0.5, 0.5]], [[0.9, 0.1]], schemas.load("gz_rings")).round(6)
    array([0.16])
    """
    if unknown := sorted(set(everyone_asked) - set(schema.question_names)):
        raise SettingError(f"everyone_asked: got {unknown}, expected names among {schema.question_names}.")
    measured = check_answers("measured_cumulative", measured_cumulative, schema)
    predicted = check_answers("fractions", np.atleast_2d(fractions), schema)
    if len(predicted) not in (1, len(measured)):
        raise SettingError(
            f"fractions: got {len(predicted)} galaxies, expected {len(measured)}, as in measured_cumulative."
        )
    questions = tuple(
        dataclasses.replace(question, asked_after=()) if question.name in everyone_asked else question
        for question in schema.questions
    )
    cumulative = dataclasses.replace(schema, questions=questions).cumulative_fractions(predicted)
    errors: Floats = ((cumulative - measured) ** 2).mean(axis=1)
    return errors


def check_answers(name: str, values: ArrayLike, schema: Schema) -> Floats:
    """Check that values of a galaxy's answers are (galaxies, answers), finite and ≥ 0, and return them as float64.

    Raises:
        SettingError: they are not; ``name`` is what the message calls them.

    >>> from zoobot import schemas
    >>> check_answers("votes", [[3, 1]], schemas.load("gz_rings"))
    array([[3., 1.]])
    """
    array = np.asarray(values, dtype=np.float64)
    answers = len(schema.label_cols)
    if array.ndim != 2 or array.shape[1] != answers:
        raise SettingError(
            f"{name}: got shape {array.shape}, expected (galaxies, {answers}) to fit schema {schema.name}."
        )
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise SettingError(
            f"{name}: got {array[row, column]} for {schema.label_cols[column]} in row {row}, "
            "expected a finite number of at least 0."
        )
    return array


def _most_probable(votes: Floats) -> Floats:
    """Concentrations of one question (answers,) that maximise its Dirichlet-multinomial likelihood."""
    votes = votes[votes.sum(axis=1) > 0]
    if not len(votes):
        return np.ones(votes.shape[1])
    # galaxies share few distinct counts: the sums run over those, however many galaxies there are
    answers = [np.unique(column, return_counts=True) for column in votes.T]
    total_counts = np.unique(votes.sum(axis=1), return_counts=True)

    def term(base: float, counts: tuple[Floats, NDArray[np.int_]]) -> tuple[float, float]:
        values, times = counts
        rise = special.gammaln(base + values) - special.gammaln(base)
        slope = special.psi(base + values) - special.psi(base)
        return float(times @ rise), float(times @ slope)

    def loss_and_gradient(log_alpha: Floats) -> tuple[float, Floats]:
        alpha = np.exp(log_alpha)
        total, total_slope = term(float(alpha.sum()), total_counts)
        each = np.array([term(a, counts) for a, counts in zip(alpha, answers, strict=True)])
        return (total - each[:, 0].sum()) / len(votes), alpha * (total_slope - each[:, 1]) / len(votes)

    start = np.log(votes.sum(axis=0) / votes.sum() * 5 + 1e-3)  # 5: volunteers' usual disagreement
    bounds = [_LOG_CONCENTRATION_BOUNDS] * len(start)
    best = optimize.minimize(
        loss_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-9},
    )
    fitted: Floats = np.exp(best.x)
    return fitted
