"""Scores of leading answers as classes: precision, recall, F1, ROC curves and the area under them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoobot.errors import SettingError
from zoobot.stats.bootstrap import divide
from zoobot.stats.concentrations import Floats

__all__ = ["RocCurve", "area_under_roc", "classification_scores", "roc_curve"]

_BATCH_VALUES = 2_000_000  # weights worked on at once, some 100 MB of temporaries


@dataclass(frozen=True)
class RocCurve:
    """Rates when all galaxies of at least a score count as positive; from none of them to all.

    Attributes:
        false_positive_rate: share of the negative galaxies that are above, (points,), rising from 0 to 1.
        true_positive_rate: share of the positive ones.
        thresholds: the scores; infinite at the first point.
    """

    false_positive_rate: Floats
    true_positive_rate: Floats
    thresholds: Floats


def classification_scores(confusion: ArrayLike) -> dict[str, Floats]:
    """Accuracy, and precision, recall and F1 as means over answers, plain (macro) and weighted by their galaxies.

    Of each answer, with the matrix's row sum (true), column sum (predicted) and diagonal (right): precision =
    right / predicted, recall = right / true, F1 = 2 right / (true + predicted), 0 where there is nothing to divide by.
    Answers that are neither true nor predicted of any galaxy do not count. Weights are the true galaxies, as in the
    tables of Galaxy Zoo DECaLS (Walmsley et al. 2022, MNRAS 509, 3966); so weighted recall is the accuracy.

    Args:
        confusion: (..., answers, answers), galaxies by true (row) and predicted (column) answer, ≥ 0.

    Returns:
        ``accuracy`` and ``precision_macro``, ``recall_macro``, ``f1_macro``, ``precision_weighted``, ...; each (...)
        float64, NaN where there are no galaxies.

    Raises:
        SettingError: not square matrices.

    >>> scores = classification_scores([[2, 1], [0, 1]])
    >>> {name: round(float(value), 3) for name, value in scores.items() if name.endswith("macro")}
    {'precision_macro': 0.75, 'recall_macro': 0.833, 'f1_macro': 0.733}
    """
    matrix = np.asarray(confusion, dtype=np.float64)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise SettingError(f"confusion: got shape {matrix.shape}, expected (..., answers, answers).")
    true, predicted = matrix.sum(axis=-1), matrix.sum(axis=-2)
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    each = {
        "precision": divide(right, predicted, 0),
        "recall": divide(right, true, 0),
        "f1": divide(2 * right, true + predicted, 0),
    }
    total, met = true.sum(axis=-1), (true + predicted > 0).astype(np.float64)
    scores = {"accuracy": divide(right.sum(axis=-1), total)}
    for mean, weights in (("macro", met), ("weighted", true)):
        for name, values in each.items():
            scores[f"{name}_{mean}"] = divide((values * weights).sum(axis=-1), weights.sum(axis=-1))
    return scores


def roc_curve(positive: ArrayLike, scores: ArrayLike) -> RocCurve:
    """Receiver operating characteristic: true against false positives as the threshold falls.

    Args:
        positive: (galaxies,) of True and False, such as whether an answer leads in votes.
        scores: (galaxies,), higher where positive is more likely, such as its predicted fraction; equal ones make
            one point. Points on the straight line between others are left out.

    Raises:
        SettingError: shapes do not fit, a score is NaN, or all galaxies are positive, or none.

    >>> curve = roc_curve([True, False, True], [0.9, 0.5, 0.2])
    >>> curve.false_positive_rate, curve.true_positive_rate
    (array([0., 0., 1., 1.]), array([0. , 0.5, 0.5, 1. ]))
    """
    is_positive, values = _checked(positive, scores)
    if is_positive.all() or not is_positive.any():
        raise SettingError("positive: got galaxies all of one kind, expected some that are and some that are not.")
    order = np.argsort(-values, kind="stable")
    last_of_ties = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))
    true = np.append(0, np.cumsum(is_positive[order])[last_of_ties])
    false = np.append(0, last_of_ties + 1) - true
    turns = np.diff(true)[:-1] * np.diff(false)[1:] != np.diff(true)[1:] * np.diff(false)[:-1]
    corners = np.concatenate([[True], turns, [True]])
    thresholds = np.append(np.inf, values[order][last_of_ties])
    return RocCurve((false / false[-1])[corners], (true / true[-1])[corners], thresholds[corners])


def area_under_roc(positive: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Area under the ROC curve: the probability that a positive galaxy scores above a negative one, ties by half.

    Args:
        positive: (galaxies,) of True and False.
        scores: (galaxies,).
        weights: (resamples, galaxies), ≥ 0, how often each galaxy counts in each of many resamples; once if not given.

    Returns:
        (resamples,) float64, or () without weights; NaN where there are no positive galaxies, or no negative ones.

    Raises:
        SettingError: shapes do not fit, or a score is NaN.

    >>> area_under_roc([True, False, True], [0.9, 0.5, 0.2])
    array(0.5)
    """
    is_positive, values = _checked(positive, scores)
    times = np.ones((1, len(values))) if weights is None else np.asarray(weights)
    if times.ndim != 2 or times.shape[1] != len(values):
        raise SettingError(f"weights: got shape {times.shape}, expected (resamples, {len(values)}).")
    areas = np.full(len(times), np.nan)
    if len(values):
        order = np.argsort(values, kind="stable")
        starts = np.flatnonzero(np.append(True, np.diff(values[order]) != 0))
        size = max(1, _BATCH_VALUES // len(values))
        for start in range(0, len(times), size):
            areas[start : start + size] = _areas(is_positive[order], starts, times[start : start + size, order])
    return areas if weights is not None else areas.reshape(())


def _areas(positive: NDArray[np.bool_], starts: NDArray[np.intp], weights: NDArray[np.number]) -> Floats:
    """Areas for weights (resamples, galaxies), galaxies by rising score, those that tie from each start on."""
    above = np.add.reduceat(np.where(positive, weights, 0.0), starts, axis=1)
    below = np.add.reduceat(np.where(positive, 0.0, weights), starts, axis=1)
    pairs = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
    return divide(pairs, above.sum(axis=1) * below.sum(axis=1))


def _checked(positive: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    is_positive, values = np.asarray(positive, dtype=np.bool_), np.asarray(scores, dtype=np.float64)
    if is_positive.ndim != 1 or is_positive.shape != values.shape:
        raise SettingError(f"positive, scores: got shapes {is_positive.shape} and {values.shape}, expected one each.")
    if np.isnan(values).any():
        raise SettingError("scores: got NaN, expected numbers.")
    return is_positive, values
