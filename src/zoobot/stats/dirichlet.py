"""What predicted Dirichlet concentrations say: expected vote fractions, their intervals, chances of votes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from zoobot.errors import SettingError
from zoobot.processes import count_cores

__all__ = ["check_question_index_groups", "expected_fractions", "fraction_intervals", "log_predictive"]

Groups = Sequence[tuple[int, int]]
Floats = NDArray[np.float64]

_CHUNK_VALUES = 100_000  # concentrations worked on at once by one thread: some 10 MB of temporaries
_STEP_TOLERANCE = 1e-6
_MAX_STEPS = 100  # far more than bisection alone needs
_EDGE = 1e-9  # keeps log(x) and log(1 - x) finite; well under the tolerance


def check_question_index_groups(question_index_groups: Groups) -> tuple[tuple[int, int], ...]:
    """Check that the groups cover the answers 0, 1, 2, ... in order, and return them as plain integers.

    Args:
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Raises:
        SettingError: a group leaves a gap, overlaps, is empty or is no pair.

    >>> check_question_index_groups([(0, 2), (3, 4)])
    ((0, 2), (3, 4))
    """
    expected_first = 0
    groups: list[tuple[int, int]] = []
    for group in question_index_groups:
        if len(group) != 2 or group[0] != expected_first or group[1] < group[0]:
            raise SettingError(
                f"question_index_groups: got {group!r} as group {len(groups)}, expected "
                f"({expected_first}, last index of that question); groups are inclusive and leave no gap."
            )
        groups.append((int(group[0]), int(group[1])))
        expected_first = groups[-1][1] + 1
    if not groups:
        raise SettingError("question_index_groups: got no groups, expected at least one question.")
    return tuple(groups)


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
    alpha, groups = _checked(concentrations, question_index_groups)
    fractions: Floats = (alpha / _total_per_answer(alpha, groups)).mean(axis=1)
    return fractions


def fraction_intervals(
    concentrations: ArrayLike, question_index_groups: Groups, credibility: float = 0.9
) -> tuple[Floats, Floats]:
    """Equal-tailed credible interval of each answer's vote fraction, under the mixture over samples.

    Within one sample a fraction's marginal is ``Beta(α, A − α)``; the edges are where the mean of samples'
    CDFs is (1 ∓ credibility) / 2, so that disagreement between samples widens the interval. Exact to 1e-6.
    Memory stays bounded, and up to eight threads share the work.

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
    alpha, groups = _checked(concentrations, question_index_groups)
    if not 0 < credibility < 1:
        raise SettingError(f"credibility: got {credibility!r}, expected a number between 0 and 1, such as 0.9.")
    if any(first == last for first, last in groups):
        raise SettingError("question_index_groups: a question with one answer has no interval; expected two or more.")
    galaxies, samples, answers = alpha.shape
    edges = np.empty((2, galaxies, answers))
    size = max(1, _CHUNK_VALUES // (samples * answers))

    def fill(start: int) -> None:
        chunk = alpha[start : start + size]
        rest = _total_per_answer(chunk, groups) - chunk
        first, second = (values.transpose(1, 0, 2).reshape(samples, -1) for values in (chunk, rest))
        for edge, probability in zip(edges, (0.5 - credibility / 2, 0.5 + credibility / 2), strict=True):
            edge[start : start + size] = _mixture_quantiles(first, second, probability).reshape(-1, answers)

    with ThreadPoolExecutor(min(8, count_cores())) as pool:  # scipy's functions let go of the GIL
        list(pool.map(fill, range(0, galaxies, size)))
    return edges[0], edges[1]


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
    alpha, groups = _checked(concentrations, question_index_groups)
    counts = np.asarray(votes, dtype=np.float64)
    if counts.shape != (len(alpha), alpha.shape[2]):
        raise SettingError(
            f"votes: got shape {counts.shape}, expected {(len(alpha), alpha.shape[2])} as concentrations."
        )
    if not (np.isfinite(counts) & (counts >= 0)).all():
        raise SettingError("votes: got a negative, NaN or infinite value, expected numbers of at least 0.")
    result = np.empty((len(alpha), len(groups)))
    size = max(1, _CHUNK_VALUES // max(1, alpha.shape[1] * alpha.shape[2]))
    for start in range(0, len(alpha), size):
        chunk = slice(start, start + size)
        each = _log_probability(counts[chunk, None, :], alpha[chunk], groups)
        highest = each.max(axis=1)
        result[chunk] = highest + np.log(np.exp(each - highest[:, None]).mean(axis=1))
    return result


def _checked(concentrations: ArrayLike, question_index_groups: Groups) -> tuple[Floats, tuple[tuple[int, int], ...]]:
    """Concentrations as (galaxies, samples, answers) float64, with the groups."""
    groups = check_question_index_groups(question_index_groups)
    alpha = np.asarray(concentrations, dtype=np.float64)
    answers = groups[-1][1] + 1
    if alpha.ndim not in (2, 3) or alpha.shape[-1] != answers or 0 in alpha.shape[1:]:
        raise SettingError(
            f"concentrations: got shape {alpha.shape}, expected (galaxies, samples, {answers}) or "
            f"(galaxies, {answers}) to fit the question_index_groups."
        )
    if not (np.isfinite(alpha) & (alpha > 0)).all():
        raise SettingError("concentrations: got a value that is not finite and positive, expected numbers above 0.")
    return (alpha[:, None, :] if alpha.ndim == 2 else alpha), groups


def _totals(values: Floats, groups: Groups) -> Floats:
    """Sum over the answers of each question, on the last axis."""
    totals: Floats = np.add.reduceat(values, [first for first, _ in groups], axis=-1)
    return totals


def _total_per_answer(values: Floats, groups: Groups) -> Floats:
    """The total of its question, for each answer."""
    totals: Floats = np.repeat(_totals(values, groups), [last - first + 1 for first, last in groups], axis=-1)
    return totals


def _log_probability(votes: Floats, alpha: Floats, groups: Groups) -> Floats:
    """Log probability of the Dirichlet-multinomial for each question."""

    def log_rising(base: Floats, count: Floats) -> Floats:
        difference: Floats = special.gammaln(base + count) - special.gammaln(base) - special.gammaln(count + 1)
        return difference

    return _totals(log_rising(alpha, votes), groups) - log_rising(_totals(alpha, groups), _totals(votes, groups))


def _mixture_quantiles(first: Floats, second: Floats, probability: float) -> Floats:
    """Quantile of each equal mixture of ``Beta(first, second)``, mixed over axis 0.

    Starts at the quantile of the single Beta with the mixture's mean and variance (exact already for one
    sample), then by Halley's method on the CDF, inside a bracket; bisects where steps do not shrink fast.
    """
    total = first + second
    mean_each = first / total
    mean = mean_each.mean(axis=0)
    variance = (mean_each * (1 - mean_each) / (total + 1)).mean(axis=0) + mean_each.var(axis=0)
    strength = mean * (1 - mean) / variance - 1
    quantiles: Floats = special.betaincinv(mean * strength, (1 - mean) * strength, probability)
    if len(first) == 1:
        return quantiles
    log_norm = special.betaln(first, second)
    x = quantiles.clip(_EDGE, 1 - _EDGE)
    low, high, last_step = np.zeros_like(x), np.ones_like(x), np.ones_like(x)
    active = np.arange(x.size)
    for _ in range(_MAX_STEPS):
        excess = special.betainc(first, second, x).mean(axis=0) - probability
        low, high = np.where(excess <= 0, x, low), np.where(excess >= 0, x, high)
        target = x - _halley_step(first, second, log_norm, x, excess)
        step = target - x
        good = (target > low) & (target < high) & (np.abs(step) <= last_step / 2)
        target = np.where(good, target, (low + high) / 2).clip(_EDGE, 1 - _EDGE)
        quantiles[active] = target
        last_step = np.abs(target - x)
        # near 0 and 1 the density can be so high that steps are small far from the root: compare with x too
        small = last_step <= _STEP_TOLERANCE * np.minimum(1, 1e4 * np.minimum(x, 1 - x))
        going = ~small & (high - low > _STEP_TOLERANCE)
        if not going.any():
            break
        active, x, low, high, last_step = (v[going] for v in (active, target, low, high, last_step))
        first, second, log_norm = first[:, going], second[:, going], log_norm[:, going]
    return quantiles


def _halley_step(first: Floats, second: Floats, log_norm: Floats, x: Floats, excess: Floats) -> Floats:
    """Step (to be subtracted) towards the root, for a mixture's CDF ``excess`` above its target at x."""
    log_density = (first - 1) * np.log(x) + (second - 1) * np.log1p(-x) - log_norm
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # such steps are refused by the bracket
        each = np.exp(log_density)
        density = each.mean(axis=0)
        slope = (each * ((first - 1) / x - (second - 1) / (1 - x))).mean(axis=0)
        newton = excess / density
        step: Floats = newton / (1 - newton * slope / (2 * density)).clip(0.5, 2)
    return step
