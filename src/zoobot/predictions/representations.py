"""Representing galaxies by what the encoder sees in them: a vector for each, in a parquet file."""

import contextlib
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from zoobot.data.datasets import GalaxyDataset, make_loader
from zoobot.errors import PredictionError, SettingError
from zoobot.estimators.augment import make_views
from zoobot.estimators.checkpoint import load_config, load_model
from zoobot.estimators.define_model import Model
from zoobot.estimators.encoders import count_features
from zoobot.files import replace_atomically
from zoobot.predictions.catalogue import check_tables_to_write
from zoobot.predictions.drawing import check_drawing, choose_device, choose_workers
from zoobot.predictions.outputs import check_save_loc, failed_path, write_failures
from zoobot.predictions.representation_file import (
    COLUMNS,
    DTYPES,
    ROWS_AT_A_TIME,
    RepresentationWriter,
    load_components,
    pca_path,
    save_components,
)
from zoobot.predictions.sources import GalaxySource, open_source
from zoobot.progress import progress_bar
from zoobot.stats.principal_components import PrincipalComponents, check_components, fit_principal_components

__all__ = ["RepresentConfig", "Represented", "represent"]


@dataclass(frozen=True, kw_only=True)
class RepresentConfig(GalaxySource):
    """What to represent, with which model, and where to; where the galaxies are, `GalaxySource` says.

    Attributes:
        checkpoint_dir: a model folder, as training makes it.
        save_loc: the ``.parquet`` file to write.
        dtype: what the numbers are stored as, ``float16`` or ``float32``.
        columns: ``list``, one column ``representation``, or ``each``, columns ``feature_0``, ``feature_1`` and so on.
        pca: compress to so many principal components, fitted to these galaxies and saved beside them.
        pca_from: compress with the components that were saved beside other representations, of the same model.
        tta: views of each image, whose representations are averaged: ``none``, or ``dihedral``, the 8 that quarter
            turns and mirrors give, after which the representation does not change when the image is turned so.
        batch_size: galaxies at a time.
        workers: processes that decode images; chosen by the machine when left out.
        device: ``cpu``, ``cuda``, ``mps``; the best there is when left out.
        overwrite: replace ``save_loc`` if it exists.

    Raises:
        SettingError: a value is outside what it may be.
    """

    checkpoint_dir: str | Path
    save_loc: str | Path
    dtype: str = "float16"
    columns: str = "list"
    pca: int | None = None
    pca_from: str | Path | None = None
    tta: str = "none"
    batch_size: int = 64
    workers: int | None = None
    device: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if Path(self.save_loc).suffix != ".parquet":
            raise SettingError(f"save_loc is {self.save_loc}; representations are written as .parquet")
        for name, known in (("dtype", DTYPES), ("columns", COLUMNS)):
            if getattr(self, name) not in known:
                raise SettingError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}")
        if self.pca is not None and self.pca_from is not None:
            raise SettingError("pca and pca_from exclude each other; choose one")
        if self.pca is not None and self.pca < 1:
            raise SettingError(f"pca is {self.pca}; it must be at least 1")
        super().__post_init__()
        check_drawing(tta=self.tta, batch_size=self.batch_size, workers=self.workers)
        check_tables_to_write({"save_loc": self.save_loc, "failures": failed_path(self.save_loc)}, [self.catalog])


@dataclass(frozen=True)
class Represented:
    """What :func:`represent` did.

    Attributes:
        save_loc: the parquet file.
        galaxies: its rows.
        features: the length of each representation, after compression.
        failed: how many images could not be read.
        failed_loc: the table of these, if there are any.
        components_loc: the principal components that compressed them, if they were.
        explained: share of the variance that these keep, of the galaxies that they were fitted to.
    """

    save_loc: Path
    galaxies: int
    features: int
    failed: int
    failed_loc: Path | None
    components_loc: Path | None
    explained: float | None


class _Chunk(NamedTuple):
    """Some galaxies: their positions in the dataset, and (galaxies, features) float32."""

    positions: list[int]
    vectors: NDArray[np.float32]


