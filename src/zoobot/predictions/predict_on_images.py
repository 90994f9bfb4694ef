"""Predicting how volunteers would vote, for images in a folder, a catalog or shards."""

import tempfile
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from zoobot.data import images, shards, tables
from zoobot.data.catalog import read_catalog
from zoobot.data.datasets import GalaxyDataset, ImageDataset, make_loader
from zoobot.data.manifest import MANIFEST_NAME
from zoobot.errors import ImageError, PredictionError, SettingError
from zoobot.estimators.checkpoint import load_model
from zoobot.estimators.define_model import Model
from zoobot.predictions.catalogue import count_columns, make_catalogue
from zoobot.processes import count_cores
from zoobot.progress import progress_bar
from zoobot.schemas import Schema

__all__ = ["PredictConfig", "Predicted", "failed_path", "predict", "predict_dataset"]

_MOST = 10_000  # samples, or galaxies in a batch: more is a slip of the finger
_MOST_FITS_COLUMNS = 999  # FITS standard 4.0, section 7.3.1


@dataclass(frozen=True)
class PredictConfig:
    """What to predict, with which model, and where to.

    Just one of ``folder_to_predict``, ``catalog`` and ``shard_dir`` says where the galaxies are.

    Attributes:
        checkpoint_dir: a model folder, as training makes it.
        save_loc: the table to write; its suffix (.parquet, .csv, .fits, …) decides the format.
        folder_to_predict: a folder of images; a galaxy's ``id_str`` is the file's path in it without suffix.
        file_format: ``png``, ``jpg`` or ``jpeg``: which files of the folder.
        recursive: look in the folder's folders too.
        catalog: a table with ``id_str`` and ``file_loc``.
        image_root: the folder that relative ``file_loc`` of the catalog start from; the catalog's own when left out.
        shard_dir: a folder of shards, or of TFRecords from elsewhere.
        split: which part of the shards: ``train``, ``test`` or ``unlabelled``.
        n_samples: draws of dropout, each a sample of the posterior; 1 switches dropout off.
        batch_size: galaxies at a time.
        workers: processes that decode images; chosen by the machine when left out.
        device: ``cpu``, ``cuda``, ``mps``; the best there is when left out.
        keep_concentrations: write the concentrations too, from which everything else can be computed.
        overwrite: replace ``save_loc`` if it exists.
        schema: the decision tree, for a model that has none; checked against the model's otherwise, as are the sizes.
        initial_size: height and width that images are resized to.
        crop_size: what is cropped from that.
        final_size: what the encoder sees.

    Raises:
        SettingError: a value is outside what it may be.
    """

    checkpoint_dir: str | Path
    save_loc: str | Path
    folder_to_predict: str | Path | None = None
    file_format: str = "png"
    recursive: bool = False
    catalog: str | Path | None = None
    image_root: str | Path | None = None
    shard_dir: str | Path | None = None
    split: str = "test"
    n_samples: int = 5
    batch_size: int = 64
    workers: int | None = None
    device: str | None = None
    keep_concentrations: bool = True
    overwrite: bool = False
    schema: Schema | None = None
    initial_size: int | None = None
    crop_size: int | None = None
    final_size: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        sources = [self.folder_to_predict, self.catalog, self.shard_dir]
        if sum(source is not None for source in sources) != 1:
            raise SettingError("give just one of folder_to_predict (--folder), catalog and shard_dir")
        for name in ("n_samples", "batch_size"):
            if not 1 <= getattr(self, name) <= _MOST:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be from 1 to {_MOST}")
        if self.workers is not None and self.workers < 0:
            raise SettingError(f"workers is {self.workers}; it must be 0 or more")
        tables.check_table_suffix(self.save_loc)


@dataclass(frozen=True)
class Predicted:
    """What :func:`predict` did.

    Attributes:
        save_loc: the table.
        galaxies: its rows.
        failed: how many images could not be read.
        failed_loc: the table of these, if there are any.
    """

    save_loc: Path
    galaxies: int
    failed: int
    failed_loc: Path | None


