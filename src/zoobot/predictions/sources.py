"""Where galaxies to predict come from: folders of images, and shards."""

from collections import Counter
from pathlib import Path

import pandas as pd

from zoobot.data import images, shards
from zoobot.data.datasets import GalaxyDataset
from zoobot.data.fits_images import FitsConfig
from zoobot.data.manifest import MANIFEST_NAME, Manifest
from zoobot.errors import ImageError, PredictionError
from zoobot.estimators.define_model import Model
from zoobot.schemas import Schema

__all__ = ["list_folder", "open_shards"]


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
