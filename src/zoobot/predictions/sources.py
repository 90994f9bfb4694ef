"""Where galaxies to predict come from: folders and catalogs of images, and shards, as a model takes them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from zoobot.data import images, shards
from zoobot.data.datasets import GalaxyDataset, ImageDataset
from zoobot.data.fits_images import FitsConfig, FitsLayout
from zoobot.data.manifest import MANIFEST_NAME, Manifest
from zoobot.data.stretch import Stretch, describe_stretch
from zoobot.errors import ImageError, ModelError, PredictionError, SettingError
from zoobot.estimators.define_model import Model
from zoobot.schemas import Schema

__all__ = ["choose_fits", "list_folder", "open_for_each", "open_images", "open_shards"]


def open_shards(shard_dir: Path, split: str, model: Model, *, schema: Schema | None = None) -> GalaxyDataset:
    """Open one split of a shard folder, or TFRecords from elsewhere, for a model.

    Raises:
        PredictionError: there are none, their images are of another size, or FITS was stretched in another way.
        ShardError: they cannot be read, or are not of the schema, if one is given.
    """
    size, channels, fits = model.config.input_size, model.config.channels, model.config.fits
    if (shard_dir / MANIFEST_NAME).exists() or schema is not None:
        dataset = shards.open_split(shard_dir, split, schema, keep_faulty=True)
        if dataset.image_shape != (size, size, channels):
            found = "×".join(map(str, dataset.image_shape))
            raise PredictionError(f"{shard_dir} holds images of {found}, the model takes {size}×{size}×{channels}")
        of_shards = Manifest.load(shard_dir).settings.get("fits")
        if fits and of_shards and FitsConfig.from_dict(fits).stretch != FitsConfig.from_dict(of_shards).stretch:
            raise PredictionError(
                f"{shard_dir} was made with another stretch than the model was trained with; make it again with that"
            )
        return dataset
    files = sorted(path for path in shard_dir.glob("[!.]*.tfrecord*") if not path.name.endswith(".index.parquet"))
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
