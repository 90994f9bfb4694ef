"""Equal mixtures of Beta distributions: density, CDF, quantiles and shortest intervals, many at a time.

Arrays of parameters are (components, mixtures), all finite and above 0; every component has the same weight.
Roots are looked for in t = log(x / (1 − x)), where a Beta has no edges and its log CDF is concave, by steps of
Halley or Newton that a bracket guards.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from zoobot.stats.concentrations import Floats

__all__ = ["cdf", "density", "quantiles", "shortest_intervals"]

_FARTHEST = 700.0  # |t|: 1/(1 + e^700) is still a normal float64
_TOLERANCE = 1e-11  # of the logarithm of the probability below a quantile
_MAX_STEPS = 200  # bisection alone needs 64
_TAILS = (np.sin(np.linspace(0, np.pi / 2, 7)) ** 2).round(12)  # tried first for shortest intervals; 1/2 is one
_LEVEL_TOLERANCE = 1e-3  # the length is flat about its minimum: an error e of log density costs about e²

Indexes = NDArray[np.intp]


def density(first: Floats, second: Floats, x: Floats) -> Floats:
    """Density ``mean of x^(a−1) (1 − x)^(b−1) / B(a, b)``; may be infinite at 0 and 1.

    >>> density(np.array([[1.0], [2.0]]), np.array([[1.0], [1.0]]), np.array([0.5]))
    array([1.])
    """
    powers = special.xlogy(first - 1, x) + special.xlog1py(second - 1, -x)
    result: Floats = np.exp(powers - special.betaln(first, second)).mean(axis=0)
    return result


def cdf(first: Floats, second: Floats, x: Floats) -> Floats:
    """Probability at or below x, ``mean of I_x(a, b)``.

    That above it is ``cdf(second, first, 1 - x)``.

    >>> cdf(np.array([[1.0], [2.0]]), np.array([[1.0], [1.0]]), np.array([0.5]))
    array([0.375])
    """
    result: Floats = special.betainc(first, second, x).mean(axis=0)
    return result


def quantiles(first: Floats, second: Floats, probabilities: Floats) -> Floats:
    """The x of each mixture at which its CDF is the given probability, (mixtures,).

    The CDF at x is the probability within 1e-8, or x is the float64 next to where it is: with a parameter near 0 much
    of a Beta lies within 1e-16 of 1, or below 1e-303, which is taken for 0.

    >>> quantiles(np.array([[1.0], [2.0]]), np.array([[1.0], [1.0]]), np.array([0.375])).round(12)
    array([0.5])
    """
    t = _logit_quantiles(first, second, probabilities)
    x: Floats = np.where((t <= 1 - _FARTHEST) | (probabilities <= 0), 0, special.expit(t))
    return np.where(probabilities >= 1, 1.0, x)


def shortest_intervals(first: Floats, second: Floats, probability: float) -> tuple[Floats, Floats]:
    """The shortest interval that holds the probability: of one mode, that of highest density.

    At both edges the density is the same, or an edge is 0 or 1. Of several minima of the length the best of seven
    tail probabilities picks one, so a narrow one may be missed; never longer than the equal-tailed interval.

    Returns:
        Lower and upper edges, each (mixtures,).

    >>> shortest_intervals(np.array([[1.0]]), np.array([[2.0]]), 0.75)  # the density falls from 0 on
    (array([0.]), array([0.5]))
    """
    below = [np.full(first.shape[1], tail * (1 - probability)) for tail in _TAILS]
    lower = np.stack([_logit_quantiles(first, second, each) for each in below])
    upper = np.stack([_logit_quantiles(first, second, each + probability) for each in below])
    edges = special.expit(np.stack([lower, upper]))
    edges[0, 0], edges[1, -1] = 0, 1
    best = (edges[1] - edges[0]).argmin(axis=0)
    mixtures = np.arange(first.shape[1])
    parameters = _Parameters(first, second, special.betaln(first, second))

    def evaluate(active: Indexes, low: Floats) -> tuple[Floats, Floats, Floats]:
        return _difference_of_levels(parameters.take(active), low, probability)

    bracket = (lower[np.maximum(best - 1, 0), mixtures], lower[np.minimum(best + 1, len(below) - 1), mixtures])
    start = lower[best, mixtures].clip((7 * bracket[0] + bracket[1]) / 8, (bracket[0] + 7 * bracket[1]) / 8)
    low = _find_roots(evaluate, start, *bracket)
    high = _logit_quantiles(first, second, _describe(parameters, low).below + probability)
    found, coarse = special.expit(np.stack([low, high])), edges[:, best, mixtures]
    low_edge, high_edge = np.where(found[1] - found[0] < coarse[1] - coarse[0], found, coarse)
    return low_edge, high_edge


class _Parameters(NamedTuple):
    """Parameters of the Betas, and the logarithm of B(first, second)."""

    first: Floats
    second: Floats
    log_norm: Floats

    def take(self, mixtures: Indexes) -> "_Parameters":
        """Those of some mixtures, each named once."""
        if mixtures.size == self.first.shape[1]:
            return self
        return _Parameters(*(values[:, mixtures] for values in self))


class _Described(NamedTuple):
    """Mixtures at some t: probability below, and the density of t with its derivative."""

    below: Floats
    density: Floats
    slope: Floats


def _describe(parameters: _Parameters, t: Floats) -> _Described:
    first, second, log_norm = parameters
    log_x = special.log_expit(t)
    with np.errstate(over="ignore", invalid="ignore"):  # absurd parameters
        each = np.exp(first * log_x + second * (log_x - t) - log_norm)
        slopes = each * (first * special.expit(-t) - second * special.expit(t))
    near = t > 0  # to 1; what is left to it has digits that x has not
    part = special.betainc(np.where(near, second, first), np.where(near, first, second), special.expit(-np.abs(t)))
    below = part.mean(axis=0)
    return _Described(np.where(near, 1 - below, below), each.mean(axis=0), slopes.mean(axis=0))


def _logit_quantiles(first: Floats, second: Floats, probabilities: Floats) -> Floats:
    """Quantiles in t; the smaller tail is the one whose logarithm is matched, so that it is right to many digits."""
    mirrored = probabilities > 0.5
    first, second = np.where(mirrored, second, first), np.where(mirrored, first, second)
    tails = np.where(mirrored, 1 - probabilities, probabilities).clip(1e-300)
    parameters = _Parameters(first, second, special.betaln(first, second))

    def evaluate(active: Indexes, t: Floats) -> tuple[Floats, Floats, Floats]:
        return _excess(parameters.take(active), t, tails[active])

    ends = np.full_like(tails, _FARTHEST)
    t = _find_roots(evaluate, _matched_quantiles(first, second, tails), -ends, ends)
    return np.where(mirrored, -t, t)


def _matched_quantiles(first: Floats, second: Floats, probabilities: Floats) -> Floats:
    """Quantile in t of the single Beta with the mixture's mean and variance; of one component it is exact."""
    with np.errstate(all="ignore"):  # absurd parameters; the search begins in the middle then
        total = first + second
        each = first / total
        mean = each.mean(axis=0)
        variance = (each * (1 - each) / (total + 1)).mean(axis=0) + each.var(axis=0)
        strength = mean * (1 - mean) / variance - 1
        t = special.logit(special.betaincinv(mean * strength, (1 - mean) * strength, probabilities))
    return np.nan_to_num(t, nan=0.0).clip(-_FARTHEST, _FARTHEST)


