"""Predicting how volunteers would vote, for images in a folder, a catalog or shards."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from zoobot.data import tables
from zoobot.data.catalog import read_catalog
from zoobot.data.datasets import GalaxyDataset, make_loader
from zoobot.data.stretch import Stretch
from zoobot.errors import PredictionError, SettingError
from zoobot.estimators.checkpoint import load_model
from zoobot.estimators.define_model import Model
from zoobot.predictions.calibration_file import list_model_folders, load_calibration
from zoobot.predictions.catalogue import (
    INTERVALS,
    check_tables_to_write,
    count_columns,
    make_catalogue,
    make_friendly,
)
from zoobot.predictions.sources import choose_fits, list_folder, open_for_each, open_images, open_shards
from zoobot.processes import count_cores
from zoobot.progress import progress_bar
from zoobot.schemas import Schema
from zoobot.stats.recalibration import Recalibration

__all__ = [
    "VIEWS",
    "Drawn",
    "PredictConfig",
    "Predicted",
    "check_save_loc",
    "check_writable",
    "choose_device",
    "choose_schema",
    "choose_workers",
    "failed_path",
    "make_views",
    "open_source",
    "predict",
    "predict_dataset",
    "predict_mixture",
]

VIEWS = {"none": 1, "dihedral": 8}
"""How many views of each image the kinds of test-time augmentation take."""

_MOST = 10_000  # samples, or galaxies in a batch: more is a slip of the finger
_FAILED_COLUMNS = ("id_str", "file_loc", "reason")
_MOST_FITS_COLUMNS = 999  # FITS standard 4.0, section 7.3.1


@dataclass(frozen=True)
class PredictConfig:
    """What to predict, with which model, and where to.

    Just one of ``folder_to_predict``, ``catalog`` and ``shard_dir`` says where the galaxies are.

    Attributes:
        checkpoint_dir: a model folder, as training makes it; or several, whose posteriors are mixed in equal parts.
        save_loc: the table to write; its suffix (.parquet, .csv, .fits, …) decides the format.
        folder_to_predict: a folder of images; a galaxy's ``id_str`` is the file's path in it without suffix.
        file_format: ``png``, ``jpg`` (or ``jpeg``) or ``fits``: which files of the folder.
        recursive: look in the folder's folders too.
        catalog: a table with ``id_str`` and ``file_loc``.
        image_root: the folder that relative ``file_loc`` of the catalog start from; the catalog's own when left out.
        layout: where FITS files have their fluxes, as far as not where those have them that the model was trained on:
            settings of :class:`~zoobot.data.fits_images.FitsLayout`, such as ``{"hdu": 1}``.
        stretch: of FITS files; that which the model was trained with when left out, or that of
            :class:`~zoobot.data.fits_images.FitsConfig` if it was trained on images of other kinds.
        shard_dir: a folder of shards, or of TFRecords from elsewhere.
        split: which part of the shards: ``train``, ``test`` or ``unlabelled``.
        n_samples: draws of dropout, each a sample of the posterior; 1 switches dropout off.
        tta: views of each image, each encoded and counted as samples of its own (test-time augmentation): ``none``,
            or ``dihedral``, the 8 that quarter turns and mirrors give.
        recalibrate: apply the recalibration that :func:`zoobot.predictions.calibrate.calibrate` made: ``calibration``,
            or the one that a single model has in its folder.
        calibration: the file of a recalibration, that of a mixture of models for instance; it must have been fitted to
            the same models with the same ``n_samples`` and ``tta``.
        batch_size: galaxies at a time.
        workers: processes that decode images; chosen by the machine when left out.
        device: ``cpu``, ``cuda``, ``mps``; the best there is when left out.
        keep_concentrations: write the concentrations too, from which everything else can be computed.
        keep_raw: write the concentrations from before the recalibration as well.
        intervals: which 90% credible intervals of fractions: ``equal-tailed`` or ``shortest``.
        uncertainty: write more of the posterior: which answers lead, shares of all volunteers, entropies; see
            :func:`zoobot.predictions.catalogue.make_catalogue`.
        friendly_loc: a second table, easy on the eye, with the leading answers and their fractions, blank where less
            than ``asked_threshold`` of the volunteers are expected to be asked.
        asked_threshold: for ``friendly_loc``, 0 to 1.
        overwrite: replace ``save_loc`` if it exists.
        schema: the decision tree, for a model that has none; checked against the model's otherwise, as are the sizes.
        initial_size: height and width that images are resized to.
        crop_size: what is cropped from that.
        final_size: what the encoder sees.

    Raises:
        SettingError: a value is outside what it may be.
    """

    checkpoint_dir: str | Path | Sequence[str | Path]
    save_loc: str | Path
    folder_to_predict: str | Path | None = None
    file_format: str = "png"
    recursive: bool = False
    catalog: str | Path | None = None
    image_root: str | Path | None = None
    layout: Mapping[str, Any] = field(default_factory=dict)
    stretch: Stretch | None = None
    shard_dir: str | Path | None = None
    split: str = "test"
    n_samples: int = 5
    tta: str = "none"
    recalibrate: bool = True
    calibration: str | Path | None = None
    batch_size: int = 64
    workers: int | None = None
    device: str | None = None
    keep_concentrations: bool = True
    keep_raw: bool = False
    intervals: str = "equal-tailed"
    uncertainty: bool = False
    friendly_loc: str | Path | None = None
    asked_threshold: float = 0.5
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
        for name, known in (("tta", VIEWS), ("intervals", INTERVALS)):
            if getattr(self, name) not in known:
                raise SettingError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}")
        if self.calibration is not None and not self.recalibrate:
            raise SettingError("calibration and --no-recalibrate (recalibrate=False) exclude each other; choose one")
        if not 0 <= self.asked_threshold <= 1:
            raise SettingError(f"asked_threshold is {self.asked_threshold}; it must be from 0 to 1, such as 0.5")
        list_model_folders(self.checkpoint_dir)  # not empty
        tables.check_table_suffix(self.save_loc)
        written = {"save_loc": self.save_loc, "failures": failed_path(self.save_loc), "friendly_loc": self.friendly_loc}
        check_tables_to_write(written, [self.catalog])

    @property
    def checkpoint_dirs(self) -> list[Path]:
        """Every model folder."""
        return list_model_folders(self.checkpoint_dir)

    @property
    def samples(self) -> int:
        """How many samples the mixture of a galaxy's posterior has."""
        return len(self.checkpoint_dirs) * VIEWS[self.tta] * self.n_samples


