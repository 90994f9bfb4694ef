"""How well predictions and volunteers agree, galaxy by galaxy and question by question: what a report draws."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from zoobot.errors import SettingError
from zoobot.stats.bootstrap import divide
from zoobot.stats.concentrations import Floats, Groups, check_question_index_groups, sum_questions
from zoobot.stats.galaxy_scores import compare_leading
from zoobot.stats.predictive import log_predictive

__all__ = [
    "Reliability",
    "TruthScores",
    "bin_by_confidence",
    "compare_with_truth",
    "confusion_matrix",
    "excess_loss",
    "relative_loss",
    "reliability",
    "sum_calibration_errors",
]


@dataclass(frozen=True)
class Reliability:
    """Galaxies in bins of the confidence in their leading answer; each field has one value for each bin.

    Attributes:
        confidence: mean predicted fraction of the leading answer, weighted by votes.
        agreement: share of the votes that are for it.
        standard_error: of the agreement.
        galaxies: how many.
    """

    confidence: Floats
    agreement: Floats
    standard_error: Floats
    galaxies: NDArray[np.int_]


@dataclass(frozen=True)
class TruthScores:
    """How predicted fractions of one question compare with the true ones; NaN where there is nothing to compare.

    Attributes:
        correlation: Pearson's, of deviations from each answer's mean; for two answers that of either.
        rms_error: over galaxies and answers.
        coverage: share of the intervals that hold the true fraction.
        galaxies: how many were compared.
    """

    correlation: float
    rms_error: float
    coverage: float
    galaxies: int


def excess_loss(votes: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """Loss beyond the least there can be for these votes, that of a multinomial with just the fractions k/N.

    ``−log_predictive(k) + lnΓ(N+1) + Σ[k ln(k/N) − lnΓ(k+1)]``, at least 0 whatever the number of votes.

    Args:
        votes: (galaxies, answers), ≥ 0.
        concentrations: (galaxies, samples, answers) or (galaxies, answers); finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (galaxies, questions) float64; 0 where a question has no votes.

    Raises:
        SettingError: as `log_predictive`.

    >>> excess_loss([[1, 0]], [[1.0, 3.0]], [(0, 1)]).round(6)  # log 1 − log(1/4)
    array([[1.386294]])
    """
    groups = check_question_index_groups(question_index_groups)
    predicted = log_predictive(votes, concentrations, groups)
    counts = np.asarray(votes, dtype=np.float64)
    totals = sum_questions(counts, groups)
    answers = sum_questions(special.xlogy(counts, counts) - special.gammaln(counts + 1), groups)
    excess: Floats = special.gammaln(totals + 1) - special.xlogy(totals, totals) + answers - predicted
    return excess


def relative_loss(votes: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """Loss of each galaxy on a scale from perfect knowledge (0) to none (1), the same for many votes as for few.

    The `excess_loss` of all questions as a fraction of that of a prediction which takes all vote fractions for
    equally likely (α = 1). Above 1 is worse than knowing nothing: sure, and wrong.
    Arguments and errors as `excess_loss`.

    Returns:
        (galaxies,) float64; NaN for a galaxy without votes.

    >>> relative_loss([[3, 1], [3, 1], [0, 0]], [[1, 1], [300, 100], [1, 1]], [(0, 1)]).round(3)
    array([1.   , 0.007,   nan])
    """
    counts = np.asarray(votes, dtype=np.float64)
    excess = excess_loss(counts, concentrations, question_index_groups).sum(axis=1)
    unknowing = excess_loss(counts, np.ones_like(counts), question_index_groups).sum(axis=1)
    result: Floats = excess / np.where(counts.any(axis=1), unknowing, np.nan)
    return result


def confusion_matrix(votes: ArrayLike, fractions: ArrayLike) -> NDArray[np.int_]:
    """Count galaxies by the answer that leads in votes (row) and in predicted fractions (column).

    The sum of `compare_leading`, so that the diagonal's share is the accuracy. Galaxies without votes do not count.

    Args:
        votes: (galaxies, answers) of one question.
        fractions: (galaxies, answers), predicted.

    Returns:
        (answers, answers) of integers.

    Raises:
        SettingError: shapes do not fit.

    >>> confusion_matrix([[3, 1], [2, 2], [0, 5]], [[0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
    array([[1, 0],
           [1, 1]])
    """
    counts, predicted = _checked(votes, fractions)
    voted = counts.any(axis=1)
    return np.asarray(compare_leading(counts[voted], predicted[voted]).sum(axis=0), dtype=np.int_)


def reliability(votes: ArrayLike, fractions: ArrayLike, *, most_bins: int = 8, per_bin: int = 20) -> Reliability:
    """Compare the confidence in each galaxy's leading answer with the share of votes for it, in bins of confidence.

    The bins hold equal numbers of galaxies. With k of N votes for the leading answer the agreement is
    ``a = Σk/ΣN``, and its standard error, ``√(n/(n−1) Σ(k − aN)²) / ΣN`` for n galaxies, takes into account
    that the votes of one galaxy go together (ratio estimator; Cochran 1977, Sampling Techniques, chapter 6).
    It is NaN for a single galaxy.

    Args:
        votes: (galaxies, answers) of one question; galaxies without votes do not count.
        fractions: (galaxies, answers), predicted.
        most_bins: at most so many bins.
        per_bin: fewer bins where they would hold fewer galaxies; one bin has any number.

    Returns:
        The bins by rising confidence; none where there are no votes.

    Raises:
        SettingError: shapes do not fit, or less than one bin or galaxy for each.

    >>> bins = reliability([[3, 1], [5, 5]], [[0.7, 0.3], [0.4, 0.6]])
    >>> bins.agreement.round(3), bins.galaxies
    (array([0.571]), array([2]))
    """
    parts = bin_by_confidence(votes, fractions, most_bins=most_bins, per_bin=per_bin)
    galaxies, totals, agreeing, confident = parts.sum(axis=0).T
    agreement = agreeing / totals
    scatter = ((parts[..., 2] - agreement * parts[..., 1]) ** 2).sum(axis=0)
    error = np.sqrt(scatter * divide(galaxies, galaxies - 1)) / totals
    return Reliability(confident / totals, agreement, error, galaxies.astype(np.int_))


def bin_by_confidence(votes: ArrayLike, fractions: ArrayLike, *, most_bins: int = 8, per_bin: int = 20) -> Floats:
    """What each galaxy adds to the sums of which `reliability` is made; galaxies of the same confidence stay together.

    Arguments and errors as `reliability`.

    Returns:
        (galaxies, bins, 4): in its own bin, 1, its votes, those for the predicted leading answer, and votes ×
        confidence; elsewhere, and without votes, 0.

    >>> bin_by_confidence([[3, 1]], [[0.5, 0.5]])
    array([[[1., 4., 3., 2.]]])
    """
    if most_bins < 1 or per_bin < 1:
        raise SettingError(f"most_bins, per_bin: got {most_bins} and {per_bin}, expected at least 1.")
    counts, predicted = _checked(votes, fractions)
    voted = np.flatnonzero(counts.any(axis=1))
    counts, predicted = counts[voted], predicted[voted]
    rows, leading = np.arange(len(voted)), predicted.argmax(axis=1)
    confidence, totals = predicted[rows, leading], counts.sum(axis=1)
    bins = min(most_bins, max(1, len(voted) // per_bin))
    ranks = np.searchsorted(np.sort(confidence), confidence)
    found, numbers = np.unique(ranks * bins // max(1, len(voted)), return_inverse=True)
    parts = np.zeros((len(np.asarray(votes)), len(found), 4))
    parts[voted, numbers] = np.stack([np.ones(len(voted)), totals, counts[rows, leading], totals * confidence], axis=1)
    return parts


def sum_calibration_errors(sums: Floats) -> Floats:
    """Expected calibration error times galaxies, ``Σ n |agreement − confidence|`` over bins of n galaxies.

    The error is above 0 by chance alone, by about 0.8 of the standard error of a bin's agreement; compare it with
    that of another model, or of a perfect one, on the same galaxies (Naeini, Cooper and Hauskrecht 2015, AAAI, 2901).

    Args:
        sums: (..., bins, 4), sums over galaxies of `bin_by_confidence`.

    Returns:
        (...) float64; 0 where there are no galaxies.

    >>> float(sum_calibration_errors(bin_by_confidence([[3, 1]], [[0.5, 0.5]]).sum(axis=0)))  # 3/4 − 1/2
    0.25
    """
    galaxies, totals, agreeing, confident = np.moveaxis(sums, -1, 0)
    errors: Floats = (galaxies * divide(np.abs(agreeing - confident), totals, 0)).sum(axis=-1)
    return errors


def compare_with_truth(fractions: ArrayLike, lower: ArrayLike, upper: ArrayLike, truth: ArrayLike) -> TruthScores:
    """Compare predicted fractions of one question, and their intervals, with the true probabilities.

    Args:
        fractions: (galaxies, answers), predicted.
        lower: lower edge of each one's interval, of the same shape.
        upper: upper edge.
        truth: the probability of each answer, of the same shape; galaxies with a NaN do not count.

    Raises:
        SettingError: shapes do not fit.

    >>> truth = [[0.2, 0.8], [0.6, 0.4]]
    >>> scores = compare_with_truth([[0.3, 0.7], [0.5, 0.5]], [[0, 0.5], [0, 0]], [[1, 1], [0.55, 1]], truth)
    >>> round(scores.correlation, 6), round(scores.rms_error, 6), scores.coverage
    (1.0, 0.1, 0.75)
    """
    true, predicted = _checked(truth, fractions)
    _, low = _checked(truth, lower)
    _, high = _checked(truth, upper)
    told = np.isfinite(true).all(axis=1)
    true, predicted, low, high = true[told], predicted[told], low[told], high[told]
    if not len(true):
        return TruthScores(np.nan, np.nan, np.nan, 0)
    one, other = ((values - values.mean(axis=0)).ravel() for values in (predicted, true))
    spread = np.sqrt((one @ one) * (other @ other))
    return TruthScores(
        correlation=float(one @ other / spread) if spread > 0 else np.nan,
        rms_error=float(np.sqrt(np.mean((predicted - true) ** 2))),
        coverage=float(((low <= true) & (true <= high)).mean()),
        galaxies=len(true),
    )


def _checked(votes: ArrayLike, fractions: ArrayLike) -> tuple[Floats, Floats]:
    one, other = np.asarray(votes, dtype=np.float64), np.asarray(fractions, dtype=np.float64)
    if one.ndim != 2 or one.shape != other.shape:
        raise SettingError(f"got shapes {one.shape} and {other.shape}, expected (galaxies, answers) of both.")
    return one, other