def represent(config: RepresentConfig) -> Represented:
    """Write the encoder's pooled features of every galaxy, in the order of the input, to a parquet file.

    Rows are ``id_str``, ``file_loc`` and the features, which are those that the head gets, before dropout. The same
    input on the same machine gives the same bytes. Galaxies are written as they come: memory grows only with their
    names. Images that cannot be read are rows of a second table, ``<name>.failed.csv``, with the reason. Principal
    components are fitted exactly, while the features wait in a temporary file beside ``save_loc``.

    Raises:
        SettingError: ``pca`` is more than there can be, or the device does not work.
        ModelError: the model folder cannot be used.
        PredictionError: ``save_loc`` exists, not one image could be read, or ``pca_from`` is of another model.
        CatalogError, ImageError, ShardError: there is nothing to represent where it was looked for.
    """
    save_loc = Path(config.save_loc)
    check_save_loc(save_loc, overwrite=config.overwrite)
    folder = Path(config.checkpoint_dir)
    about = {"weights_sha256": load_config(folder)["weights_sha256"], "tta": config.tta}
    components = None if config.pca_from is None else load_components(config.pca_from, about)
    model = load_model(folder, choose_device(config.device))
    dataset = open_source(config, model)
    if config.pca is not None:
        check_components(config.pca, len(dataset), count_features(model.encoder))
    about |= {"encoder": model.config.encoder}
    faults: list[str] = []
    chunks = _encode(config, model, dataset, faults)
    first = next(chunks, None)
    if first is None:
        write_failures(dataset.id_str, dataset.file_loc, faults, failed_path(save_loc))
        raise PredictionError(
            f"not one of {len(faults)} images could be read ({failed_path(save_loc)} lists why); the first: {faults[0]}"
        )
    chunks = itertools.chain([first], chunks)
    with contextlib.ExitStack() as stack:
        if config.pca is not None:
            spool = stack.enter_context(tempfile.TemporaryFile(dir=save_loc.parent))
            components, chunks = _fit(config.pca, chunks, spool)
        features = first.vectors.shape[1] if components is None else len(components.components)
        galaxies = _write(config, dataset, features, _compress(chunks, components), about)
    failed = write_failures(dataset.id_str, dataset.file_loc, faults, failed_path(save_loc))
    if components is None:
        pca_path(save_loc).unlink(missing_ok=True)  # of representations that these replace, as below
    else:
        save_components(components, pca_path(save_loc), about)
    return Represented(
        save_loc,
        galaxies,
        features,
        failed,
        failed_path(save_loc) if failed else None,
        None if components is None else pca_path(save_loc),
        None if components is None else float(components.explained_variance_ratio.sum()),
    )


def _encode(config: RepresentConfig, model: Model, dataset: GalaxyDataset, faults: list[str]) -> Iterator[_Chunk]:
    """Represent the galaxies that can be read; ``faults`` gets a line for each of all, empty if it could be."""
    device = next(model.parameters()).device
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # undeclared
    workers = choose_workers(device.type, len(dataset)) if config.workers is None else config.workers
    positions: list[int] = []
    waiting: list[NDArray[np.float32]] = []
    with progress_bar("representing", len(dataset)) as advance:
        for batch in make_loader(dataset, config.batch_size, workers=workers):
            readable = np.flatnonzero([not fault for fault in batch.faults])
            if readable.size:
                pixels = batch.images[readable].to(device, non_blocking=True)
                with torch.inference_mode():
                    views = [model.represent(view).float() for view in make_views(pixels, config.tta)]
                    waiting.append(torch.stack(views).mean(dim=0).cpu().numpy())
                positions += (len(faults) + readable).tolist()
            faults += batch.faults
            advance(len(batch.faults))
            if len(positions) >= ROWS_AT_A_TIME:
                yield _Chunk(positions, np.concatenate(waiting))
                positions, waiting = [], []
    if positions:
        yield _Chunk(positions, np.concatenate(waiting))


def _fit(number: int, chunks: Iterable[_Chunk], spool: IO[bytes]) -> tuple[PrincipalComponents, Iterator[_Chunk]]:
    """Fit components to all chunks, and give the same chunks again, from a temporary file."""
    positions: list[list[int]] = []
    features = 0

    def set_aside() -> Iterator[NDArray[np.float32]]:
        nonlocal features
        for chunk in chunks:
            positions.append(chunk.positions)
            features = chunk.vectors.shape[1]
            spool.write(chunk.vectors.tobytes())
            yield chunk.vectors

    def fetch() -> Iterator[_Chunk]:
        spool.seek(0)
        for each in positions:
            found = np.frombuffer(spool.read(4 * len(each) * features), np.float32)
            yield _Chunk(each, found.reshape(len(each), features))

    return fit_principal_components(set_aside(), number), fetch()


def _compress(chunks: Iterable[_Chunk], components: PrincipalComponents | None) -> Iterator[_Chunk]:
    for chunk in chunks:
        yield chunk if components is None else _Chunk(chunk.positions, components.apply(chunk.vectors))


def _write(
    config: RepresentConfig, dataset: GalaxyDataset, features: int, chunks: Iterable[_Chunk], about: dict[str, Any]
) -> int:
    """Write the file; give the number of galaxies."""
    ids, files, galaxies = dataset.id_str, dataset.file_loc, 0
    with replace_atomically(config.save_loc) as path:
        writer = RepresentationWriter(path, features, dtype=config.dtype, columns=config.columns, about=about)
        with contextlib.closing(writer):
            for positions, vectors in chunks:
                names = [ids[position] for position in positions]
                writer.write(names, [files[position] for position in positions], vectors)
                galaxies += len(positions)
    return galaxies
