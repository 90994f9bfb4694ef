"""Whether posteriors are as wide as they should be: coverage, PIT histograms, calibration error, sharpness.

Votes are compared with the posterior predictive of votes, never k/N with the posterior of fractions, which would blame
the model for the noise of few volunteers. Numbers of votes are whole, so that no interval holds exactly 90%, and the
usual remedy is to draw where in its step from F(k − 1) to F(k) a count stands. Here nothing is drawn: a count is spread
evenly over its step, which is the mean over all such draws (the non-randomised PIT; Czado, Gneiting and Held 2009,
Biometrics 65, 1254, equation 2). If the posterior is right, coverage is nominal and the histogram flat in the mean.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from zoobot.errors import SettingError
from zoobot.stats import agreement, dirichlet
from zoobot.stats.bootstrap import add_up, bootstrap_weights, divide
from zoobot.stats.concentrations import (
    Floats,
    Groups,
    answer_betas,
    check_concentrations,
    check_credibility,
    check_votes,
    for_each_chunk,
    spread_over_answers,
    sum_questions,
)
from zoobot.stats.predictive import log_predictive, vote_cdf

__all__ = [
    "Calibration",
    "Estimate",
    "PitHistogram",
    "Transform",
    "coverage",
    "measure_calibration",
    "pit_histogram",
    "share_inside",
    "transform_truth",
    "transform_votes",
]


_RESAMPLES = 100


@dataclass(frozen=True)
class Estimate:
    """A mean over galaxies and its standard error; NaN where there is nothing to average, or a single galaxy."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class Transform:
    """Where observations stand in their predicted distributions: evenly between two probabilities.

    Attributes:
        lower: (galaxies, answers), predicted probability below the observation; NaN where there is none.
        upper: (galaxies, answers), that below it or at it; the same for true fractions, which have no steps.
    """

    lower: Floats
    upper: Floats

    def take(self, first: int, last: int) -> "Transform":
        """Those of the answers from first to last, inclusive."""
        return Transform(self.lower[:, first : last + 1], self.upper[:, first : last + 1])


@dataclass(frozen=True)
class PitHistogram:
    """Histogram of the probability integral transform: flat if calibrated, a U where the model is too sure.

    Attributes:
        density: (bins,) of equal width from 0 to 1; 1 is as it should be.
        standard_error: (bins,).
        galaxies: how many.
    """

    density: Floats
    standard_error: Floats
    galaxies: int


@dataclass(frozen=True)
class Calibration:
    """How calibrated and how sharp the predictions of one question are, or those of all.

    Attributes:
        galaxies: how many have votes.
        loss: mean −log probability of a galaxy's votes; of all questions, their sum.
        credibilities: of the central intervals.
        coverages: share of the observed votes inside them, one for each.
        calibration_error: expected calibration error of the leading answers, see
            `zoobot.stats.agreement.sum_calibration_errors`; its standard error is the scatter of bootstrap samples.
        deviation: mean standard deviation of the posterior of fractions.
        width: mean width of the 90% credible interval of fractions.
        pit: where votes stand in their predicted distributions.
    """

    galaxies: int
    loss: Estimate
    credibilities: tuple[float, ...]
    coverages: tuple[Estimate, ...]
    calibration_error: Estimate
    deviation: Estimate
    width: Estimate
    pit: PitHistogram


