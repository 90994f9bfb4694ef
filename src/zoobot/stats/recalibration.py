"""Recalibration: a smooth map of each question's concentrations, fitted on votes the model was not trained on.

A network tends to be too sure, more so for some questions than for others, and its head may not be able to say what
it should (the usual one gives each answer at least 1). For each question, with A = Σα,

    α' = A' b / Σb,    b = α² / (α + h),    A' = 10 s (A / 10)^p.

The scale s makes all posteriors narrower or wider: 1/s is the temperature of "temperature scaling". The exponent p says
how far to trust what the network says of its own certainty: 1 as it is, 0 not at all. The offset h takes about h votes
off every answer, which sharpens fractions that the head's floor of 1 has flattened. With s = p = 1 and h = 0 nothing
changes. The order of a galaxy's answers never changes within a sample.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from zoobot.errors import SettingError
from zoobot.processes import count_cores
from zoobot.stats.concentrations import (
    Floats,
    Groups,
    check_concentrations,
    check_question_index_groups,
    check_votes,
    for_each_chunk,
    log_multichoose,
)

__all__ = ["Recalibration", "cross_recalibrate", "fit_recalibration"]

_TYPICAL_TOTAL = 10.0  # the A at which the exponent changes nothing; keeps s and p apart
_LIMITS = {"scales": (1e-3, 1e3), "exponents": (0.0, 3.0), "offsets": (0.0, 100.0)}
_LARGEST = max(high for _, high in _LIMITS.values())  # JSON has integers that no float holds
_ALPHA_LIMITS = (1e-6, 1e9)
_MIN_GALAXIES = 20
_MOST_GALAXIES = 10_000  # three parameters are known to a percent by then
_MOST_VALIDATED = 2_000  # beyond, a parameter too many does no harm
_FOLDS = 5
_IDENTITY = np.array([0.0, 1.0, 0.0])  # log s, p, h

Bounds = list[tuple[float, float]]


@dataclass(frozen=True)
class Recalibration:
    """What is done to the concentrations of each question; every field has an entry for each.

    Attributes:
        question_index_groups: first and last index (inclusive) of the answers.
        scales: s, from 0.001 to 1000.
        exponents: p, from 0 to 3.
        offsets: h, from 0 to 100.

    Raises:
        SettingError: numbers outside these limits, or not one for each question.
    """

    question_index_groups: tuple[tuple[int, int], ...]
    scales: tuple[float, ...]
    exponents: tuple[float, ...]
    offsets: tuple[float, ...]

    @property
    def changes_nothing(self) -> bool:
        """Whether the concentrations of every question stay as they are, as with fewer than 20 galaxies."""
        return all(each == (1.0, 1.0, 0.0) for each in zip(self.scales, self.exponents, self.offsets, strict=True))

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_question_index_groups(self.question_index_groups)
        for name, (low, high) in _LIMITS.items():
            values = getattr(self, name)
            if len(values) != len(self.question_index_groups):
                raise SettingError(
                    f"{name}: got {len(values)} numbers, expected {len(self.question_index_groups)}, one a question."
                )
            for value in values:
                if not low <= value <= high:
                    raise SettingError(f"{name}: got {value!r}, expected a number from {low:g} to {high:g}.")

    def apply(self, concentrations: ArrayLike) -> Floats:
        """Recalibrated concentrations, of the shape of those given; float64, from 1e-6 to 1e9.

        Those of a question with nothing to be changed are as given.

        Args:
            concentrations: (galaxies, samples, answers) or (galaxies, answers); finite and > 0.

        Raises:
            SettingError: the shape does not fit, or a concentration is not finite and > 0.

        >>> Recalibration(((0, 1),), (0.5,), (1.0,), (0.0,)).apply([[2.0, 6.0]])
        array([[1., 3.]])
        """
        alpha, groups = check_concentrations(concentrations, self.question_index_groups)
        parameters = np.stack([np.log(self.scales), self.exponents, self.offsets], axis=1)
        result = alpha.copy()

        def work(chunk: slice) -> None:
            for (first, last), each in zip(groups, parameters, strict=True):
                if (each != _IDENTITY).any():
                    question = slice(first, last + 1)
                    result[chunk, :, question] = _map(alpha[chunk, :, question], each)

        for_each_chunk(work, len(alpha), alpha.shape[1] * alpha.shape[2])
        return result.reshape(np.shape(concentrations))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON.

        >>> Recalibration(((0, 1),), (0.5,), (1.0,), (0.0,)).to_dict()["scales"]
        [0.5]
        """
        return {
            "question_index_groups": [list(group) for group in self.question_index_groups],
            **{name: list(getattr(self, name)) for name in _LIMITS},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Recalibration":
        """Check and take what `to_dict` gave, or a stranger.

        Raises:
            SettingError: something is missing, unknown, of the wrong kind or outside its limits.

        >>> fitted = Recalibration(((0, 1),), (0.5,), (1.0,), (0.0,))
        >>> Recalibration.from_dict(fitted.to_dict()) == fitted
        True
        """
        names = ["question_index_groups", *_LIMITS]
        if not isinstance(content, Mapping) or set(content) != set(names):
            got = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
            raise SettingError(f"recalibration: got {got}, expected {', '.join(names)}.")
        if not all(isinstance(content[name], list) for name in names):
            raise SettingError(f"recalibration: expected lists as {', '.join(names)}.")
        groups = content["question_index_groups"]
        if not all(isinstance(group, list) and all(type(index) is int for index in group) for group in groups):
            raise SettingError("question_index_groups: expected pairs of whole numbers.")
        for name in _LIMITS:
            if not all(type(value) in (int, float) and abs(value) <= _LARGEST for value in content[name]):
                raise SettingError(f"{name}: expected numbers within the limits.")
        numbers = {name: tuple(float(value) for value in content[name]) for name in _LIMITS}
        return cls(check_question_index_groups(groups), **numbers)


def fit_recalibration(votes: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> Recalibration:
    """Fit a recalibration to votes of galaxies that the model was not trained on.

    For each question it minimises −Σ `log_predictive`, which sees the mixture over samples, plus a penalty
    ``½ [(log s)² + (p − 1)² + h²]``: that of one galaxy or so, by which few votes change little. Nothing, the scale
    alone, or all three are changed, whichever has the least loss in five-fold cross-validation; nothing below 20
    galaxies. Of more than 10,000 galaxies with votes for a question every so many is used (2,000 to cross-validate).

    Args:
        votes: (galaxies, answers), ≥ 0; need not be whole.
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Raises:
        SettingError: shapes do not fit, a concentration is not finite and > 0, or a vote not finite and ≥ 0.

    >>> rng = np.random.default_rng(0)
    >>> votes = rng.multinomial(20, rng.dirichlet([2, 2], 500))
    >>> fitted = fit_recalibration(votes, np.full((500, 2), 8.0), [(0, 1)])
    >>> fitted.apply([[8.0, 8.0]]).round()
    array([[2., 2.]])
    """
    alpha, groups = check_concentrations(concentrations, question_index_groups)
    counts = check_votes(votes, (len(alpha), alpha.shape[2]))

    def work(group: tuple[int, int]) -> Floats:
        question = slice(group[0], group[1] + 1)
        voted = np.flatnonzero(counts[:, question].any(axis=1))
        voted = voted[_thin_out(len(voted), _MOST_GALAXIES)]
        return _fit_question(counts[voted, question], alpha[voted, :, question])

    with ThreadPoolExecutor(min(8, count_cores())) as pool:
        fitted = list(pool.map(work, groups))
    scales, exponents, offsets = np.array(fitted).T.tolist()
    limits = _LIMITS["scales"]
    return Recalibration(groups, tuple(np.exp(scales).clip(*limits).tolist()), tuple(exponents), tuple(offsets))


def cross_recalibrate(
    votes: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups, *, seed: int = 0
) -> Floats:
    """Recalibrate each half of the galaxies by what was fitted to the other half, for an honest measure of its worth.

    Arguments and errors as `fit_recalibration`; the seed decides the halves.

    Returns:
        Concentrations of the shape of those given, float64.

    >>> cross_recalibrate([[2, 1], [1, 1]], [[1.0, 2.0], [3.0, 4.0]], [(0, 1)])  # too few to change anything
    array([[1., 2.],
           [3., 4.]])
    """
    alpha, groups = check_concentrations(concentrations, question_index_groups)
    counts = check_votes(votes, (len(alpha), alpha.shape[2]))
    halves = _split(len(alpha), 2, seed)
    result = np.empty_like(alpha)
    for half in (0, 1):
        fitted = fit_recalibration(counts[halves != half], alpha[halves != half], groups)
        result[halves == half] = fitted.apply(alpha[halves == half])
    return result.reshape(np.shape(concentrations))


def _thin_out(galaxies: int, most: int) -> slice:
    """Every so many galaxies, so that at most so many are left."""
    return slice(None, None, max(1, -(-galaxies // most)))


def _split(galaxies: int, parts: int, seed: int) -> NDArray[np.int_]:
    """Parts of equal size, give or take one, at random: the number of each galaxy's part."""
    return np.random.default_rng(seed).permutation(galaxies) % parts


def _map(alpha: Floats, parameters: Floats) -> Floats:
    """Concentrations (..., answers) of one question, with log s, p and h."""
    log_scale, exponent, offset = parameters
    total = alpha.sum(axis=-1, keepdims=True)
    shares = alpha * (alpha / (alpha + offset))
    sums = shares.sum(axis=-1, keepdims=True)
    strength = _TYPICAL_TOTAL * np.exp(log_scale + exponent * np.log(total / _TYPICAL_TOTAL))
    mapped: Floats = (shares / np.where(sums > 0, sums, 1) * strength).clip(*_ALPHA_LIMITS)
    return mapped


def _losses_and_slopes(votes: Floats, alpha: Floats, parameters: Floats) -> tuple[Floats, Floats]:
    """Losses (galaxies,) of one question, −`log_predictive`, and their derivatives (galaxies, 3)."""
    mapped = _map(alpha, parameters)
    total, count = mapped.sum(axis=2), votes.sum(axis=1)[:, None]
    k = votes[:, None, :]
    log_p = log_multichoose(mapped, k).sum(axis=2) - log_multichoose(total, count)
    slopes = special.psi(mapped + k) - special.psi(mapped)
    slopes += (special.psi(total) - special.psi(total + count))[:, :, None]
    slopes *= mapped  # by log α' now
    by_scale = slopes.sum(axis=2)
    by_exponent = by_scale * np.log(alpha.sum(axis=2) / _TYPICAL_TOTAL)
    falls = 1 / (alpha + parameters[2])  # −d log b / dh
    mean_fall = (mapped * falls).sum(axis=2) / total
    by_offset = by_scale * mean_fall - (slopes * falls).sum(axis=2)
    highest = log_p.max(axis=1, keepdims=True)
    weights = np.exp(log_p - highest)
    loss: Floats = -highest[:, 0] - np.log(weights.mean(axis=1))
    weights /= weights.sum(axis=1, keepdims=True)
    each = np.stack([by_scale, by_exponent, by_offset], axis=-1)
    return loss, -(weights[:, :, None] * each).sum(axis=1)


def _fit_question(votes: Floats, alpha: Floats) -> Floats:
    """The log s, p and h of one question, (galaxies, answers) and (galaxies, samples, answers), all with votes."""
    if len(votes) < _MIN_GALAXIES or votes.shape[1] < 2:
        return _IDENTITY
    # what may change: the scale alone, or everything
    everything: Bounds = [tuple(np.log(_LIMITS["scales"])), _LIMITS["exponents"], _LIMITS["offsets"]]
    scale_only: Bounds = [everything[0], (1.0, 1.0), (0.0, 0.0)]
    some = _thin_out(len(votes), _MOST_VALIDATED)
    k, a = votes[some], alpha[some]
    folds = _split(len(k), _FOLDS, seed=0)
    best, least = _IDENTITY, _losses_and_slopes(k, a, _IDENTITY)[0].sum()
    for bounds in (scale_only, everything):
        fitted = _minimise(votes, alpha, bounds, _IDENTITY)
        loss = 0.0
        for fold in range(_FOLDS):
            rest, held = folds != fold, folds == fold
            parameters = _minimise(k[rest], a[rest], bounds, fitted)
            loss += _losses_and_slopes(k[held], a[held], parameters)[0].sum()
        if loss < least:
            best, least = fitted, loss
    return best


def _minimise(votes: Floats, alpha: Floats, bounds: Bounds, start: Floats) -> Floats:
    """The log s, p and h within the bounds that have the least penalised loss."""
    found = optimize.minimize(
        _penalised_loss, start, (votes, alpha), jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-8}
    )
    parameters: Floats = np.asarray(found.x, dtype=np.float64)
    return parameters


def _penalised_loss(parameters: Floats, votes: Floats, alpha: Floats) -> tuple[float, Floats]:
    """Loss per galaxy with the penalty, and its derivatives (3,)."""
    losses, slopes = _losses_and_slopes(votes, alpha, parameters)
    away = parameters - _IDENTITY
    return float(losses.sum() + away @ away / 2) / len(votes), (slopes.sum(axis=0) + away) / len(votes)
