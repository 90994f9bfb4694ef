"""How unlike all others a galaxy is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from zoobot.stats.concentrations import Floats

__all__ = ["measure_oddness"]

_CHUNK = 8192  # galaxies, whose distances to the sample are held at once


def measure_oddness(vectors: NDArray[Any], *, sample: int = 300, neighbours: int = 5, seed: int = 0) -> Floats:
    """Mean distance to the nearest few galaxies of a random sample of them (Sugiyama and Borgwardt 2013, NeurIPS 26).

    A sample does not only save time: rare galaxies of one kind are seldom in it together, so that they cannot hide each
    other.

    Args:
        vectors: (galaxies, features), finite, of at least 2 galaxies.
        sample: galaxies in it, at most.
        neighbours: over how many of these the mean is.
        seed: of the sample.

    Returns:
        (galaxies,), in the units of the vectors; a galaxy of the sample is not its own neighbour.

    >>> measure_oddness(np.array([[0.0], [1.0], [2.0], [9.0]]), neighbours=1).tolist()
    [1.0, 1.0, 1.0, 7.0]
    """
    chosen = np.random.default_rng(seed).permutation(len(vectors))[:sample]
    neighbours = min(neighbours, len(chosen) - 1)
    column = np.full(len(vectors), -1)
    column[chosen] = np.arange(len(chosen))
    scores = np.empty(len(vectors))
    for start in range(0, len(vectors), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        distances = cdist(vectors[chunk], vectors[chosen])
        own = np.flatnonzero(column[chunk] >= 0)
        distances[own, column[chunk][own]] = np.inf
        scores[chunk] = np.partition(distances, neighbours - 1, axis=1)[:, :neighbours].mean(axis=1)
    return scores