def transform_votes(votes: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> Transform:
    """Probabilities F(k − 1) and F(k) of each answer's votes k of N in the posterior predictive.

    Args:
        votes: (galaxies, answers), whole and ≥ 0.
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        NaN where a question has no votes.

    Raises:
        SettingError: shapes do not fit, a concentration is not finite and > 0, a vote not whole and ≥ 0, or a
            question has one answer only.

    >>> transform_votes([[1, 3]], [[1.0, 1.0]], [(0, 1)])  # 0 to 4 equally probable
    Transform(lower=array([[0.2, 0.6]]), upper=array([[0.4, 0.8]]))
    """
    alpha, groups = check_concentrations(concentrations, question_index_groups)
    galaxies, samples, answers = alpha.shape
    counts = check_votes(votes, (galaxies, answers), whole=True)
    totals = sum_questions(counts, groups)
    below, there = vote_cdf(counts - 1, totals, alpha, groups), np.empty_like(counts)
    each_total = spread_over_answers(totals, groups)

    def work(chunk: slice) -> None:
        a, b = answer_betas(alpha[chunk], groups)
        k, n = counts[chunk].ravel(), each_total[chunk].ravel()
        choose = -special.betaln(k + 1, n - k + 1) - np.log(n + 1)
        log_p = special.betaln(a + k, b + n - k) - special.betaln(a, b) + choose
        there[chunk] = np.exp(log_p).mean(axis=0).reshape(-1, answers)

    for_each_chunk(work, galaxies, samples * answers)
    below[each_total == 0] = np.nan
    return Transform(below, np.minimum(below + there, 1))


def transform_truth(truth: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> Transform:
    """Probability that the posterior of each answer's fraction gives to what is below the true one.

    Args:
        truth: (galaxies, answers), true fractions, of a simulated survey say; NaN where unknown.
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Raises:
        SettingError: as `zoobot.stats.dirichlet.fraction_cdf`.

    >>> transform_truth([[0.25, 0.75]], [[1.0, 1.0]], [(0, 1)]).upper
    array([[0.25, 0.75]])
    """
    true = np.asarray(truth, dtype=np.float64)
    told = np.isfinite(true)
    below = dirichlet.fraction_cdf(np.where(told, true, 0.5), concentrations, question_index_groups)
    below = np.where(told, below, np.nan)
    return Transform(below, below)


def coverage(transform: Transform, credibility: float = 0.9, weights: ArrayLike = 1.0) -> Estimate:
    """Share of the observations inside the central interval of that credibility; as large if all is well.

    Galaxies count as often as they have answers with votes; the standard error takes into account that those of one
    galaxy go together. Answers may have ``weights``, (answers,), such as one over the number in their question.

    Raises:
        SettingError: credibility is not between 0 and 1.

    >>> one, other = np.array([[0.0], [0.4]]), np.array([[0.1], [0.5]])  # one below the interval, one half inside
    >>> coverage(Transform(one, other), credibility=0.1)
    Estimate(value=0.25, standard_error=0.25)
    """
    check_credibility(credibility)
    return _mean(share_inside(transform, 0.5 - credibility / 2, 0.5 + credibility / 2), weights)


def pit_histogram(transform: Transform, bins: int = 10, weights: ArrayLike = 1.0) -> PitHistogram:
    """Histogram of where observations stand in their predicted distributions, over galaxies and answers.

    A U says that observations lie too often in the tails: posteriors are too narrow; a hump, too wide.
    Of all answers of a question together, what one gets too much others get too little: to see a bias, `take` one.
    Weights as for `coverage`.

    Raises:
        SettingError: less than one bin.

    >>> pit_histogram(Transform(np.array([[0.0]]), np.array([[0.5]])), bins=4).density
    array([2., 2., 0., 0.])
    """
    if bins < 1:
        raise SettingError(f"bins: got {bins}, expected at least 1.")
    edges = np.linspace(0, 1, bins + 1)
    parts = [_mean(share_inside(transform, low, high), weights) for low, high in itertools.pairwise(edges)]
    density = np.array([part.value * bins for part in parts])
    errors = np.array([part.standard_error * bins for part in parts])
    return PitHistogram(density, errors, int(np.isfinite(transform.lower).any(axis=1).sum()))


def measure_calibration(
    votes: ArrayLike,
    concentrations: ArrayLike,
    question_index_groups: Groups,
    *,
    credibilities: tuple[float, ...] = (0.8, 0.9),
) -> tuple[list[Calibration], Calibration]:
    """Measure loss, coverage, calibration error and sharpness, of the galaxies with votes for each question.

    Args:
        votes: (galaxies, answers), whole and ≥ 0.
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.
        credibilities: of the intervals of votes whose coverage is measured.

    Returns:
        One for each question, and one for all, in which each pair of galaxy and question weighs the same.

    Raises:
        SettingError: as `transform_votes`, or a credibility is not between 0 and 1.

    >>> questions, _ = measure_calibration([[1, 3], [4, 0]], [[1.0, 1.0], [1.0, 1.0]], [(0, 1)])
    >>> questions[0].loss.value.__round__(6)  # log 5
    1.609438
    """
    alpha, groups = check_concentrations(concentrations, question_index_groups)
    counts = check_votes(votes, (len(alpha), alpha.shape[2]), whole=True)
    measured = _Measured(counts, alpha, groups, credibilities)
    questions = [measured.summarise([index]) for index in range(len(groups))]
    return questions, measured.summarise(list(range(len(groups))))


class _Measured:
    """What is measured of each galaxy and answer, to be averaged over the answers of some questions."""

    def __init__(self, votes: Floats, alpha: Floats, groups: Groups, credibilities: tuple[float, ...]) -> None:
        for credibility in credibilities:
            check_credibility(credibility)
        self.groups, self.credibilities = groups, credibilities
        self.voted = sum_questions(votes, groups) > 0
        self.losses = -log_predictive(votes, alpha, groups)
        self.transform = transform = transform_votes(votes, alpha, groups)
        absent = np.isnan(transform.lower)
        lower, upper = dirichlet.fraction_intervals(alpha, groups, 0.9)
        self.inside = [share_inside(transform, 0.5 - each / 2, 0.5 + each / 2) for each in credibilities]
        self.deviations = np.where(absent, np.nan, np.sqrt(dirichlet.fraction_variances(alpha, groups)))
        self.widths = np.where(absent, np.nan, upper - lower)
        fractions = dirichlet.expected_fractions(alpha, groups)
        samples = bootstrap_weights(len(votes), _RESAMPLES)
        self.errors, self.galaxies = np.zeros((2, 1 + _RESAMPLES, len(groups)))
        for index, (first, last) in enumerate(groups):
            bins = agreement.bin_by_confidence(votes[:, first : last + 1], fractions[:, first : last + 1])
            sums = add_up({"bins": bins}, samples)["bins"]
            self.errors[:, index] = agreement.sum_calibration_errors(sums)
            self.galaxies[:, index] = sums[..., 0].sum(axis=1)

    def summarise(self, questions: list[int]) -> Calibration:
        sizes = [last - first + 1 for first, last in (self.groups[question] for question in questions)]
        columns = np.concatenate([np.arange(self.groups[q][0], self.groups[q][1] + 1) for q in questions])
        weights = np.repeat(1 / np.array(sizes), sizes)
        voted = self.voted[:, questions]
        asked = voted.any(axis=1)
        losses = np.where(asked, self.losses[:, questions].sum(axis=1), np.nan)
        return Calibration(
            galaxies=int(asked.sum()),
            loss=_mean(losses[:, None]),
            credibilities=self.credibilities,
            coverages=tuple(_mean(inside[:, columns], weights) for inside in self.inside),
            calibration_error=self._estimate_error(questions),
            deviation=_mean(self.deviations[:, columns], weights),
            width=_mean(self.widths[:, columns], weights),
            pit=pit_histogram(
                Transform(self.transform.lower[:, columns], self.transform.upper[:, columns]), 10, weights
            ),
        )

    def _estimate_error(self, questions: list[int]) -> Estimate:
        """Mean calibration error over pairs of galaxy and question, and its scatter in samples of the galaxies."""
        found = divide(self.errors[:, questions].sum(axis=1), self.galaxies[:, questions].sum(axis=1))
        enough = np.isfinite(found[1:]).any() and self.galaxies[0, questions].max() > 1
        return Estimate(float(found[0]), float(np.nanstd(found[1:])) if enough else np.nan)


def share_inside(transform: Transform, low: float, high: float) -> Floats:
    """Share of each step from lower to upper that is between low and high, from 0 to 1; NaN stays.

    >>> share_inside(Transform(np.array([[0.0]]), np.array([[0.4]])), 0.1, 1)
    array([[0.75]])
    """
    lower, upper = transform.lower, transform.upper
    size = upper - lower
    overlap = np.minimum(upper, high) - np.maximum(lower, low)
    inside = ((lower >= low) & (lower < high)) | ((lower == high) & (high == 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        share: Floats = np.where(size > 0, np.clip(overlap / size, 0, 1), inside)
    return np.where(np.isnan(lower), np.nan, share)


def _mean(values: Floats, weights: ArrayLike = 1.0) -> Estimate:
    """Mean over galaxies and answers that are not NaN; the error is that of a ratio of sums over galaxies.

    ``√(n/(n−1) Σ(Σ w (x − mean))²) / Σ w`` for n galaxies (Cochran 1977, Sampling Techniques, chapter 6).
    """
    there = np.isfinite(values)
    shares = np.where(there, weights, 0.0)
    galaxies, total = int(there.any(axis=1).sum()), shares.sum()
    if not galaxies:
        return Estimate(np.nan, np.nan)
    filled = np.where(there, values, 0.0)
    mean = float((shares * filled).sum() / total)
    scatter = ((shares * (filled - mean)).sum(axis=1) ** 2).sum()
    error = np.sqrt(scatter * galaxies / (galaxies - 1)) / total if galaxies > 1 else np.nan
    return Estimate(mean, float(error))
