"""What someone would find interesting: a Gaussian process through the ratings of a few galaxies."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize
from scipy.spatial.distance import cdist

from zoobot.stats.concentrations import Floats

__all__ = ["Interest", "predict_interest"]

_CHUNK = 8192  # galaxies, whose covariances with the rated are held at once


class Interest(NamedTuple):
    """What is expected of each galaxy.

    Attributes:
        mean: the expected rating, (galaxies,) float64.
        spread: standard deviation of what it may be, without the noise of a single rating; (galaxies,) float64.
    """

    mean: Floats
    spread: Floats


def predict_interest(vectors: NDArray[Any], rated: NDArray[np.int64], ratings: NDArray[Any]) -> Interest:
    r"""Expect similar ratings of similar galaxies, and little where nothing alike was rated.

    A Gaussian process (Rasmussen and Williams 2006, algorithm 2.1) with the covariance
    $s^2 \exp(-|x - x'|^2 / 2 l^2)$, noise of variance $n^2$ and the mean of the ratings far from all of them. The
    logarithms of s, l and n have Gaussian priors of width 1, around the ratings' standard deviation, the median
    distance of the rated, and half that deviation, and are those of highest posterior density.

    Args:
        vectors: (galaxies, features), finite.
        rated: positions of the galaxies with a rating, (ratings,), at least 2.
        ratings: on any scale, (ratings,).

    >>> predict_interest(np.array([[0.0], [0.1], [5.0]]), np.array([0, 2]), np.array([1.0, 0.0])).mean.round(1)
    array([0.8, 0.8, 0.2])
    """
    known = vectors[rated].astype(np.float64)
    average, deviation = float(np.mean(ratings)), float(np.std(ratings)) or 1.0
    targets = (ratings.astype(np.float64) - average) / deviation
    squares = cdist(known, known, "sqeuclidean")
    unit = float(np.median(squares[np.triu_indices(len(known), 1)])) or 1.0
    found = optimize.minimize(_loss, np.log([1.0, 1.0, 0.5]), args=(squares / unit, targets), jac=True)
    scale, length, noise = np.exp(found.x)
    covariance = scale**2 * np.exp(-0.5 * squares / unit / length**2) + noise**2 * np.eye(len(known))
    factor = linalg.cholesky(covariance, lower=True)
    weights = linalg.cho_solve((factor, True), targets)
    mean, spread = np.empty(len(vectors)), np.empty(len(vectors))
    for start in range(0, len(vectors), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        shared = scale**2 * np.exp(-0.5 * cdist(vectors[chunk], known, "sqeuclidean") / unit / length**2)
        mean[chunk] = shared @ weights
        explained = linalg.solve_triangular(factor, shared.T, lower=True)
        spread[chunk] = np.sqrt((scale**2 - (explained**2).sum(axis=0)).clip(min=0))
    return Interest(average + deviation * mean, deviation * spread)


def _loss(logarithms: Floats, squares: Floats, targets: Floats) -> tuple[float, Floats]:
    """Minus the logarithm of the posterior density of s, l and n, and its gradient (equation 5.9 of the same)."""
    (scale, length, noise), shift = np.exp(logarithms), logarithms - np.log([1.0, 1.0, 0.5])
    smooth = scale**2 * np.exp(-0.5 * squares / length**2)
    factor = linalg.cholesky(smooth + (noise**2 + 1e-9) * np.eye(len(targets)), lower=True)
    inverse = linalg.cho_solve((factor, True), np.eye(len(targets)))
    weights = inverse @ targets
    loss = 0.5 * targets @ weights + np.log(np.diag(factor)).sum() + 0.5 * shift @ shift
    outer = np.outer(weights, weights) - inverse
    slopes = [(outer * smooth).sum(), 0.5 * (outer * smooth * squares).sum() / length**2, noise**2 * np.trace(outer)]
    return float(loss), shift - np.array(slopes)
