"""Where galaxies to predict come from: folders and catalogs of images, and shards, as a model takes them."""

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from zoobot.data import images, shards
from zoobot.data.catalog import read_catalog
from zoobot.data.datasets import GalaxyDataset, ImageDataset
from zoobot.data.fits_images import FitsConfig, FitsLayout
from zoobot.data.manifest import MANIFEST_NAME, Manifest
from zoobot.data.remote_files import is_url
from zoobot.data.stretch import Stretch, describe_stretch
from zoobot.errors import ImageError, ModelError, PredictionError, SettingError
from zoobot.estimators.define_model import Model
from zoobot.schemas import Schema

__all__ = [
    "GalaxySource",
    "choose_fits",
    "list_folder",
    "make_settings",
    "open_for_each",
    "open_images",
    "open_shards",
    "open_source",
]

Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True)
class GalaxySource:
    """Where galaxies come from: just one of ``folder_to_predict``, ``catalog`` and ``shard_dir``.

    Attributes:
        folder_to_predict: a folder of images; a galaxy's ``id_str`` is the file's path in it without suffix.
        file_format: ``png``, ``jpg`` (or ``jpeg``), ``fits`` or ``any``: which files of the folder; ``auto``: those of
            the only format it has.
        recursive: look in the folder's folders too.
        catalog: a table with ``id_str`` and ``file_loc``.
        image_root: the folder that relative ``file_loc`` of the catalog start from; the catalog's own when left out.
        layout: where FITS files have their fluxes, as far as not where those have them that the model was trained on:
            settings of :class:`~zoobot.data.fits_images.FitsLayout`, such as ``{"hdu": 1}``.
        stretch: of FITS files; that which the model was trained with when left out, or that of
            :class:`~zoobot.data.fits_images.FitsConfig` if it was trained on images of other kinds.
        shard_dir: a folder of shards or its URL, or of TFRecords from elsewhere.
        split: which part of the shards: ``train``, ``test`` or ``unlabelled``.

    Raises:
        SettingError: there is none of them, or more than one.
    """

    folder_to_predict: str | Path | None = None
    file_format: str = "auto"
    recursive: bool = False
    catalog: str | Path | None = None
    image_root: str | Path | None = None
    layout: Mapping[str, Any] = field(default_factory=dict)
    stretch: Stretch | None = None
    shard_dir: str | Path | None = None
    split: str = "test"

    def __post_init__(self) -> None:
        """Check the values."""
        sources = [self.folder_to_predict, self.catalog, self.shard_dir]
        if sum(source is not None for source in sources) != 1:
            raise SettingError("give just one of folder_to_predict (--folder), catalog and shard_dir")


def make_settings(kind: Callable[..., Settings], settings: Mapping[str, Any], command: str) -> Settings:
    """Make an object of settings by name; ``command`` is what the message calls their user.

    Raises:
        SettingError: some are unknown, are missing, or are outside what they may be.

    >>> make_settings(GalaxySource, {"folder": "images"}, "calibrate")
    Traceback (most recent call last):
    zoobot.errors.SettingError: calibrate does not know folder; its settings are folder_to_predict, file_format, ...
    """
    parameters = inspect.signature(kind).parameters
    unknown = sorted(settings.keys() - set(parameters))
    if unknown:
        raise SettingError(f"{command} does not know {', '.join(unknown)}; its settings are {', '.join(parameters)}")
    needed = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    missing = [name for name in needed if name not in settings]
    if missing:
        raise SettingError(f"{command} needs {' and '.join(missing)}")
    return kind(**settings)


def open_source(source: GalaxySource, model: Model, *, schema: Schema | None = None) -> GalaxyDataset:
    """The galaxies of a source, as a model takes them; with their votes if a schema is given.

    Raises:
        CatalogError, ImageError, ShardError, PredictionError: there are none where they were looked for.
        SettingError: as `choose_fits`.
    """
    label_cols = [] if schema is None else schema.label_cols
    if source.shard_dir is not None:
        return open_shards(source.shard_dir, source.split, model, schema=schema)
    if source.catalog is not None:
        bands = choose_fits(model, source.layout, source.stretch).layout.bands
        root = source.image_root
        catalog = read_catalog(source.catalog, label_cols, bands=bands, image_root=root, check_files=False)
    elif source.folder_to_predict is not None:
        catalog = list_folder(Path(source.folder_to_predict), source.file_format, recursive=source.recursive)
    return open_images(catalog, model, label_cols, layout=source.layout, stretch=source.stretch)


