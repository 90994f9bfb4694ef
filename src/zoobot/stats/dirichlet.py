"""What predicted Dirichlet concentrations say of vote fractions: moments, marginal distributions, intervals.

The posterior of a galaxy's fractions is a mixture: each sample has the same weight, and given one of them the
fractions of each question follow ``Dirichlet(α)`` with A = Σα, independently of the other questions.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from zoobot.errors import SettingError
from zoobot.stats import beta_mixtures
from zoobot.stats.concentrations import (
    Floats,
    Groups,
    answer_betas,
    check_concentrations,
    check_credibility,
    for_each_chunk,
    spread_over_answers,
    sum_questions,
)

__all__ = [
    "expected_fractions",
    "fraction_cdf",
    "fraction_covariances",
    "fraction_density",
    "fraction_intervals",
    "fraction_quantiles",
    "fraction_variances",
    "highest_density_intervals",
    "probability_above",
]


def expected_fractions(concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """Mean vote fraction of each answer, ``E[f] = mean over samples of α / A`` with A the question's Σα.

    Args:
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (galaxies, answers) float64; the fractions of each question sum to one.

    Raises:
        SettingError: shapes do not fit, or a concentration is not finite and positive.

    >>> expected_fractions([[1.0, 3.0], [5.0, 5.0]], [(0, 1)])
    array([[0.25, 0.75],
           [0.5 , 0.5 ]])
    """
    alpha, groups = check_concentrations(concentrations, question_index_groups)

    def compute(some: Floats) -> Floats:
        fractions: Floats = (some / spread_over_answers(sum_questions(some, groups), groups)).mean(axis=1)
        return fractions

    return _compute_in_chunks(compute, alpha, alpha.shape[2])


def fraction_variances(concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """Variance of each answer's vote fraction: mean of the samples' variances plus variance of their means.

    With m = α / A: ``Var[f] = mean of m (1 − m) / (A + 1) + variance of m``, the law of total variance.

    Args:
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (galaxies, answers) float64.

    Raises:
        SettingError: shapes do not fit, or a concentration is not finite and positive.

    >>> fraction_variances([[[1.0, 1.0]], [[2.0, 2.0]]], [(0, 1)]).round(4)
    array([[0.0833, 0.0833],
           [0.05  , 0.05  ]])
    """
    alpha, groups = check_concentrations(concentrations, question_index_groups)

    def compute(some: Floats) -> Floats:
        total = spread_over_answers(sum_questions(some, groups), groups)
        mean = some / total
        variances: Floats = (mean * (1 - mean) / (total + 1)).mean(axis=1) + mean.var(axis=1)
        return variances

    return _compute_in_chunks(compute, alpha, alpha.shape[2])


def fraction_covariances(concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """Covariance of every two answers' vote fractions, also of different questions.

    With m = α / A, within a question ``Cov[f_i, f_j] = mean of (m_i [i = j] − m_i m_j) / (A + 1) + covariance of m``
    over samples; between questions only the second term, as they are independent in each sample.

    Args:
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (galaxies, answers, answers) float64, 9 kB a galaxy with 34 answers; symmetric, no negative eigenvalues.

    Raises:
        SettingError: shapes do not fit, or a concentration is not finite and positive.

    >>> fraction_covariances([[[1.0, 1.0]]], [(0, 1)]).round(4)
    array([[[ 0.0833, -0.0833],
            [-0.0833,  0.0833]]])
    """
    alpha, groups = check_concentrations(concentrations, question_index_groups)
    _, samples, answers = alpha.shape

    def compute(some: Floats) -> Floats:
        total = spread_over_answers(sum_questions(some, groups), groups)
        mean = some / total
        away = mean - mean.mean(axis=1, keepdims=True)
        covariances: Floats = away.swapaxes(1, 2) @ away / samples
        for first, last in groups:
            question = slice(first, last + 1)
            m, scaled = mean[..., question], mean[..., question] / (total[..., question] + 1)
            covariances[:, question, question] -= m.swapaxes(1, 2) @ scaled / samples
            diagonal = np.arange(first, last + 1)
            covariances[:, diagonal, diagonal] += scaled.mean(axis=1)
        return covariances

    return _compute_in_chunks(compute, alpha, answers, answers)


def fraction_density(x: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """Posterior density of each answer's vote fraction at x: ``mean over samples of Beta(x | α, A − α)``.

    Args:
        x: fractions, 0 to 1, that broadcast to (..., galaxies, answers): one number, say, or (points, 1, 1) for curves.
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (..., galaxies, answers) float64; infinite at 0 or 1 where a concentration is below 1.

    Raises:
        SettingError: shapes do not fit, x is not within 0 to 1, a concentration is not finite and positive, or a
            question has one answer only.

    >>> fraction_density(0.5, [[2.0, 1.0]], [(0, 1)])
    array([[1., 1.]])
    """
    return _apply(beta_mixtures.density, "x", x, concentrations, question_index_groups)


def fraction_cdf(x: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """Posterior probability that each answer's vote fraction is at most x: ``mean over samples of I_x(α, A − α)``.

    I is the regularised incomplete beta function. Arguments, result and errors as `fraction_density`.

    >>> fraction_cdf(0.5, [[2.0, 1.0]], [(0, 1)])
    array([[0.25, 0.75]])
    """
    return _apply(beta_mixtures.cdf, "x", x, concentrations, question_index_groups)


def probability_above(threshold: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """Posterior probability that each answer's vote fraction exceeds a threshold: 1 − `fraction_cdf`, to all digits.

    Arguments (threshold for x), result and errors as `fraction_density`.

    >>> probability_above([0.9, 0.5], [[1.0, 1.0]], [(0, 1)]).round(6)
    array([[0.1, 0.5]])
    """

    def above(first: Floats, second: Floats, x: Floats) -> Floats:
        return beta_mixtures.cdf(second, first, 1 - x)

    return _apply(above, "threshold", threshold, concentrations, question_index_groups)


def fraction_quantiles(probabilities: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """The vote fraction of each answer that is not exceeded with the given posterior probability.

    The inverse of `fraction_cdf`: the CDF there is the probability within 1e-8, or it is the float64 next to where it
    is: with a concentration near 0 much of the posterior lies within 1e-16 of 1, or below 1e-303, which is taken for 0.

    Args:
        probabilities: 0 to 1, that broadcast to (..., galaxies, answers): one number, say, or (levels, 1, 1).
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (..., galaxies, answers) float64.

    Raises:
        SettingError: shapes do not fit, a probability is not within 0 to 1, a concentration is not finite and
            positive, or a question has one answer only.

    >>> fraction_quantiles(0.25, [[2.0, 1.0]], [(0, 1)]).round(6)
    array([[0.5     , 0.133975]])
    """
    return _apply(beta_mixtures.quantiles, "probabilities", probabilities, concentrations, question_index_groups)


def fraction_intervals(
    concentrations: ArrayLike, question_index_groups: Groups, credibility: float = 0.9
) -> tuple[Floats, Floats]:
    """Equal-tailed credible interval of each answer's vote fraction, under the mixture over samples.

    The edges are the `fraction_quantiles` of (1 ∓ credibility) / 2, so that disagreement between samples widens
    the interval, which an average of the samples' edges would not. Memory is bounded, and threads share the work.

    Args:
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.
        credibility: probability inside the interval, between 0 and 1.

    Returns:
        Lower and upper edge, each (galaxies, answers) float64.

    Raises:
        SettingError: shapes do not fit, a concentration is not finite and positive, a question has one answer
            only, or credibility is not between 0 and 1.

    >>> lower, upper = fraction_intervals([[1.0, 1.0]], [(0, 1)])  # a uniform distribution
    >>> lower.round(6), upper.round(6)
    (array([[0.05, 0.05]]), array([[0.95, 0.95]]))
    """
    check_credibility(credibility)
    tails = np.array([0.5 - credibility / 2, 0.5 + credibility / 2])[:, None, None]
    lower, upper = fraction_quantiles(tails, concentrations, question_index_groups)
    return lower, upper


def highest_density_intervals(
    concentrations: ArrayLike, question_index_groups: Groups, credibility: float = 0.9
) -> tuple[Floats, Floats]:
    """Shortest interval of each answer's vote fraction that holds the credibility, under the mixture over samples.

    Where the posterior has one mode, as nearly always, no fraction outside has a higher density than one inside. With
    several modes the region of highest density may be in pieces; this is the shortest single interval, of those near
    25 tail probabilities. It holds its probability within 1e-8, as nearly as float64 can (see `fraction_quantiles`),
    and is never longer than that of `fraction_intervals`, which takes half the time.

    Arguments, result and errors as `fraction_intervals`.

    >>> lower, upper = highest_density_intervals([[1.0, 2.0]], [(0, 1)], 0.75)
    >>> lower.round(6), upper.round(6)
    (array([[0. , 0.5]]), array([[0.5, 1. ]]))
    """
    check_credibility(credibility)
    alpha, groups = check_concentrations(concentrations, question_index_groups)
    galaxies, samples, answers = alpha.shape
    edges = np.empty((2, galaxies, answers))

    def work(chunk: slice) -> None:
        shortest = beta_mixtures.shortest_intervals(*answer_betas(alpha[chunk], groups), credibility)
        edges[:, chunk] = np.reshape(shortest, (2, -1, answers))

    for_each_chunk(work, galaxies, 8 * samples * answers)
    return edges[0], edges[1]


def _compute_in_chunks(compute: Callable[[Floats], Floats], alpha: Floats, *shape: int) -> Floats:
    """What a function makes of concentrations, of this shape for each galaxy, in chunks of galaxies."""
    result = np.empty((len(alpha), *shape))

    def work(chunk: slice) -> None:
        result[chunk] = compute(alpha[chunk])

    for_each_chunk(work, len(alpha), alpha.shape[1] * alpha.shape[2] + math.prod(shape))
    return result


def _apply(
    function: Callable[[Floats, Floats, Floats], Floats],
    name: str,
    values: ArrayLike,
    concentrations: ArrayLike,
    question_index_groups: Groups,
) -> Floats:
    """Apply a function of Beta mixtures to each answer, with values from 0 to 1, in chunks of galaxies."""
    alpha, groups = check_concentrations(concentrations, question_index_groups)
    galaxies, samples, answers = alpha.shape
    given = np.asarray(values, dtype=np.float64)
    try:
        given = np.broadcast_to(given, np.broadcast_shapes(given.shape, (galaxies, answers)))
    except ValueError:
        given = np.broadcast_to(np.nan, ())
    if given.shape[-2:] != (galaxies, answers):
        raise SettingError(
            f"{name}: got shape {np.shape(values)}, expected one that broadcasts to (..., {galaxies}, {answers})."
        )
    if not ((given >= 0) & (given <= 1)).all():
        raise SettingError(f"{name}: got a value that is not between 0 and 1, or NaN.")
    result = np.empty(given.shape)

    def work(chunk: slice) -> None:
        first, second = answer_betas(alpha[chunk], groups)
        for lead in np.ndindex(given.shape[:-2]):
            part = given[(*lead, chunk)]
            result[(*lead, chunk)] = function(first, second, part.ravel()).reshape(part.shape)

    for_each_chunk(work, galaxies, samples * answers)
    return result