@dataclass(frozen=True)
class Predicted:
    """What :func:`predict` did.

    Attributes:
        save_loc: the table.
        galaxies: its rows.
        failed: how many images could not be read.
        failed_loc: the table of these, if there are any.
        filled: how many images had bad pixels, which were filled.
    """

    save_loc: Path
    galaxies: int
    failed: int
    failed_loc: Path | None
    filled: int


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
    check_save_loc(config)
    device = choose_device(config.device)
    models = [load_model(folder) for folder in config.checkpoint_dirs]
    schema = _check_against_models(config, models)
    recalibration = _load_recalibration(config)
    datasets = open_for_each(models, lambda model: open_source(config, model))
    drawn = predict_mixture(
        models,
        datasets,
        n_samples=config.n_samples,
        tta=config.tta,
        batch_size=config.batch_size,
        workers=config.workers,
        device=device,
    )
    return _write(config, datasets[0], drawn, _recalibrate(drawn.concentrations, recalibration), schema)


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
        models: one or more, of the same answers.
        datasets: for each model, of the same galaxies (`open_for_each`); models with one dataset share a pass over it.
        n_samples: draws of dropout.
        tta: views of each image, a key of `VIEWS`.
        batch_size: galaxies at a time.
        workers: processes that decode images; chosen by the machine when left out.
        device: ``cpu``, ``cuda``, ``mps``; the best there is when left out.

    Returns:
        As `predict_dataset`, with the samples of the models in their order.
    """
    device = choose_device(device)
    galaxies, answers = len(datasets[0]), models[0].config.output_dim
    concentrations = np.empty((galaxies, len(models), VIEWS[tta] * n_samples, answers), np.float32)
    faults, bad_pixels = [""] * galaxies, np.zeros(galaxies, np.int64)
    for shared in dict.fromkeys(map(id, datasets)):
        alike = [number for number, dataset in enumerate(datasets) if id(dataset) == shared]
        found = predict_dataset(
            [models[number] for number in alike],
            datasets[alike[0]],
            n_samples=n_samples,
            tta=tta,
            batch_size=batch_size,
            workers=choose_workers(device, galaxies) if workers is None else workers,
            device=device,
        )
        # an image may have gone between two passes
        faults = [old or new for old, new in zip(faults, found.faults, strict=True)]
        bad_pixels = np.maximum(bad_pixels, found.bad_pixels)
        concentrations[:, alike] = found.concentrations.reshape(galaxies, len(alike), -1, answers)
    return Drawn(concentrations.reshape(galaxies, -1, answers), faults, bad_pixels)


def predict_dataset(
    model: Model | Sequence[Model],
    dataset: GalaxyDataset,
    *,
    n_samples: int = 5,
    tta: str = "none",
    batch_size: int = 64,
    workers: int = 0,
    device: str | None = None,
) -> Drawn:
    """Predict every galaxy of a dataset with one model or several; they are left on the device, in evaluation mode.

    Returns:
        Samples are those of the first model, of its first view before its second, and so on.
    """
    device = choose_device(device)
    models = [model] if isinstance(model, Model) else list(model)
    for each in models:
        each.to(device).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # undeclared
    samples = len(models) * VIEWS[tta] * n_samples
    concentrations = np.full((len(dataset), samples, models[0].config.output_dim), np.nan, np.float32)
    faults: list[str] = []
    bad_pixels: list[NDArray[np.int64]] = []
    with progress_bar("predicting", len(dataset)) as advance, torch.inference_mode():
        for batch in make_loader(dataset, batch_size, workers=workers):
            readable = np.flatnonzero([not fault for fault in batch.faults])
            if readable.size:
                pixels = batch.images if len(readable) == len(batch.images) else batch.images[readable]
                views = list(make_views(pixels.to(device, non_blocking=True), tta))
                drawn = [each.sample(view, n_samples) for each in models for view in views]
                concentrations[len(faults) + readable] = torch.cat(drawn, dim=1).float().cpu().numpy()
            faults += batch.faults
            bad_pixels.append(batch.bad_pixels)
            advance(len(batch.faults))
    return Drawn(concentrations, faults, np.concatenate(bad_pixels))


def make_views(pixels: torch.Tensor, tta: str) -> Iterator[torch.Tensor]:
    """The images (batch, height, width, channels) as they are, and turned and mirrored."""
    if tta == "none":
        yield pixels
        return
    for mirrored in (pixels, pixels.flip(2)):
        for turns in range(4):
            yield torch.rot90(mirrored, turns, (1, 2))


def _load_recalibration(config: PredictConfig) -> Recalibration | None:
    if not config.recalibrate:
        return None
    return load_calibration(config.checkpoint_dirs, config.calibration, n_samples=config.n_samples, tta=config.tta)


def _recalibrate(raw: NDArray[np.float32], recalibration: Recalibration | None) -> NDArray[np.float32]:
    """Recalibrate concentrations; those of images that could not be read stay NaN."""
    if recalibration is None:
        return raw
    recalibrated = raw.copy()
    readable = ~np.isnan(raw).any(axis=(1, 2))
    recalibrated[readable] = recalibration.apply(raw[readable])
    return recalibrated


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


def _check_against_models(config: PredictConfig, models: Sequence[Model]) -> Schema:
    sizes = {"initial_size": "input_size", "crop_size": "crop_size", "final_size": "resize_size"}
    for given, own in sizes.items():
        wanted = getattr(config, given)
        others = [getattr(model.config, own) for model in models if getattr(model.config, own) != wanted]
        if wanted is not None and others:
            raise SettingError(f"{given} is {wanted}, but the model was trained with {others[0]}; leave it out")
    schema = choose_schema(config.checkpoint_dirs, models, config.schema)
    kept = config.keep_concentrations + config.keep_raw
    columns = count_columns(schema, config.samples * kept, uncertainty=config.uncertainty)
    if columns > _MOST_FITS_COLUMNS and Path(config.save_loc).suffix.lower() in (".fits", ".fit"):
        raise SettingError(
            f"save_loc {config.save_loc} would need {columns} columns, a FITS table holds {_MOST_FITS_COLUMNS}; "
            "leave the concentrations out with --no-concentrations, or write .parquet"
        )
    return schema


def choose_schema(folders: Sequence[Path], models: Sequence[Model], schema: Schema | None = None) -> Schema:
    """The decision tree of all models, or the one given for models that have none.

    Args:
        folders: where the models come from, for the messages.
        models: one or more.
        schema: checked against the models' own, if they have one.

    Raises:
        SettingError: there is none, or the models, or the one given, have other answers.
    """
    chosen = models[0].schema or schema
    if chosen is None:
        raise SettingError(f"the model in {folders[0]} has no schema; give the one it was trained for")
    if schema is not None and schema.label_cols != chosen.label_cols:
        raise SettingError(f"schema {schema.name} has other answers than the model's, {chosen.name}; leave it out")
    for folder, model in zip(folders, models, strict=True):
        if len(chosen.label_cols) != model.config.output_dim:
            raise SettingError(
                f"schema {chosen.name} has {len(chosen.label_cols)} answers, the model in {folder} "
                f"{model.config.output_dim}"
            )
        if model.schema is not None and model.schema.label_cols != chosen.label_cols:
            raise SettingError(
                f"the models in {folders[0]} and {folder} have other answers, of {chosen.name} and "
                f"{model.schema.name}; only models of the same can be mixed"
            )
    return chosen


def check_save_loc(config: PredictConfig) -> None:
    """Find out now, and not after hours of work, whether the table can be written.

    Raises:
        PredictionError: it cannot, or it exists and may not be replaced.
    """
    save_loc = Path(config.save_loc)
    friendly = [] if config.friendly_loc is None else [Path(config.friendly_loc)]
    failed = [] if _is_left_alone(failed_path(save_loc), save_loc) else [failed_path(save_loc)]
    for path in (save_loc, *failed, *friendly):
        if path.exists() and not config.overwrite:
            raise PredictionError(f"save_loc: {path} exists; replace it with --overwrite or choose another name")
    for path in (save_loc, *friendly):
        check_writable(path)


def _is_left_alone(failed_loc: Path, save_loc: Path) -> bool:
    """Whether it is the list of failures that a run left which could read nothing, and wrote no table."""
    if save_loc.exists() or not failed_loc.is_file():
        return False
    with open(failed_loc, "rb") as file:
        return file.read(64).startswith(",".join(_FAILED_COLUMNS).encode())


def check_writable(path: Path) -> None:
    """Make the folder of a file to come, and try to write there.

    Raises:
        PredictionError: it cannot be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise PredictionError(f"save_loc {path} cannot be written: {error.strerror}; choose another") from error


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