def open_shards(shard_dir: str | Path, split: str, model: Model, *, schema: Schema | None = None) -> GalaxyDataset:
    """Open one split of a shard folder or its URL, or TFRecords from elsewhere, for a model.

    Raises:
        PredictionError: there are none, their images are of another size, or FITS was stretched in another way.
        ShardError: they cannot be read, or are not of the schema, if one is given.
    """
    size, channels, fits = model.config.input_size, model.config.channels, model.config.fits
    if is_url(shard_dir) or (Path(shard_dir) / MANIFEST_NAME).exists() or schema is not None:
        dataset = shards.open_split(shard_dir, split, schema, keep_faulty=True)
        if dataset.image_shape != (size, size, channels):
            shape = "×".join(map(str, dataset.image_shape))
            raise PredictionError(f"{shard_dir} holds images of {shape}, the model takes {size}×{size}×{channels}")
        of_shards = Manifest.load(shard_dir).settings.get("fits")
        if fits and of_shards and FitsConfig.from_dict(fits).stretch != FitsConfig.from_dict(of_shards).stretch:
            raise PredictionError(
                f"{shard_dir} was made with another stretch than the model was trained with; make it again with that"
            )
        return dataset
    found = Path(shard_dir).glob("[!.]*.tfrecord*")
    files = sorted(path for path in found if not path.name.endswith(".index.parquet"))
    if not files:
        raise PredictionError(f"shard_dir {shard_dir} holds no shards, nor TFRecord files of others (*.tfrecord)")
    return shards.ShardDataset(files, [], size=size, channels=channels, keep_faulty=True)


def list_folder(folder: Path, file_format: str, *, recursive: bool) -> pd.DataFrame:
    """Make a catalog of the images in a folder; where two files share a name, it keeps the suffix.

    Raises:
        ImageError: there are none, or one has a name that is not UTF-8.
    """
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


def choose_fits(model: Model, layout: Mapping[str, Any], stretch: Stretch | None) -> FitsConfig:
    """How to read FITS files for a model: as those that it was trained on, save for the settings of ``layout``.

    Raises:
        SettingError: the model was trained with another stretch than that given, or it does not fit the bands.
        ModelError: what the model says of FITS makes no sense.
    """
    try:
        trained = None if model.config.fits is None else FitsConfig.from_dict(model.config.fits)
    except SettingError as error:
        raise ModelError(f"the model's config.json: {error}; train or fetch it again") from error
    if trained and stretch and stretch != trained.stretch:
        known = describe_stretch(trained.stretch) if trained.stretch else "none"
        raise SettingError(f"stretch is another than the model was trained with ({known}); leave it out")
    unknown = sorted(set(layout) - {each.name for each in fields(FitsLayout)})
    if unknown:
        raise SettingError(f"layout: got {', '.join(unknown)}, expected settings of FitsLayout")
    config = trained or FitsConfig()
    return FitsConfig(replace(config.layout, **layout), stretch or config.stretch)


def open_images(
    catalog: pd.DataFrame,
    model: Model,
    label_cols: Sequence[str] = (),
    *,
    layout: Mapping[str, Any] | None = None,
    stretch: Stretch | None = None,
) -> ImageDataset:
    """The images of a catalog as a model takes them; those that cannot be read are named when they are come to.

    Raises:
        SettingError: as `choose_fits`.
    """
    config = model.config
    return ImageDataset(
        catalog,
        size=config.input_size,
        channels=config.channels,
        label_cols=label_cols,
        fit=config.fit,
        fits=choose_fits(model, layout or {}, stretch),
        keep_faulty=True,
    )


def open_for_each(models: Sequence[Model], open_dataset: Callable[[Model], GalaxyDataset]) -> list[GalaxyDataset]:
    """A dataset for each model; those that take images of the same size, made in the same way, get the very same."""
    opened: dict[str, GalaxyDataset] = {}
    configs = [model.config for model in models]
    kinds = [repr((config.input_size, config.channels, config.fit, config.fits)) for config in configs]
    for kind, model in zip(kinds, models, strict=True):
        if kind not in opened:
            opened[kind] = open_dataset(model)
    return [opened[kind] for kind in kinds]
