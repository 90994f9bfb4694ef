"""Principal components of vectors too many to hold, from sums that are added up chunk by chunk."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoobot.errors import SettingError
from zoobot.stats.concentrations import Floats

__all__ = ["PrincipalComponents", "check_components", "fit_principal_components"]


@dataclass(frozen=True)
class PrincipalComponents:
    """The directions in which vectors vary most.

    Attributes:
        mean: of the vectors, (features,) float64.
        components: orthonormal, by falling variance, (components, features) float64.
        explained_variance: of the vectors along each, (components,) float64.
        total_variance: along all directions together.
    """

    mean: Floats
    components: Floats
    explained_variance: Floats
    total_variance: float

    @property
    def explained_variance_ratio(self) -> Floats:
        """Share of the variance that lies along each component; 0 where all vectors are the same."""
        return self.explained_variance / (self.total_variance or 1.0)

    def apply(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Coordinates of vectors (galaxies, features) along the components: (galaxies, components) float32."""
        return ((vectors.astype(np.float64) - self.mean) @ self.components.T).astype(np.float32)


def check_components(number: int, galaxies: int, features: int) -> None:
    """See that there can be so many principal components.

    Raises:
        SettingError: ``number`` is not from 1 to the number of features, and less than that of galaxies.
    """
    most = min(features, galaxies - 1)
    if most < 1:
        raise SettingError(f"pca is {number}; principal components need two galaxies or more, and there is {galaxies}")
    if not 1 <= number <= most:
        raise SettingError(
            f"pca is {number}; it must be from 1 to {most}, for {galaxies} galaxies of {features} features"
        )


def fit_principal_components(chunks: Iterable[NDArray[Any]], number: int) -> PrincipalComponents:
    """Find the leading principal components by eigen-decomposition of the covariance, in float64.

    Means and scatter of the chunks are joined as in Chan, Golub and LeVeque 1983 (The American Statistician 37, 242),
    exactly, so that memory does not grow with the galaxies. A component's largest loading is positive, which makes the
    result unique.

    Args:
        chunks: vectors (galaxies, features), finite.
        number: how many components.

    Raises:
        SettingError: as :func:`check_components`.

    >>> fit_principal_components([np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[6.0, 8.0]])], 1).components
    array([[0.6, 0.8]])
    """
    galaxies, mean, scatter = 0, np.zeros(1), np.zeros((1, 1))
    for chunk in chunks:
        vectors = chunk.astype(np.float64)
        own_mean = vectors.mean(axis=0)
        centred, shift = vectors - own_mean, own_mean - mean
        joined = galaxies + len(vectors)
        scatter = scatter + centred.T @ centred + np.outer(shift, shift) * (galaxies * len(vectors) / joined)
        mean = mean + shift * (len(vectors) / joined)
        galaxies = joined
    check_components(number, galaxies, len(mean))
    variances, directions = np.linalg.eigh(scatter / (galaxies - 1))
    components = directions[:, ::-1][:, :number].T
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    variances = variances.clip(min=0)  # rounding
    return PrincipalComponents(
        mean, components * np.where(largest < 0, -1.0, 1.0), variances[::-1][:number].copy(), float(variances.sum())
    )