def _excess(parameters: _Parameters, t: Floats, probabilities: Floats) -> tuple[Floats, Floats, Floats]:
    """Log of the probability below t over the wanted one, Halley's step to be subtracted, and what that leaves."""
    below, density, slope = _describe(parameters, t)
    with np.errstate(all="ignore"):  # where the CDF is 0 or flat; the bracket refuses such steps
        excess = np.log(below / probabilities)
        relative = density / below
        newton = excess / relative
        bend = newton * (slope / below - relative**2) / (2 * relative)
        step = newton / (1 - bend).clip(0.5, 2)
        left = np.abs(excess) * np.maximum(np.abs(excess), np.abs(bend)) ** 2 / _TOLERANCE  # a method of third order
    return excess, step, left


def _difference_of_levels(parameters: _Parameters, low: Floats, probability: float) -> tuple[Floats, Floats, Floats]:
    """Log density at the lower edge less that at the upper, Newton's step, and what that leaves."""
    lower = _describe(parameters, low)
    high = _logit_quantiles(parameters.first, parameters.second, lower.below + probability)
    upper = _describe(parameters, high)
    with np.errstate(all="ignore"):
        (level, rise), (upper_level, upper_rise) = _log_level(lower, low), _log_level(upper, high)
        difference = level - upper_level
        step = difference / (rise - upper_rise * lower.density / upper.density)
    return difference, step, np.abs(difference) / _LEVEL_TOLERANCE


def _log_level(described: _Described, t: Floats) -> tuple[Floats, Floats]:
    """Log of the density of x, and its derivative by t."""
    level = np.log(described.density) - special.log_expit(t) - special.log_expit(-t)
    return level, described.slope / described.density + np.tanh(t / 2)


def _find_roots(
    evaluate: Callable[[Indexes, Floats], tuple[Floats, Floats, Floats]], start: Floats, low: Floats, high: Floats
) -> Floats:
    """Roots of functions that rise from below zero at ``low`` to above it at ``high``; if not, one of these ends.

    ``evaluate(which, t)`` gives values, the steps to be subtracted from t, and what error such a step leaves, in units
    of the one allowed. A step that leaves the bracket or does not halve the last one is replaced by bisection.
    """
    roots = start.copy()
    active: Indexes = np.arange(start.size)
    t, last_step = start, high - low
    for _ in range(_MAX_STEPS):
        value, step, left = evaluate(active, t)
        low, high = np.where(value <= 0, t, low), np.where(value >= 0, t, high)
        target = t - step
        good = (target >= low) & (target <= high) & (np.abs(step) <= last_step / 2)
        target = np.where(good, target, (low + high) / 2)
        target = np.where(value == 0, t, target)
        roots[active] = target
        closed = high - low <= 4e-16 * np.maximum(1, np.abs(target))
        going = ~((good & (left <= 1)) | closed)
        if not going.any():
            break
        last_step = np.abs(target - t)
        active = active[going]
        t, low, high, last_step = (each[going] for each in (target, low, high, last_step))
    return roots
