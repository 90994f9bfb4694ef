"""Drawing samples of the posteriors of galaxies from one model or several, batch by batch."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from zoobot.data.datasets import Batch, GalaxyDataset, make_loader
from zoobot.errors import SettingError
from zoobot.estimators.augment import VIEWS, make_views
from zoobot.estimators.define_model import Model
from zoobot.processes import count_cores
from zoobot.progress import progress_bar

__all__ = [
    "DrawConfig",
    "Drawn",
    "check_drawing",
    "choose_device",
    "choose_devices",
    "choose_workers",
    "draw_parts",
    "predict_mixture",
]

_MOST = 10_000  # samples, or galaxies in a batch: more is a slip of the finger


class Drawn(NamedTuple):
    """What models say of the galaxies of a dataset.

    Attributes:
        concentrations: (galaxies, samples, answers) float32; NaN for an image that could not be read.
        faults: why an image could not be read; empty if it could.
        bad_pixels: (galaxies,), how many pixels of each image were filled.
    """

    concentrations: NDArray[np.float32]
    faults: list[str]
    bad_pixels: NDArray[np.int64]


def check_drawing(*, n_samples: int = 1, tta: str = "none", batch_size: int = 1, workers: int | None = None) -> None:
    """Check the settings that all share who draw.

    Raises:
        SettingError: one is outside what it may be.

    >>> check_drawing(tta="mirror")
    Traceback (most recent call last):
    zoobot.errors.SettingError: tta is 'mirror'; it must be one of none, dihedral
    """
    for name, value in (("n_samples", n_samples), ("batch_size", batch_size)):
        if not 1 <= value <= _MOST:
            raise SettingError(f"{name} is {value}; it must be from 1 to {_MOST}")
    if workers is not None and workers < 0:
        raise SettingError(f"workers is {workers}; it must be 0 or more")
    if tta not in VIEWS:
        raise SettingError(f"tta is {tta!r}; it must be one of {', '.join(VIEWS)}")


def predict_mixture(
    models: Sequence[Model],
    datasets: Sequence[GalaxyDataset],
    *,
    n_samples: int = 5,
    tta: str = "none",
    batch_size: int = 64,
    workers: int | None = None,
    device: str | None = None,
) -> Drawn:
    """Predict galaxies with several models, which need not take images of the same size.

    Args:
        models: one or more, of the same answers; they are left on the device, in evaluation mode.
        datasets: for each model, of the same galaxies (`open_for_each`); models with one dataset share a pass over it.
        n_samples: draws of dropout.
        tta: views of each image, a key of `VIEWS`.
        batch_size: galaxies at a time.
        workers: processes that decode images; chosen by the machine when left out.
        device: ``cpu``, ``cuda``, ``mps``; the best there is when left out.

    Returns:
        Samples are those of the first model, of its first view before its second, and so on.
    """
    config = DrawConfig(n_samples=n_samples, tta=tta, batch_size=batch_size, workers=workers, device=device)
    galaxies = range(len(datasets[0]))
    with progress_bar("predicting", len(galaxies)) as advance:
        return next(draw_parts(models, datasets, [galaxies], config, advance))


@dataclass(frozen=True)
class DrawConfig:
    """How to draw: as the arguments of `predict_mixture`.

    Raises:
        SettingError: a value is outside what it may be.
    """

    n_samples: int = 5
    tta: str = "none"
    batch_size: int = 64
    workers: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        check_drawing(n_samples=self.n_samples, tta=self.tta, batch_size=self.batch_size, workers=self.workers)


def draw_parts(
    models: Sequence[Model],
    datasets: Sequence[GalaxyDataset],
    parts: Sequence[range],
    config: DrawConfig,
    advance: Callable[[int], None],
) -> Iterator[Drawn]:
    """Predict parts of the galaxies, one after another, while those after it are read already.

    Args:
        models: as `predict_mixture`.
        datasets: likewise.
        parts: positions of galaxies; all but the last part are so many whole batches.
        config: how to draw.
        advance: is called with the number of galaxies just drawn.
    """
    device = choose_device(config.device)
    for model in models:
        model.to(device).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # undeclared
    galaxies = sum(map(len, parts))
    workers = choose_workers(device, galaxies) if config.workers is None else config.workers
    order = list(dict.fromkeys(map(id, datasets)))
    alike = [[number for number, each in enumerate(datasets) if id(each) == kind] for kind in order]
    loaders = [
        iter(make_loader(datasets[numbers[0]], config.batch_size, sampler=_Positions(parts), workers=workers))
        for numbers in alike
    ]
    for part in parts:
        shape = (len(part), len(models), VIEWS[config.tta] * config.n_samples, models[0].config.output_dim)
        drawn = Drawn(np.full(shape, np.nan, np.float32), [""] * len(part), np.zeros(len(part), np.int64))
        for start in range(0, len(part), config.batch_size):
            for numbers, loader in zip(alike, loaders, strict=True):
                _draw_batch([models[number] for number in numbers], numbers, next(loader), start, drawn, config, device)
            advance(min(config.batch_size, len(part) - start))
        yield drawn._replace(concentrations=drawn.concentrations.reshape(len(part), -1, shape[-1]))


def _draw_batch(
    models: Sequence[Model],
    numbers: Sequence[int],
    batch: Batch,
    start: int,
    drawn: Drawn,
    config: DrawConfig,
    device: str,
) -> None:
    """Enter what the models of these numbers say of a batch, whose first galaxy is that at ``start``."""
    stop = start + len(batch.faults)
    # an image may have gone between two passes
    faults = zip(drawn.faults[start:stop], batch.faults, strict=True)
    drawn.faults[start:stop] = [old or new for old, new in faults]
    np.maximum(drawn.bad_pixels[start:stop], batch.bad_pixels, out=drawn.bad_pixels[start:stop])
    readable = np.flatnonzero([not fault for fault in batch.faults])
    if not readable.size:
        return
    pixels = batch.images if len(readable) == len(batch.images) else batch.images[readable]
    with torch.inference_mode():
        views = list(make_views(pixels.to(device, non_blocking=True), config.tta))
        for number, model in zip(numbers, models, strict=True):
            samples = torch.cat([model.sample(view, config.n_samples) for view in views], dim=1)
            drawn.concentrations[start + readable, number] = samples.float().cpu().numpy()


class _Positions(Sampler[int]):
    """The positions of parts, one after another."""

    def __init__(self, parts: Sequence[range]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[int]:
        return itertools.chain.from_iterable(self._parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))


def choose_device(device: str | None) -> str:
    """The device, or the best there is.

    Raises:
        SettingError: torch does not know it, or does not find it here.
    """
    if device is None:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(f"device is {device!r}, which does not work here ({reason}); leave it out") from error
    return device


def choose_devices(device: str, number: int) -> list[str]:
    """Give so many devices of a kind, one for each process; all processes on a CPU share the one there is.

    Raises:
        SettingError: there are not so many.

    >>> choose_devices("cpu", 2)
    ['cpu', 'cpu']
    """
    if device.startswith("cpu") or number == 1:
        return [device] * number
    found = torch.cuda.device_count() if device == "cuda" else 1
    if number > found:
        raise SettingError(f"devices is {number}, but for device {device!r} there are {found}; give no more")
    return [f"{device}:{place}" for place in range(number)]


def choose_workers(device: str, galaxies: int, processes: int = 1) -> int:
    """On a CPU the model itself uses every core; a GPU is fed by many processes, which take a second to start."""
    return min(16, count_cores() // processes) if galaxies > 1000 and not device.startswith("cpu") else 0
