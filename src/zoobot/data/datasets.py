"""Batches of galaxies, and the dataset that reads them straight from image files."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from zoobot.data import images
from zoobot.data.fits_images import FitsConfig
from zoobot.errors import CatalogError, ImageError, SettingError, ZoobotError
from zoobot.progress import progress_bar

__all__ = [
    "Batch",
    "GalaxyDataset",
    "ImageDataset",
    "MemoryDataset",
    "describe_dataset",
    "load_images",
    "make_loader",
]

_MOST_BYTES = 8 * 2**30  # of images in memory
_SHOWN = 5  # faults of images


class Batch(NamedTuple):
    """Galaxies as the model takes them.

    Attributes:
        images: (galaxies, height, width, channels) uint8; float16 where FITS files are not stretched.
        votes: (galaxies, answers) float32; no columns where nothing is known.
        id_str: the galaxies' names, in the same order.
        faults: why an image could not be read, empty where it could; such an image is black.
        bad_pixels: how many pixels of each image were bad and were filled, as far as it is known.
    """

    images: torch.Tensor
    votes: torch.Tensor
    id_str: list[str]
    faults: list[str]
    bad_pixels: NDArray[np.int64]


class GalaxyDataset(Protocol):
    """What training and prediction ask of a dataset; a ``torch.utils.data.Dataset`` which gathers whole batches."""

    @property
    def id_str(self) -> list[str]:
        """The galaxies' names."""

    @property
    def file_loc(self) -> list[str]:
        """The files that their images come from."""

    @property
    def votes(self) -> NDArray[np.float32] | torch.Tensor:
        """(galaxies, answers)."""

    @property
    def label_cols(self) -> list[str]:
        """The columns of votes, in the order of ``Batch.votes``."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""

    def __len__(self) -> int:
        """The number of galaxies."""

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """Read these galaxies, in this order."""


class ImageDataset(Dataset[Batch]):
    """Galaxies read straight from the image files of a catalog: for small jobs and for prediction.

    Training for more than an epoch or two is faster from shards, which are decoded once.

    Args:
        catalog: a table with ``id_str`` and ``file_loc``, as :func:`zoobot.data.catalog.read_catalog` gives it.
        size: height and width of the images in pixels; they are resized to it.
        channels: 1 or 3.
        label_cols: the columns of votes to give with each image.
        fit: ``crop`` or ``pad``, for images that are not square.
        fits: where FITS files have their fluxes, and their stretch.
        keep_faulty: give a black image and the reason in ``Batch.faults`` for one that cannot be read.

    Raises:
        CatalogError: the catalog lacks a column.
        ImageError: on reading, an image that cannot be read, unless ``keep_faulty``.
    """

    def __init__(
        self,
        catalog: pd.DataFrame,
        *,
        size: int,
        channels: int = 3,
        label_cols: Sequence[str] = (),
        fit: str = "crop",
        fits: FitsConfig | None = None,
        keep_faulty: bool = False,
    ) -> None:
        missing = [column for column in ("id_str", "file_loc", *label_cols) if column not in catalog.columns]
        if missing:
            raise CatalogError(f"the catalog lacks the columns {', '.join(missing)}")
        self.label_cols = list(label_cols)
        self.image_shape = (size, size, channels)
        self._fit = fit
        self._fits = fits
        self._keep_faulty = keep_faulty
        self.id_str = catalog["id_str"].tolist()
        self.file_loc = catalog["file_loc"].tolist()
        self.votes = torch.from_numpy(catalog[self.label_cols].to_numpy(np.float32))

    def __len__(self) -> int:
        """The number of galaxies."""
        return len(self.id_str)

    def __getitem__(self, position: int) -> Batch:
        """A batch of one galaxy."""
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """Read these galaxies, in this order."""
        fluxes = self._fits is not None and self._fits.stretch is None
        pixels = np.zeros((len(positions), *self.image_shape), np.float16 if fluxes else np.uint8)
        bad_pixels = np.zeros(len(positions), np.int64)
        faults = [""] * len(positions)
        for row, position in enumerate(positions):
            try:
                pixels[row], bad_pixels[row] = self._read(self.file_loc[position])
            except ImageError as error:
                if not self._keep_faulty:
                    raise
                faults[row] = str(error)
        return Batch(
            torch.from_numpy(pixels),
            self.votes[torch.as_tensor(positions, dtype=torch.long)],
            [self.id_str[position] for position in positions],
            faults,
            bad_pixels,
        )

    def _read(self, path: str | Path) -> images.Picture:
        height, _, channels = self.image_shape
        return images.read_picture(path, size=height, channels=channels, fit=self._fit, fits=self._fits)


class MemoryDataset(Dataset[Batch]):
    """Galaxies whose images are all in memory: for the few hundred of a finetuning.

    Args:
        images: (galaxies, height, width, channels).
        votes: (galaxies, answers) float32.
        label_cols: names of the answers.
        id_str: the galaxies' names.
        file_loc: the files that the images come from.
    """

    def __init__(
        self,
        images: torch.Tensor,
        votes: torch.Tensor,
        label_cols: Sequence[str],
        id_str: Sequence[str],
        file_loc: Sequence[str],
    ) -> None:
        self.images, self.votes, self.label_cols = images, votes, list(label_cols)
        self.id_str, self.file_loc = list(id_str), list(file_loc)
        height, width, channels = images.shape[1:]
        self.image_shape = (height, width, channels)

    def __len__(self) -> int:
        """The number of galaxies."""
        return len(self.id_str)

    def __getitem__(self, position: int) -> Batch:
        """A batch of one galaxy."""
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """Gather these galaxies, in this order."""
        rows = torch.as_tensor(positions, dtype=torch.long)
        ids = [self.id_str[position] for position in positions]
        return Batch(self.images[rows], self.votes[rows], ids, [""] * len(ids), np.zeros(len(ids), np.int64))

    def take(self, positions: Sequence[int] | NDArray[np.intp]) -> "MemoryDataset":
        """A dataset of these galaxies alone."""
        chosen = [int(position) for position in positions]
        rows = torch.as_tensor(chosen, dtype=torch.long)
        ids, files = [self.id_str[row] for row in chosen], [self.file_loc[row] for row in chosen]
        return MemoryDataset(self.images[rows], self.votes[rows], self.label_cols, ids, files)


def load_images(dataset: ImageDataset, *, workers: int = 0) -> MemoryDataset:
    """Read all images of a dataset into memory.

    Args:
        dataset: made with ``keep_faulty``, so that all faults are found and told at once.
        workers: processes that decode.

    Raises:
        SettingError: the images would need more than 8 GiB.
        ImageError: some cannot be read; the first few are named.
    """
    height, width, channels = dataset.image_shape
    if len(dataset) * height * width * channels > _MOST_BYTES:
        raise SettingError(
            f"{len(dataset)} images of {height}×{width}×{channels} are too many for memory; make them smaller "
            "(--image-size), or use zoobot create-shards and zoobot train --weights"
        )
    parts, faults = [], []
    with progress_bar("reading images", len(dataset)) as advance:
        for batch in make_loader(dataset, 32, workers=workers):
            parts.append(batch.images)
            faults += [fault for fault in batch.faults if fault]
            advance(len(batch.images))
    if faults:
        shown = faults[:_SHOWN] + ([f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else [])
        raise ImageError("\n".join([*shown, "mend these files, or take their rows out of the catalog"]))
    return MemoryDataset(torch.cat(parts), dataset.votes, dataset.label_cols, dataset.id_str, dataset.file_loc)


def make_loader(
    dataset: GalaxyDataset,
    batch_size: int,
    *,
    shuffle: bool = False,
    sampler: Sampler[int] | None = None,
    workers: int = 0,
) -> "DataLoader[Batch]":
    """A ``DataLoader`` that asks the dataset for whole batches; the last, smaller one is kept.

    Args:
        dataset: any :class:`GalaxyDataset`.
        batch_size: galaxies a batch.
        shuffle: visit the galaxies in a new random order each time, over the whole dataset.
        sampler: an order of your own instead.
        workers: processes that read ahead; 0 reads in this one, which suffices for raw shards on a CPU.

    Raises:
        SettingError: the batch size is below 1.
    """
    if batch_size < 1:
        raise SettingError(f"batch_size is {batch_size}; it must be at least 1")
    return _Loader(
        dataset,  # type: ignore[arg-type]  # it need not inherit from Dataset
        batch_size=batch_size,
        shuffle=shuffle,
        sampler=sampler,
        num_workers=workers,
        collate_fn=_as_it_is,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


class _Loader(DataLoader[Batch]):
    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except ZoobotError as error:
            # of a worker: torch has put the worker's traceback before the message
            kind = type(error)
            raise kind(str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].rstrip()) from error


def _as_it_is(batch: Any) -> Any:
    return batch


def describe_dataset(dataset: GalaxyDataset) -> dict[str, Any]:
    """How many galaxies, and a fingerprint of their names and votes."""
    digest = hashlib.sha256("\n".join([*dataset.label_cols, "", *dataset.id_str]).encode())
    digest.update(np.ascontiguousarray(dataset.votes).tobytes())
    return {"galaxies": len(dataset), "sha256": digest.hexdigest()}