def predict(config: PredictConfig | None = None, **settings: Any) -> Predicted:
    """Predict every galaxy of a folder, a catalog or shards, and write a table of posteriors.

    The encoder runs once for each image, however many samples are drawn. Rows are in the order of the input.
    Images that cannot be read are rows of a second table, ``<name>.failed.csv``, with the reason.

    Args:
        config: what to predict; or give the fields of :class:`PredictConfig` by name.

    Raises:
        SettingError: a setting is wrong or unknown.
        ModelError: the model folder cannot be used, or does not have the sizes that are given.
        PredictionError: ``save_loc`` exists, or not one image could be read.
        CatalogError, ImageError, ShardError: there is nothing to predict where it was looked for.
    """
    config = replace(config, **settings) if config else _make_config(settings)
    _check_save_loc(config)
    device = _choose_device(config.device)
    model = load_model(config.checkpoint_dir)
    schema = _check_against_model(config, model)
    dataset = _open_source(config, model)
    concentrations, faults = predict_dataset(
        model,
        dataset,
        n_samples=config.n_samples,
        batch_size=config.batch_size,
        workers=_choose_workers(config, device, len(dataset)),
        device=device,
    )
    return _write(config, dataset, concentrations, faults, schema)


def predict_dataset(
    model: Model,
    dataset: GalaxyDataset,
    *,
    n_samples: int = 5,
    batch_size: int = 64,
    workers: int = 0,
    device: str | None = None,
) -> tuple[NDArray[np.float32], list[str]]:
    """Predict every galaxy of a dataset; the model is left on the device, in evaluation mode.

    Returns:
        Concentrations, (galaxies, samples, answers) float32, and why each galaxy's image could not be read (empty if it
        could); the concentrations of such a galaxy are NaN.
    """
    device = _choose_device(device)
    model = model.to(device).eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # it exists; torch does not declare it
    concentrations = np.full((len(dataset), n_samples, model.config.output_dim), np.nan, np.float32)
    faults: list[str] = []
    with progress_bar("predicting", len(dataset)) as advance, torch.inference_mode():
        for batch in make_loader(dataset, batch_size, workers=workers):
            readable = np.flatnonzero([not fault for fault in batch.faults])
            if readable.size:
                pixels = batch.images if len(readable) == len(batch.images) else batch.images[readable]
                samples = model.sample(pixels.to(device, non_blocking=True), n_samples)
                concentrations[len(faults) + readable] = samples.float().cpu().numpy()
            faults += batch.faults
            advance(len(batch.faults))
    return concentrations, faults


def failed_path(save_loc: str | Path) -> Path:
    """Where the images that could not be read are listed.

    >>> failed_path("out/predictions.parquet").name
    'predictions.failed.csv'
    """
    save_loc = Path(save_loc)
    return save_loc.with_name(save_loc.stem + ".failed.csv")


def _make_config(settings: dict[str, Any]) -> PredictConfig:
    known = [field.name for field in fields(PredictConfig)]
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        raise SettingError(f"predict does not know {', '.join(unknown)}; its settings are {', '.join(known)}")
    missing = [name for name in ("checkpoint_dir", "save_loc") if name not in settings]
    if missing:
        raise SettingError(f"predict needs {' and '.join(missing)}")
    return PredictConfig(**settings)


def _check_against_model(config: PredictConfig, model: Model) -> Schema:
    sizes = {"initial_size": "input_size", "crop_size": "crop_size", "final_size": "resize_size"}
    for given, own in sizes.items():
        expected, wanted = getattr(model.config, own), getattr(config, given)
        if wanted not in (None, expected):
            raise SettingError(f"{given} is {wanted}, but the model was trained with {expected}; leave it out")
    schema = model.schema or config.schema
    if schema is None:
        raise SettingError(f"the model in {config.checkpoint_dir} has no schema; give the one it was trained for")
    if config.schema is not None and config.schema.label_cols != schema.label_cols:
        raise SettingError(
            f"schema {config.schema.name} has other answers than the model's, {schema.name}; leave it out"
        )
    if len(schema.label_cols) != model.config.output_dim:
        raise SettingError(
            f"schema {schema.name} has {len(schema.label_cols)} answers, the model {model.config.output_dim}"
        )
    columns = count_columns(schema, config.n_samples if config.keep_concentrations else 0)
    if columns > _MOST_FITS_COLUMNS and Path(config.save_loc).suffix.lower() in (".fits", ".fit"):
        raise SettingError(
            f"save_loc {config.save_loc} would need {columns} columns, a FITS table holds {_MOST_FITS_COLUMNS}; "
            "leave the concentrations out with --no-concentrations, or write .parquet"
        )
    return schema


