"""How good predictions are: loss, errors of fractions and leading answers, beside the mean-vote baseline."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from zoobot.errors import SettingError
from zoobot.schemas import Schema
from zoobot.stats.galaxy_scores import measure_fractions
from zoobot.stats.predictive import log_predictive

__all__ = [
    "baseline_concentrations",
    "baseline_cumulative_rms",
    "baseline_fractions",
    "cumulative_rms",
    "evaluate_predictions",
]

Floats: TypeAlias = NDArray[np.float64]

CONFIDENT_FRACTION = 0.8
# votes that are all alike, and answers that nobody gives, have no finite best fit
_LOG_CONCENTRATION_BOUNDS = (math.log(1e-4), math.log(1e6))


def evaluate_predictions(
    votes: ArrayLike,
    fractions: ArrayLike,
    schema: Schema,
    concentrations: ArrayLike | None = None,
    reference_votes: ArrayLike | None = None,
) -> dict[str, Any]:
    """Score predictions against votes, for each question and for all, beside a baseline that sees no image.

    Only galaxies with votes for a question count for it. With its votes k, N = Σk, and predicted fractions f:

    - ``loss``: mean over galaxies of −log of the mixture of Dirichlet-multinomials (see `log_predictive`);
    - ``mean_absolute_error``, ``rms_error``: of f against k/N; mean over answers, by N over galaxies;
    - ``accuracy``: how often the answer with the highest f has the most votes. Where several answers tie for
      the most votes any of them is right; where several f tie the first of them is the prediction;
    - ``confident_accuracy``: the same for the ``confident_galaxies``, whose leading k/N is above 0.8;
    - ``baseline_...``: the same for `baseline_fractions` and `baseline_concentrations` as predictions.

    For ``all_questions``, loss is the sum over questions (mean over galaxies with any votes); the errors are
    averaged over questions as over galaxies, weighted by N; accuracies are over all pairs of galaxy and
    question, and ``confident_galaxies`` counts such pairs.

    Args:
        votes: (galaxies, answers), finite and ≥ 0.
        fractions: (galaxies, answers), predicted; sum to one for each question.
        schema: the decision tree.
        concentrations: (galaxies, samples, answers) or (galaxies, answers); without them ``loss`` is None.
        reference_votes: (any galaxies, answers), votes to make the baseline from, such as those trained on;
            the same ``votes`` if not given.

    Returns:
        ``{"questions": {question: scores}, "all_questions": scores}``, ready for JSON; None where there are
        no votes.

    Raises:
        SettingError: shapes do not fit, or votes or fractions are not finite and ≥ 0.

    >>> from zoobot import schemas
    >>> scores = evaluate_predictions([[3, 1], [0, 0]], [[0.5, 0.5], [0.9, 0.1]], schemas.load("gz_rings"))
    >>> scores["questions"]["ring"]["mean_absolute_error"], scores["questions"]["ring"]["galaxies"]
    (0.25, 1)
    """
    counts = _checked("votes", votes, schema)
    predicted = _checked("fractions", fractions, schema)
    reference = counts if reference_votes is None else _checked("reference_votes", reference_votes, schema)
    if predicted.shape != counts.shape:
        raise SettingError(f"fractions: got shape {predicted.shape}, expected {counts.shape}, that of the votes.")
    groups = schema.question_index_groups
    baseline = np.broadcast_to(baseline_fractions(reference, schema), counts.shape)
    constant = np.broadcast_to(baseline_concentrations(reference, schema), counts.shape)
    totals = np.stack([counts[:, first : last + 1].sum(axis=1) for first, last in groups], axis=1)
    measured = {
        **measure_fractions(counts, predicted, groups),
        **{f"baseline_{name}": values for name, values in measure_fractions(counts, baseline, groups).items()},
        "baseline_loss": -log_predictive(counts, constant, groups),
    }
    if concentrations is not None:
        measured["loss"] = -log_predictive(counts, concentrations, groups)
    columns = {name: [index] for index, name in enumerate(schema.question_names)}
    return {
        "questions": {name: _scores(totals, measured, column) for name, column in columns.items()},
        "all_questions": _scores(totals, measured, list(range(len(groups)))),
    }


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
    pooled = _checked("votes", votes, schema).sum(axis=0)
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
    counts = _checked("votes", votes, schema)
    groups = schema.question_index_groups
    fitted = [_most_probable(counts[:, first : last + 1]) for first, last in groups]
    return np.asarray(np.concatenate(fitted), dtype=np.float64)


def cumulative_rms(
    fractions: ArrayLike, measured_cumulative: ArrayLike, schema: Schema, everyone_asked: Sequence[str] = ()
) -> float:
    """RMS error of the whole tree's cumulative fractions over galaxies and answers (Kaggle's figure).

    A cumulative fraction is an answer's fraction among all volunteers: its fraction × the chance to be asked.

    Args:
        fractions: (galaxies, answers) or (answers,) for one prediction for all; predicted, not cumulative.
        measured_cumulative: (galaxies, answers); finite.
        schema: the decision tree, whose ``label_cols`` are the order of the answers.
        everyone_asked: names of questions that the measured fractions count as asked of everyone, whatever
            the tree says; Kaggle does so with GZ2's something-odd.

    Raises:
        SettingError: shapes do not fit, values are not finite, or the schema has no such question.

    >>> from zoobot import schemas
    >>> cumulative_rms([[0.5, 0.5]], [[0.9, 0.1]], schemas.load("gz_rings"))
    0.4
    """
    if unknown := sorted(set(everyone_asked) - set(schema.question_names)):
        raise SettingError(f"everyone_asked: got {unknown}, expected names among {schema.question_names}.")
    measured = _checked("measured_cumulative", measured_cumulative, schema)
    predicted = _checked("fractions", np.atleast_2d(fractions), schema)
    if len(predicted) not in (1, len(measured)) or not len(measured):
        raise SettingError(
            f"fractions: got {len(predicted)} galaxies, expected {len(measured)} (at least 1), as in "
            "measured_cumulative."
        )
    questions = tuple(
        dataclasses.replace(question, asked_after=()) if question.name in everyone_asked else question
        for question in schema.questions
    )
    cumulative = dataclasses.replace(schema, questions=questions).cumulative_fractions(predicted)
    return float(np.sqrt(np.mean((cumulative - measured) ** 2)))


def baseline_cumulative_rms(
    reference_votes: ArrayLike,
    measured_cumulative: ArrayLike,
    schema: Schema,
    everyone_asked: Sequence[str] = (),
) -> float:
    """`cumulative_rms` of predicting for every galaxy the mean votes (`baseline_fractions`) of the reference.

    >>> from zoobot import schemas
    >>> baseline_cumulative_rms([[5, 5], [2, 2]], [[0.9, 0.1]], schemas.load("gz_rings"))
    0.4
    """
    fractions = baseline_fractions(reference_votes, schema)
    return cumulative_rms(fractions, measured_cumulative, schema, everyone_asked)


def _checked(name: str, values: ArrayLike, schema: Schema) -> Floats:
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


def _scores(totals: Floats, measured: dict[str, Floats], columns: list[int]) -> dict[str, int | float | None]:
    """Summary of what was measured, over galaxies and the questions in ``columns``."""
    votes = totals[:, columns]
    values = {name: each[:, columns] for name, each in measured.items()}
    voted = np.asarray(votes > 0)
    galaxies = np.asarray(voted.any(axis=1))
    confident: NDArray[np.bool_] = voted & (values["leading"] > CONFIDENT_FRACTION)
    scores: dict[str, int | float | None] = {
        "galaxies": int(galaxies.sum()),
        "votes": float(votes.sum()),
        "confident_galaxies": int(confident.sum()),
    }
    for prefix in ("", "baseline_"):
        losses = values.get(f"{prefix}loss")
        correct = values[f"{prefix}correct"]
        scores[f"{prefix}loss"] = None if losses is None else _mean(losses.sum(axis=1), galaxies)
        scores[f"{prefix}mean_absolute_error"] = _mean(values[f"{prefix}mean_absolute_error"], votes)
        mean_square = _mean(values[f"{prefix}mean_square_error"], votes)
        scores[f"{prefix}rms_error"] = None if mean_square is None else mean_square**0.5
        scores[f"{prefix}accuracy"] = _mean(correct, voted)
        scores[f"{prefix}confident_accuracy"] = _mean(correct, confident)
    return scores


def _mean(values: Floats, weights: NDArray[Any]) -> float | None:
    """Weighted mean; None where there is no weight at all."""
    return float(np.average(values, weights=weights)) if weights.any() else None


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
