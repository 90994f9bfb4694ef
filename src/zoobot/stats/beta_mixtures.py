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
_TAILS = (np.sin(np.linspace(0, np.pi / 2, 25)) ** 2).round(12)  # tried first for shortest intervals; 1/2 is one
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
    t = _logit_quantiles(_Parameters(first, second, special.betaln(first, second)), probabilities)
    return np.where(probabilities >= 1, 1.0, np.where(probabilities <= 0, 0.0, _from_logit(t)))


def shortest_intervals(first: Floats, second: Floats, probability: float) -> tuple[Floats, Floats]:
    """The shortest interval that holds the probability: of one mode, that of highest density.

    At both edges the density is the same, or an edge is 0 or 1. Of several minima of the length it is that near the
    best of 25 tail probabilities, so a narrow one may be missed; never longer than the equal-tailed interval.

    Returns:
        Lower and upper edges, each (mixtures,).

    >>> shortest_intervals(np.array([[1.0]]), np.array([[2.0]]), 0.75)  # the density falls from 0 on
    (array([0.]), array([0.5]))
    """
    if not first.size:
        return np.empty(0), np.empty(0)
    parameters = _Parameters(first, second, special.betaln(first, second))
    table, middle = _tabulate_intervals(parameters, probability), len(_TAILS) // 2
    best = (special.expit(table[1]) - special.expit(table[0])).argmin(axis=0)
    mirrored = best > middle  # so that only the lower edge can be at an end
    parameters = parameters.mirror(mirrored)
    table, best = np.where(mirrored, -table[::-1, ::-1], table), np.minimum(best, 2 * middle - best)
    equal = [_logit_quantiles(parameters, np.full(best.size, 0.5 + side * probability / 2)) for side in (-1, 1)]
    ends = np.flatnonzero(best == 0)
    from_end = np.array(equal)
    from_end[0, ends] = -_FARTHEST
    from_end[1, ends] = _logit_quantiles(parameters.take(ends), np.full(ends.size, probability), table[1, 0, ends])
    intervals = np.stack([_match_levels(parameters, table, best, probability), equal, from_end])
    x = _from_logit(np.where(mirrored, -intervals[:, ::-1], intervals))
    shortest, mixtures = (x[:, 1] - x[:, 0]).argmin(axis=0), np.arange(best.size)
    return x[shortest, 0, mixtures], x[shortest, 1, mixtures]


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

    def mirror(self, mirrored: NDArray[np.bool_]) -> "_Parameters":
        """With 1 − x for x in some mixtures."""
        first, second, log_norm = self
        return _Parameters(np.where(mirrored, second, first), np.where(mirrored, first, second), log_norm)


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


def _from_logit(t: Floats) -> Floats:
    """The x of t, with 0 for what is too near to it."""
    return np.where(t <= 1 - _FARTHEST, 0.0, special.expit(t))


def _logit_quantiles(parameters: _Parameters, probabilities: Floats, start: Floats | None = None) -> Floats:
    """Quantiles in t, near the start where it is known.

    The smaller tail is the one whose logarithm is matched, so that it is right to many digits.
    """
    mirrored = probabilities > 0.5
    parameters = parameters.mirror(mirrored)
    tails = np.where(mirrored, 1 - probabilities, probabilities).clip(1e-300)
    if start is None:
        near = _matched_quantiles(parameters.first, parameters.second, tails)
    else:
        near = np.where(mirrored, -start, start)

    def evaluate(active: Indexes, t: Floats) -> tuple[Floats, Floats, Floats]:
        return _excess(parameters.take(active), t, tails[active])

    ends = np.full_like(tails, _FARTHEST)
    t = _find_roots(evaluate, near, -ends, ends)
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


def _tabulate_intervals(parameters: _Parameters, probability: float) -> Floats:
    """Edges in t of intervals with _TAILS, to a percent or so of probability: (2, tails, mixtures).

    From a table of densities, which cost a thirtieth of what their integrals do, at points that suit each component:
    its t has the mean ψ(a) − ψ(b) and the variance ψ'(a) + ψ'(b), nearly that below.
    """
    first, second, _ = parameters
    with np.errstate(all="ignore"):  # absurd parameters
        mean = special.psi(first) - special.psi(second)
        sd = np.sqrt(1 / first + 1 / first**2 + 1 / second + 1 / second**2)
        points = mean + sd * np.linspace(-4, 4, 7 + 36 // len(first))[:, None, None]
    t = np.nan_to_num(np.moveaxis(points, 2, 0)).reshape(first.shape[1], len(first) * len(points))
    t = np.sort(t.clip(-_FARTHEST, _FARTHEST), axis=1)
    log_x, total = special.log_expit(t), np.zeros_like(t)
    for a, b, norm in zip(*(each[..., None] for each in parameters), strict=True):
        total += np.exp((a + b) * log_x - b * t - norm)
    below = np.zeros_like(t)
    np.cumsum((total[:, 1:] + total[:, :-1]) * np.diff(t, axis=1), axis=1, out=below[:, 1:])
    below /= below[:, -1:]
    apart = 2 * np.arange(len(t))[:, None]  # one table for all, in which each mixture has its own range
    wanted = _TAILS * (1 - probability) + np.array([[0], [probability]])
    edges = np.interp(apart + wanted.ravel(), (apart + below).ravel(), t.ravel())
    return np.moveaxis(edges.reshape(len(t), *wanted.shape), 0, -1)


def _match_levels(parameters: _Parameters, table: Floats, best: Indexes, probability: float) -> tuple[Floats, Floats]:
    """Edges in t, near the best in a table of intervals, at which the density is the same."""
    mixtures = np.arange(best.size)
    low, high = table[:, best, mixtures]

    def evaluate(active: Indexes, low: Floats) -> tuple[Floats, Floats, Floats]:
        some = parameters.take(active)
        at_low = _describe(some, low)
        upper = _logit_quantiles(some, at_low.below + probability, high[active])
        at_upper = _describe(some, upper)
        with np.errstate(all="ignore"):
            (level, rise), (upper_level, upper_rise) = _log_level(at_low, low), _log_level(at_upper, upper)
            difference, moves = level - upper_level, at_low.density / at_upper.density
            step = difference / (rise - upper_rise * moves)
            high[active] = np.nan_to_num(upper - step * moves).clip(-_FARTHEST, _FARTHEST)  # near the next one
        return difference, step, np.abs(difference) / _LEVEL_TOLERANCE

    bracket = np.where(best < 4, -_FARTHEST, table[0, best - 4, mixtures]), table[0, best + 4, mixtures]
    low = _find_roots(evaluate, low.clip(*bracket), *bracket)
    return low, _logit_quantiles(parameters, _describe(parameters, low).below + probability, high)


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
