"""What the benchmarks measure with: images, real or made up, in a catalog of as many galaxies as wanted."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from zoobot import schemas
from zoobot.data import images, tables
from zoobot.data.shard_writing import ShardConfig, create_shards

SCHEMA = "gz_rings"


def find_or_make_up(
    folder: Path | None, scratch: Path, *, count: int = 100, size: int = 424, file_format: str = "png"
) -> list[Path]:
    """The images of a folder; without one, made-up galaxies, which compress about as well as real ones."""
    if folder is not None:
        return images.find_images(folder, file_format)
    generator = np.random.default_rng(0)
    paths = [scratch / "made-up" / f"{number:04d}.{file_format}" for number in range(count)]
    paths[0].parent.mkdir()
    encoding = "png" if file_format == "png" else "jpeg"
    for path in paths:
        path.write_bytes(images.encode_image(make_up(generator, size), encoding))
    return paths


def make_up(generator: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """A reddish exponential disc on a noisy sky: (size, size, 3)."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radius = np.hypot(x / generator.uniform(0.2, 0.6), y / generator.uniform(0.2, 0.6))
    light = np.exp(-radius)[..., None] * generator.uniform(80, 200) * np.array([1.0, 0.8, 0.6])
    return np.clip(light + generator.normal(10, 5, (size, size, 3)), 0, 255).astype(np.uint8)


def write_catalog(path: Path, paths: list[Path], galaxies: int, schema: str = SCHEMA) -> Path:
    """A catalog with made-up votes in which the images return under new names until there are galaxies enough."""
    label_cols = schemas.load(schema).label_cols
    votes = np.random.default_rng(0).poisson(5, (galaxies, len(label_cols)))
    files = [str(paths[number % len(paths)].absolute()) for number in range(galaxies)]
    names = [f"galaxy-{number:07d}" for number in range(galaxies)]
    frame = pd.DataFrame({"id_str": names, "file_loc": files} | dict(zip(label_cols, votes.T, strict=True)))
    tables.write_table(frame, path)
    return path


def make_shards(shard_dir: Path, paths: list[Path], galaxies: int, config: ShardConfig) -> Path:
    """Shards of such a catalog."""
    catalog = write_catalog(shard_dir.with_suffix(".parquet"), paths, galaxies)
    create_shards(catalog, shard_dir, schemas.load(SCHEMA), config)
    return shard_dir
