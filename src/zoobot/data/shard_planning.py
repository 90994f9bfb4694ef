"""Planning shards: how to make them, and which galaxies go to which file, the same on every machine."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from zoobot.data import catalog as catalogs
from zoobot.data.fits_images import FitsConfig
from zoobot.data.manifest import Manifest
from zoobot.errors import SettingError
from zoobot.schemas import Schema

__all__ = [
    "PlannedShard",
    "ShardConfig",
    "describe_difference",
    "plan_manifest",
    "plan_shards",
    "read_splits",
    "shard_path",
]

ENCODINGS = ("raw", "jpeg", "png")
_SHARD_BYTES = 128 * 2**20
_MOST_GALAXIES_A_SHARD = 2048
_FEWEST_GALAXIES_A_SHARD = 16
_SHARDS_TO_SHARE_OUT = 16  # at least, if there are galaxies enough: the unit of parallel work and of resuming


@dataclass(frozen=True)
class ShardConfig:
    """How to make shards.

    Attributes:
        img_size: height and width of the images in pixels; all are resized to it.
        color: keep three channels; otherwise one, of luminance.
        encoding: ``raw`` reads fastest; ``png`` (lossless) and ``jpeg`` take less disk.
        eval_size: galaxies held back for the test split; a fifth of the labelled ones, at most 5,000, when left out.
        max_labelled: use no more labelled galaxies than this, chosen at random by ``seed``.
        max_unlabelled: likewise for unlabelled ones.
        fit: ``crop`` the centre of images that are not square, or ``pad`` them with black.
        fits: where FITS files have their fluxes, and their stretch; without one, shards are of float16.
        seed: what decides the split.
        trust_paths: do not look whether the files of the catalogs exist before starting.
        workers: processes that decode and write; as many as there are cores when left out.
        skip_bad_images: leave out images that cannot be read, and list them, instead of stopping.
        overwrite: delete the shards that are in the folder already.

    Raises:
        SettingError: a value is outside what it may be.
    """

    img_size: int = 300
    color: bool = True
    encoding: str = "raw"
    eval_size: int | None = None
    max_labelled: int | None = None
    max_unlabelled: int | None = None
    fit: str = "crop"
    fits: FitsConfig | None = None
    seed: int = 0
    trust_paths: bool = False
    workers: int | None = None
    skip_bad_images: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if self.encoding not in ENCODINGS:
            raise SettingError(f"encoding is {self.encoding!r}; it must be one of {', '.join(ENCODINGS)}")
        if self.fits is not None and self.fits.stretch is None and self.encoding != "raw":
            raise SettingError(f"encoding is {self.encoding!r}; without a stretch it must be raw")
        if self.fit not in ("crop", "pad"):
            raise SettingError(f"fit is {self.fit!r}; it must be crop or pad")
        if not 1 <= self.img_size <= 8192:
            raise SettingError(f"img_size is {self.img_size}; it must be from 1 to 8192 pixels")
        for name in ("eval_size", "max_labelled", "max_unlabelled", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError(f"{name} is {value}; it must be at least 1, or left out")

    @property
    def channels(self) -> int:
        """1 or 3."""
        return 3 if self.color else 1

    def count_shards(self, galaxies: int, parts: int = 1) -> int:
        """How many files to write so many galaxies to: of at most 128 MiB of raw pixels, and enough to share out.

        ``parts`` says over how many machines.
        """
        most = min(_MOST_GALAXIES_A_SHARD, max(1, _SHARD_BYTES // (self.img_size**2 * self.channels)))
        enough = min(_SHARDS_TO_SHARE_OUT * parts, math.ceil(galaxies / _FEWEST_GALAXIES_A_SHARD))
        return max(math.ceil(galaxies / most), enough)


class PlannedShard(NamedTuple):
    """One file to be written."""

    split: str
    path: Path
    catalog: pd.DataFrame


def read_splits(
    labelled_catalog: str | Path,
    unlabelled_catalog: str | Path | None,
    label_cols: list[str],
    image_root: str | Path | None,
    config: ShardConfig,
) -> dict[str, pd.DataFrame]:
    """Read the catalogs and split the labelled one; membership and order depend on the galaxies' names alone."""
    labelled = _read_needed(labelled_catalog, label_cols, image_root, config.max_labelled, config)
    splits = _split(labelled, config)
    if unlabelled_catalog is not None:
        splits["unlabelled"] = _read_needed(unlabelled_catalog, [], image_root, config.max_unlabelled, config)
    return splits


def plan_manifest(splits: Mapping[str, pd.DataFrame], schema: Schema, config: ShardConfig, parts: int = 1) -> Manifest:
    """The manifest as it will be if every image can be read; it says what an interrupted run was doing."""
    fingerprints = {
        split: catalogs.catalog_fingerprint(
            catalog, ["id_str", "file_loc", *(schema.label_cols if split != "unlabelled" else [])]
        )
        for split, catalog in splits.items()
    }
    return Manifest(
        schema=schema,
        image_size=config.img_size,
        channels=config.channels,
        encoding=config.encoding,
        counts={split: len(catalog) for split, catalog in splits.items()},
        files={split: config.count_shards(len(catalog), parts) for split, catalog in splits.items()},
        settings={
            "fit": config.fit,
            "fits": config.fits.to_dict() if config.fits else None,
            "seed": config.seed,
            "catalog_sha256": fingerprints,
        },
        complete=False,
    )


def shard_path(shard_dir: Path, split: str, number: int, files: int) -> Path:
    """Where a TFRecord file lies, of as many in its split."""
    return shard_dir / split / f"{split}-{number:05d}-of-{files:05d}.tfrecord"


def plan_shards(
    splits: Mapping[str, pd.DataFrame], shard_dir: Path, files: Mapping[str, int]
) -> Iterator[PlannedShard]:
    """Share the galaxies of each split out to files, in order."""
    for split, catalog in splits.items():
        for number in range(files[split]):
            # even shares: the last is not a crumb
            first, end = (len(catalog) * edge // files[split] for edge in (number, number + 1))
            yield PlannedShard(split, shard_path(shard_dir, split, number, files[split]), catalog.iloc[first:end])


def describe_difference(found: Manifest, planned: Manifest) -> str:
    """What keeps an existing folder from being gone on with, if anything."""
    for name in ("schema", "image_size", "channels", "encoding"):
        if getattr(found, name) != getattr(planned, name):
            return name.replace("_", " ")
    for name, value in planned.settings.items():
        if found.settings.get(name) != value:
            return {"catalog_sha256": "catalog, --eval-size or --max-…", "fits": "way to read FITS"}.get(name, name)
    return ""


def _read_needed(
    path: str | Path, label_cols: list[str], image_root: str | Path | None, most: int | None, config: ShardConfig
) -> pd.DataFrame:
    """Read a catalog, and leave out at once what is not written to shards: catalogs may have hundreds of columns."""
    bands = config.fits.layout.bands if config.fits else ()
    catalog = catalogs.read_catalog(
        path, label_cols, bands=bands, image_root=image_root, check_files=not config.trust_paths
    )
    catalog = catalog[["id_str", "file_loc", *label_cols]]
    return catalogs.sample_catalog(catalog, most, config.seed)


def _split(labelled: pd.DataFrame, config: ShardConfig) -> dict[str, pd.DataFrame]:
    eval_size = min(5000, max(1, len(labelled) // 5)) if config.eval_size is None else config.eval_size
    train, test = catalogs.split_catalog(labelled, eval_size=eval_size, seed=config.seed)
    return {"train": train, "test": test}
