"""Votes still to come: what the posterior says that N volunteers will answer, and how surprising their answers are.

Given one sample, a question's votes follow the Dirichlet-multinomial distribution and one answer's count k of N votes
the beta-binomial, ``p(k) = C(N, k) B(α + k, A − α + N − k) / B(α, A − α)`` with A = Σα; samples have equal weights.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from zoobot.errors import SettingError
from zoobot.stats.concentrations import (
    CHUNK_VALUES,
    Floats,
    Groups,
    answer_betas,
    check_concentrations,
    check_credibility,
    check_totals,
    check_votes,
    draw_fractions,
    for_each_chunk,
    log_multichoose,
    spread_over_answers,
    sum_questions,
)
from zoobot.stats.dirichlet import expected_fractions

__all__ = [
    "expected_votes",
    "iterate_count_probabilities",
    "log_predictive",
    "surprise",
    "vote_cdf",
    "vote_intervals",
    "vote_probabilities",
    "vote_quantiles",
]

_ROUNDING = 1e-12  # of sums of probabilities
_CHEAPER = 4  # to look at this many of all possible votes takes about as long as to draw one
_TIE = 1e-9  # of log probabilities, relative: what differs by less is the same but for rounding


def log_predictive(votes: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """Log probability of the votes, ``log mean over samples of DirichletMultinomial(k | α)``.

    For one question with votes k, N = Σk, and concentrations α, A = Σα, one sample gives
    ``lnΓ(A) − lnΓ(N+A) + lnΓ(N+1) + Σ[lnΓ(k+α) − lnΓ(α) − lnΓ(k+1)]``.

    Args:
        votes: (galaxies, answers), ≥ 0; need not be whole.
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (galaxies, questions) float64; exactly 0 where a question has no votes.

    Raises:
        SettingError: shapes do not fit, a concentration is not finite and > 0, or a vote not finite and ≥ 0.

    >>> log_predictive([[1, 0]], [[1.0, 3.0]], [(0, 1)]).round(6)  # log(1/4)
    array([[-1.386294]])
    """
    alpha, groups = check_concentrations(concentrations, question_index_groups)
    galaxies, samples, answers = alpha.shape
    counts = check_votes(votes, (galaxies, answers))
    result = np.empty((galaxies, len(groups)))

    def work(chunk: slice) -> None:
        result[chunk] = _log_mean(_log_probability(counts[chunk, None, :], alpha[chunk], groups))

    for_each_chunk(work, galaxies, samples * answers)
    return result


def expected_votes(totals: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """Mean number of votes for each answer when N volunteers answer each question, ``N · E[f]``.

    Args:
        totals: numbers of volunteers N, whole and ≥ 0, that broadcast to (galaxies, questions).
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (galaxies, answers) float64.

    Raises:
        SettingError: shapes do not fit, a concentration is not finite and > 0, or a total not whole and ≥ 0.

    >>> expected_votes(40, [[1.0, 3.0]], [(0, 1)])
    array([[10., 30.]])
    """
    fractions = expected_fractions(concentrations, question_index_groups)
    numbers = check_totals(totals, (len(fractions), len(question_index_groups)))
    return fractions * spread_over_answers(numbers, question_index_groups)


def vote_probabilities(totals: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """Posterior predictive probability of each number of votes for each answer, out of N.

    Arguments and errors as `expected_votes`; also where a question has one answer only.

    Returns:
        (galaxies, answers, largest N + 1) float64: of 0, 1, 2, ... votes; 0 beyond an answer's own N.

    >>> vote_probabilities(2, [[1.0, 1.0]], [(0, 1)]).round(4)
    array([[[0.3333, 0.3333, 0.3333],
            [0.3333, 0.3333, 0.3333]]])
    """
    predicted = _Predicted(totals, concentrations, question_index_groups)
    result = np.zeros((*predicted.shape, int(predicted.totals.max(initial=0)) + 1))

    def work(chunk: slice) -> None:
        for count, each in enumerate(predicted.iterate(chunk)):
            result[chunk, :, count] = each.mean(axis=0).reshape(-1, predicted.shape[1])

    predicted.for_each_chunk(work)
    return result


def vote_cdf(counts: ArrayLike, totals: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """Posterior predictive probability that each answer gets at most so many votes out of N.

    Args:
        counts: numbers of votes k, whole, that broadcast to (galaxies, answers); −1 has probability 0, so that
            ``vote_cdf(k, ...) - vote_cdf(k - 1, ...)`` is that of k.
        totals: numbers of volunteers N, whole and ≥ 0, that broadcast to (galaxies, questions).
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (galaxies, answers) float64.

    Raises:
        SettingError: shapes do not fit, a concentration is not finite and > 0, a total not whole and ≥ 0, a count
            not whole, or a question has one answer only.

    >>> vote_cdf([2, 0], 3, [[1.0, 1.0]], [(0, 1)])
    array([[0.75, 0.25]])
    """
    predicted = _Predicted(totals, concentrations, question_index_groups)
    given = np.asarray(counts, dtype=np.float64)
    try:
        given = np.broadcast_to(given, predicted.shape)
    except ValueError:
        raise SettingError(
            f"counts: got shape {given.shape}, expected one that broadcasts to {predicted.shape}."
        ) from None
    if not (np.isfinite(given) & (given % 1 == 0)).all():
        raise SettingError("counts: got a number that is not whole, expected numbers of votes.")
    result = np.empty(predicted.shape)

    def work(chunk: slice) -> None:
        at_most = given[chunk].ravel()
        total = np.zeros_like(at_most)
        for count, each in enumerate(predicted.iterate(chunk)):
            total += np.where(count <= at_most, each.mean(axis=0), 0)
        result[chunk] = np.minimum(total, 1).reshape(-1, predicted.shape[1])

    predicted.for_each_chunk(work)
    return result


def vote_quantiles(
    probabilities: ArrayLike, totals: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups
) -> NDArray[np.int64]:
    """Smallest number of votes for each answer, out of N, whose `vote_cdf` is at least the probability.

    Args:
        probabilities: one number from 0 to 1, or (levels,).
        totals: numbers of volunteers N, whole and ≥ 0, that broadcast to (galaxies, questions).
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (galaxies, answers) or (levels, galaxies, answers) int64.

    Raises:
        SettingError: as `vote_cdf`, or a probability is not from 0 to 1.

    >>> vote_quantiles([0.25, 0.75], 3, [[1.0, 1.0]], [(0, 1)])
    array([[[0, 0]],
    <BLANKLINE>
           [[2, 2]]])
    """
    predicted = _Predicted(totals, concentrations, question_index_groups)
    levels = np.asarray(probabilities, dtype=np.float64)
    if levels.ndim > 1 or not ((levels >= 0) & (levels <= 1)).all():
        raise SettingError("probabilities: expected one number from 0 to 1, or a list of such.")
    result = np.empty((levels.size, *predicted.shape), np.int64)

    def work(chunk: slice) -> None:
        wanted = levels.reshape(-1, 1) - _ROUNDING
        below, smallest = 0.0, 0  # as many as there are numbers of votes whose CDF is too small
        for each in predicted.iterate(chunk):
            below = below + each.mean(axis=0)
            smallest = smallest + (below < wanted)
        result[:, chunk] = np.reshape(smallest, (levels.size, -1, predicted.shape[1]))

    predicted.for_each_chunk(work)
    limit = spread_over_answers(predicted.totals, predicted.groups)
    return np.minimum(result, limit).reshape(levels.shape + predicted.shape)


def vote_intervals(
    totals: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups, credibility: float = 0.9
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Interval in which each answer's number of votes out of N will lie with at least the credibility.

    From the `vote_quantiles` of (1 ∓ credibility) / 2, both included: numbers of votes are whole, so that it mostly
    holds more, and the more the smaller N is.

    Args:
        totals: numbers of volunteers N, whole and ≥ 0, that broadcast to (galaxies, questions).
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.
        credibility: least probability inside the interval, between 0 and 1.

    Returns:
        Lowest and highest number, each (galaxies, answers) int64.

    Raises:
        SettingError: as `vote_cdf`, or credibility is not between 0 and 1.

    >>> lowest, highest = vote_intervals(19, [[1.0, 1.0]], [(0, 1)])  # 0 to 19 equally probable
    >>> lowest, highest
    (array([[0, 0]]), array([[18, 18]]))
    """
    check_credibility(credibility)
    tails = [0.5 - credibility / 2, 0.5 + credibility / 2]
    lowest, highest = vote_quantiles(tails, totals, concentrations, question_index_groups)
    return lowest, highest


