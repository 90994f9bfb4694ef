"""Bootstrap samples of galaxies as weights, so that a resampled score is made of sums that are added up once."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from zoobot.stats.concentrations import Floats

__all__ = ["Weights", "add_up", "bootstrap_weights", "divide"]

Weights: TypeAlias = NDArray[np.uint8]

_CHUNK_GALAXIES = 1024  # whose weights are float64 at once


def bootstrap_weights(galaxies: int, resamples: int, seed: int = 0) -> Weights:
    """How often each galaxy is in each bootstrap sample, of as many galaxies drawn with replacement.

    Returns:
        (1 + resamples, galaxies); the first row is all ones: the galaxies themselves.

    >>> bootstrap_weights(3, 2).sum(axis=1).tolist()
    [3, 3, 3]
    """
    generator = np.random.default_rng([seed, 0])
    weights = np.ones((1 + resamples, galaxies), dtype=np.uint8)
    for resample in weights[1:]:  # 255 times the same one of hundreds does not happen
        resample[:] = np.bincount(generator.integers(galaxies, size=galaxies), minlength=galaxies).clip(max=255)
    return weights


def add_up(columns: Mapping[str, Floats], weights: Weights) -> dict[str, Floats]:
    """Sums over the galaxies of each resample: (galaxies, ...) to (resamples, ...).

    >>> add_up({"votes": np.array([4.0, 6.0])}, np.array([[1, 1], [2, 0]], dtype=np.uint8))
    {'votes': array([10.,  8.])}
    """
    shapes = {name: values.shape[1:] for name, values in columns.items()}
    widths = [int(np.prod(shape)) for shape in shapes.values()]
    sums = np.zeros((len(weights), sum(widths)))
    for start in range(0, weights.shape[1], _CHUNK_GALAXIES):
        chunk = slice(start, start + _CHUNK_GALAXIES)
        parts = [values[chunk].reshape(len(values[chunk]), -1) for values in columns.values()]
        sums += weights[:, chunk].astype(np.float64) @ np.concatenate(parts, axis=1)
    each = zip(shapes.items(), np.split(sums, np.cumsum(widths)[:-1], axis=1), strict=True)
    return {name: part.reshape(len(weights), *shape) for (name, shape), part in each}


def divide(numerator: Floats, denominator: Floats, empty: float = np.nan) -> Floats:
    """Quotient of sums of the same shape, ``empty`` where there is nothing to divide by.

    >>> divide(np.array([1.0, 0.0]), np.array([2.0, 0.0]))
    array([0.5, nan])
    """
    quotients = np.full(np.shape(numerator), empty, dtype=np.float64)
    np.divide(numerator, denominator, out=quotients, where=denominator > 0)
    return quotients
