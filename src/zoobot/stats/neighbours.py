"""Nearest neighbours among vectors too many to hold, by the angle between them."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Neighbours", "find_nearest", "normalise"]


class Neighbours(NamedTuple):
    """The most similar galaxies of each query, the most similar one first.

    Attributes:
        positions: (queries, number) int64.
        similarities: cosines, (queries, number) float32.
    """

    positions: NDArray[np.int64]
    similarities: NDArray[np.float32]


def normalise(vectors: NDArray[np.float32], mean: NDArray[np.float64] | float = 0.0) -> NDArray[np.float32]:
    """Vectors (galaxies, features) less ``mean``, of length 1, so that their products are cosines.

    A vector that equals the mean has no direction and stays zero: it is similar to nothing.

    >>> normalise(np.array([[4.0, 5.0], [1.0, 1.0]], np.float32), np.array([1.0, 1.0])).round(3).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    centred = vectors - np.asarray(mean, np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", centred, centred))[:, None]
    centred /= np.where(lengths > 0, lengths, 1)
    return centred


def find_nearest(
    queries: NDArray[np.float32], chunks: Iterable[NDArray[np.float32]], number: int, left_out: NDArray[np.int64]
) -> Neighbours:
    """Compare each query with every vector, and keep the best.

    Args:
        queries: of length 1 (`normalise`), (queries, features).
        chunks: the vectors among which to look, likewise, in order.
        number: how many to keep, at most one fewer than there are vectors.
        left_out: for each query the position of a vector that is not meant, such as itself; (queries,).

    Returns:
        Among equals, those that come first.

    >>> east, north = [1.0, 0.0], [0.0, 1.0]
    >>> chunks = [np.array([east, north], np.float32), np.array([[0.6, 0.8]], np.float32)]
    >>> find_nearest(chunks[0][:1], chunks, 2, left_out=np.array([0])).positions
    array([[2, 1]])
    """
    best = np.full((len(queries), number), -np.inf, np.float32)
    positions = np.full((len(queries), number), -1)
    start = 0
    for chunk in chunks:
        found = queries @ chunk.T
        inside = np.flatnonzero((left_out >= start) & (left_out < start + len(chunk)))
        found[inside, left_out[inside] - start] = -np.inf
        each = np.broadcast_to(np.arange(start, start + len(chunk)), found.shape)
        both, both_positions = np.hstack([best, found]), np.hstack([positions, each])
        kept = np.argsort(-both, axis=1, kind="stable")[:, :number]
        best, positions = (np.take_along_axis(values, kept, axis=1) for values in (both, both_positions))
        start += len(chunk)
    return Neighbours(positions, best)
