"""An order to train in when not all files are at hand: galaxies shuffled within windows of a few files."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["order_in_windows"]


def order_in_windows(files: NDArray[np.int64], window: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Visit the files in random order, ``window`` at a time, and the galaxies of each window in random order.

    Two galaxies that follow one another are of one file with a chance of about 1 / ``window``. Shards are shuffled when
    they are made, so each window is itself a random sample of all galaxies, of another mixture in every epoch.

    Args:
        files: (galaxies,) the number of the file that each is in.
        window: how many files are at hand at a time.
        seed: another order for each.

    Returns:
        The positions of all galaxies, (galaxies,), each once; and the files in the order in which they are come to.

    >>> files = np.array([0, 0, 1, 1, 2, 2])
    >>> order, visited = order_in_windows(files, window=2, seed=0)
    >>> sorted(order.tolist())
    [0, 1, 2, 3, 4, 5]
    >>> set(files[order[:4]]) == set(visited[:2])
    True
    """
    generator = np.random.default_rng(seed)
    visited = generator.permutation(np.unique(files))
    place = np.empty(int(visited.max(initial=-1)) + 1, np.int64)
    place[visited] = np.arange(len(visited)) // window
    # by window, and at random within it
    return np.lexsort((generator.random(len(files)), place[files])), visited