def surprise(
    votes: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups, *, draws: int = 1000, seed: int = 0
) -> Floats:
    """How probable votes are that are no more probable than those observed: small where the votes surprise.

    ``P(p(k') ≤ p(k))`` for k' of the same N from the posterior predictive. With few answers or votes, where there
    are at most four times as many different k' as draws, it is the sum over all of them. Else k' are drawn and k
    counted among them, ``(1 + draws no more probable) / (1 + draws)``, with a standard error of
    ``sqrt(P (1 − P) / draws)``. Either way it is at most u with a probability of at most u if the posterior is right,
    however few the draws are (Besag and Clifford 1989, Biometrika 76, 633). Galaxies and questions are drawn for
    independently: chunks and threads do not matter.

    Args:
        votes: (galaxies, answers), whole and ≥ 0.
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.
        draws: votes drawn for each galaxy and question; time goes with it.
        seed: of the draws; the same seed gives the same result.

    Returns:
        (galaxies, questions) float64, 0 to 1; exactly 1 where a question has no votes.

    Raises:
        SettingError: shapes do not fit, a concentration is not finite and > 0, a vote not whole and ≥ 0, or draws < 1.

    >>> surprise([[19, 0], [10, 9]], [[90.0, 10.0], [90.0, 10.0]], [(0, 1)]).round(1)
    array([[0.3],
           [0. ]])
    """
    alpha, groups = check_concentrations(concentrations, question_index_groups)
    galaxies, samples, answers = alpha.shape
    counts = check_votes(votes, (galaxies, answers), whole=True).astype(np.int64)
    if draws < 1:
        raise SettingError(f"draws: got {draws}, expected at least 1, such as 1000.")
    log_p = log_predictive(counts, alpha, groups)
    limits = log_p + _TIE * (1 + np.abs(log_p))
    result = np.ones((galaxies, len(groups)))

    def work(chunk: slice) -> None:
        for question, (first, last) in enumerate(groups):
            a, totals = alpha[..., first : last + 1], counts[chunk, first : last + 1].sum(axis=1)
            for total in np.unique(totals[totals > 0]).tolist():
                same = chunk.start + np.flatnonzero(totals == total)
                size = math.comb(total + last - first, total)
                if size <= _CHEAPER * draws:
                    every = _list_votes(total, last - first + 1)
                    for some in np.array_split(same, -(-len(same) * samples * size // CHUNK_VALUES)):
                        result[some, question] = _sum_improbable(every, a[some], limits[some, question])
                    continue
                for galaxy in same:
                    generator = np.random.default_rng([seed, galaxy, question])
                    found = _draw_improbable(total, a[galaxy], limits[galaxy, question], draws, generator)
                    result[galaxy, question] = found

    for_each_chunk(work, galaxies, samples * answers)
    return result


def iterate_count_probabilities(first: Floats, second: Floats, totals: NDArray[np.int64]) -> Iterator[Floats]:
    """Beta-binomial probabilities of 0, 1, 2, ... up to the largest N votes.

    From one number to the next by ``p(k+1) / p(k) = (N − k)(a + k) / ((k + 1)(b + N − k − 1))``, in logarithms.

    Args:
        first: a, (samples, n).
        second: b, (samples, n).
        totals: N, (n,).

    Yields:
        (samples, n) float64; 0 beyond N.

    >>> ones = np.ones((1, 1))
    >>> [float(each[0, 0].round(4)) for each in iterate_count_probabilities(ones, ones, np.array([2]))]
    [0.3333, 0.3333, 0.3333]
    """
    log_p: Floats = special.betaln(first, second + totals) - special.betaln(first, second)
    yield np.exp(log_p)
    for count in range(int(totals.max(initial=0))):
        left = totals - count
        with np.errstate(divide="ignore"):  # beyond N the logarithm is that of 0, for good
            log_p = log_p + np.log(
                np.maximum(left, 0) * (first + count) / ((count + 1) * (second + np.maximum(left - 1, 0)))
            )
        yield np.exp(log_p)


class _Predicted:
    """Checked arguments of the functions of one answer's count, and its probabilities chunk by chunk."""

    def __init__(self, totals: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> None:
        self.alpha, self.groups = check_concentrations(concentrations, question_index_groups)
        self.shape = (self.alpha.shape[0], self.alpha.shape[2])
        self.totals = check_totals(totals, (self.shape[0], len(self.groups)))

    def iterate(self, chunk: slice) -> Iterator[Floats]:
        """Probabilities of 0, 1, 2, ... votes: (samples, galaxies · answers)."""
        totals = spread_over_answers(self.totals[chunk], self.groups).ravel()
        return iterate_count_probabilities(*answer_betas(self.alpha[chunk], self.groups), totals)

    def for_each_chunk(self, work: Callable[[slice], None]) -> None:
        for_each_chunk(work, self.shape[0], self.alpha.shape[1] * self.shape[1])


def _log_probability(votes: Floats, alpha: Floats, groups: Groups) -> Floats:
    """Log probability of the Dirichlet-multinomial for each question."""
    totals = log_multichoose(sum_questions(alpha, groups), sum_questions(votes, groups))
    return sum_questions(log_multichoose(alpha, votes), groups) - totals


def _log_mean(logarithms: Floats) -> Floats:
    """Logarithm of the mean over axis 1 of what these are the logarithms of."""
    highest = logarithms.max(axis=1)
    result: Floats = highest + np.log(np.exp(logarithms - highest[:, None]).mean(axis=1))
    return result


@functools.lru_cache(maxsize=128)
def _list_votes(total: int, answers: int) -> NDArray[np.intp]:
    """All votes of so many volunteers, (votes, answers): whatever lies between bars among them."""
    places = total + answers - 1
    bars = np.array(list(itertools.combinations(range(places), answers - 1)), dtype=np.intp)
    return np.diff(bars, axis=1, prepend=-1, append=places) - 1


def _sum_improbable(every: NDArray[np.intp], alpha: Floats, limits: Floats) -> Floats:
    """Probability of votes whose log probability is at most the limit, (galaxies,), with all votes given."""
    log_p = _log_probabilities(every, alpha)
    return np.asarray(np.where(log_p <= limits[:, None], np.exp(log_p), 0).sum(axis=1).clip(max=1))


def _draw_improbable(total: int, alpha: Floats, limit: float, draws: int, generator: np.random.Generator) -> float:
    """The same of one galaxy, (samples, answers), by drawing votes."""
    fractions = draw_fractions(alpha[generator.integers(len(alpha), size=draws)], generator)
    log_p = _log_probabilities(generator.multinomial(total, fractions), alpha[None])
    return float((1 + np.count_nonzero(log_p <= limit)) / (1 + draws))


def _log_probabilities(votes: NDArray[np.intp], alpha: Floats) -> Floats:
    """Log predictive of votes (votes, answers) of one total for each galaxy, (galaxies, votes)."""
    total = votes[0].sum()
    # of every number of votes that there can be: looking up is faster than lnΓ
    table = log_multichoose(alpha[..., None], np.arange(total + 1))
    each = sum(table[:, :, answer, numbers] for answer, numbers in enumerate(votes.T))
    return _log_mean(each - log_multichoose(alpha.sum(axis=2), total)[..., None])