def open_source(config: PredictConfig, model: Model) -> GalaxyDataset:
    """The galaxies to predict, as a model takes them.

    Raises:
        CatalogError, ImageError, ShardError, PredictionError: there are none where they were looked for.
    """
    if config.shard_dir is not None:
        return open_shards(Path(config.shard_dir), config.split, model)
    if config.catalog is not None:
        bands = choose_fits(model, config.layout, config.stretch).layout.bands
        catalog = read_catalog(config.catalog, bands=bands, image_root=config.image_root, check_files=False)
    elif config.folder_to_predict is not None:
        catalog = list_folder(Path(config.folder_to_predict), config.file_format, recursive=config.recursive)
    return open_images(catalog, model, layout=config.layout, stretch=config.stretch)


def choose_workers(device: str, galaxies: int) -> int:
    """On a CPU the model itself uses every core; a GPU is fed by many processes, which take a second to start."""
    return min(16, count_cores()) if galaxies > 1000 and device != "cpu" else 0


def _write(
    config: PredictConfig,
    dataset: GalaxyDataset,
    drawn: Drawn,
    concentrations: NDArray[np.float32],
    schema: Schema,
) -> Predicted:
    faults = drawn.faults
    good = np.array([not fault for fault in faults])
    ids, files = np.array(dataset.id_str, object), np.array(dataset.file_loc, object)
    save_loc, failed_loc = Path(config.save_loc), failed_path(config.save_loc)
    if not good.all():
        reasons = [fault for fault in faults if fault]
        failed = pd.DataFrame(dict(zip(_FAILED_COLUMNS, (ids[~good], files[~good], reasons), strict=True)))
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
        bad_pixels=drawn.bad_pixels[good],
        keep_concentrations=config.keep_concentrations,
        raw=drawn.concentrations[good] if config.keep_raw else None,
        uncertainty=config.uncertainty,
        intervals=config.intervals,
    )
    tables.write_table(catalogue, save_loc)
    if config.friendly_loc is not None:
        tables.write_table(make_friendly(catalogue, schema, config.asked_threshold), config.friendly_loc)
    failures = int((~good).sum())
    if not failures:
        failed_loc.unlink(missing_ok=True)  # of predictions that these replace
    filled = int((drawn.bad_pixels[good] > 0).sum())
    return Predicted(save_loc, len(catalogue), failures, failed_loc if failures else None, filled)