def _check_save_loc(config: PredictConfig) -> None:
    """Find out now, and not after hours of work, whether the table can be written."""
    save_loc = Path(config.save_loc)
    for path in (save_loc, failed_path(save_loc)):
        if path.exists() and not config.overwrite:
            raise PredictionError(f"save_loc: {path} exists; replace it with --overwrite or choose another name")
    try:
        save_loc.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=save_loc.parent).close()
    except OSError as error:
        raise PredictionError(f"save_loc {save_loc} cannot be written: {error.strerror}; choose another") from error


def _choose_device(device: str | None) -> str:
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


def _open_source(config: PredictConfig, model: Model) -> GalaxyDataset:
    size, channels = model.config.input_size, model.config.channels
    if config.shard_dir is not None:
        return _open_shards(Path(config.shard_dir), config.split, size, channels)
    if config.catalog is not None:
        catalog = read_catalog(config.catalog, image_root=config.image_root, check_files=False)
    elif config.folder_to_predict is not None:
        catalog = _list_folder(Path(config.folder_to_predict), config.file_format, recursive=config.recursive)
    return ImageDataset(catalog, size=size, channels=channels, fit=model.config.fit, keep_faulty=True)


def _open_shards(shard_dir: Path, split: str, size: int, channels: int) -> GalaxyDataset:
    if (shard_dir / MANIFEST_NAME).exists():
        dataset = shards.open_split(shard_dir, split, keep_faulty=True)
        if dataset.image_shape != (size, size, channels):
            found = "×".join(map(str, dataset.image_shape))
            raise PredictionError(f"{shard_dir} holds images of {found}, the model takes {size}×{size}×{channels}")
        return dataset
    files = sorted(path for path in shard_dir.glob("[!.]*.tfrecord*") if not path.name.endswith(".index.parquet"))
    if not files:
        raise PredictionError(f"shard_dir {shard_dir} holds no shards, nor TFRecord files of others (*.tfrecord)")
    return shards.ShardDataset(files, [], size=size, channels=channels, keep_faulty=True)


def _list_folder(folder: Path, file_format: str, *, recursive: bool) -> pd.DataFrame:
    """A catalog of the images in a folder; where two files share a name, it keeps the suffix."""
    paths = images.find_images(folder, file_format, recursive=recursive)
    names = [path.relative_to(folder) for path in paths]
    stems = Counter(name.with_suffix("").as_posix() for name in names)
    ids = [
        name.as_posix() if stems[name.with_suffix("").as_posix()] > 1 else name.with_suffix("").as_posix()
        for name in names
    ]
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise ImageError(
                f"{str(path).encode(errors='replace')!r} has a name that is not UTF-8; rename it"
            ) from error
    return pd.DataFrame({"id_str": ids, "file_loc": [str(path) for path in paths]})


def _choose_workers(config: PredictConfig, device: str, galaxies: int) -> int:
    """On a CPU the model itself uses every core; a GPU is fed by many processes, which take a second to start."""
    if config.workers is not None:
        return config.workers
    return min(16, count_cores()) if galaxies > 1000 and device != "cpu" else 0


def _write(
    config: PredictConfig,
    dataset: GalaxyDataset,
    concentrations: NDArray[np.float32],
    faults: list[str],
    schema: Schema,
) -> Predicted:
    good = np.array([not fault for fault in faults])
    ids, files = np.array(dataset.id_str, object), np.array(dataset.file_loc, object)
    save_loc, failed_loc = Path(config.save_loc), failed_path(config.save_loc)
    if not good.all():
        reasons = [fault for fault in faults if fault]
        failed = pd.DataFrame({"id_str": ids[~good], "file_loc": files[~good], "reason": reasons})
        tables.write_table(failed, failed_loc)
    if not good.any():
        raise PredictionError(
            f"not one of {len(good)} images could be read ({failed_loc} lists why); the first: {faults[0]}"
        )
    catalogue = make_catalogue(
        ids[good].tolist(),
        files[good].tolist(),
        concentrations[good],
        schema,
        keep_concentrations=config.keep_concentrations,
    )
    tables.write_table(catalogue, save_loc)
    failures = int((~good).sum())
    if not failures:
        failed_loc.unlink(missing_ok=True)  # of predictions that these replace
    return Predicted(save_loc, len(catalogue), failures, failed_loc if failures else None)
