"""Makes small shards in every encoding, and what is to be read from them; the first half of ``make interop``.

Run ``python interop/make_shards.py FOLDER``. Each kind of shards gets a folder, and beside it an ``.npz`` with the
names, the votes and the pixels: for raw and PNG those of the source images, decoded and resized, so that nothing
that a shard went through has a part in them; for JPEG, which loses some, those that Zoobot reads from the shards.
"""

import itertools
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from zoobot import schemas
from zoobot.data import images, shards
from zoobot.data.shard_writing import ShardConfig, create_shards

GALAXIES, SIZE, SCHEMA = 60, 48, "gz_decals"


def write_catalog(folder: Path) -> Path:
    """Noise of several sizes under names from several alphabets, with votes that are not all whole."""
    generator = np.random.default_rng(0)
    label_cols = schemas.load(SCHEMA).label_cols
    rows = []
    for number in range(GALAXIES):
        path = folder / f"{number}.png"
        pixels = generator.integers(0, 256, (40 + number, 60, 3), dtype=np.uint8)
        path.write_bytes(images.encode_image(pixels, "png"))
        votes = generator.poisson(3, len(label_cols)) + generator.choice([0, 0.25], len(label_cols))
        rows.append(
            {"id_str": f"galaxie-ж-{number}", "file_loc": path.name} | dict(zip(label_cols, votes, strict=True))
        )
    catalog = folder / "catalog.csv"
    pd.DataFrame(rows).to_csv(catalog, index=False)
    return catalog


def write_expected(catalog: Path, shard_dir: Path, config: ShardConfig) -> None:
    """What the test and the train galaxies of a folder of shards are to read as."""
    frame = pd.read_csv(catalog).set_index("id_str")
    labels = schemas.load(SCHEMA).label_cols
    names, pixels = [], []
    for dataset in shards.load_datasets(shard_dir):
        names += dataset.id_str
        if config.encoding == "jpeg":
            pixels += list(dataset.__getitems__(range(len(dataset))).images.numpy())
        else:
            paths = [catalog.parent / frame.loc[name, "file_loc"] for name in dataset.id_str]
            pixels += [images.read_image(path, size=SIZE, channels=config.channels) for path in paths]
    np.savez(
        shard_dir.with_suffix(".npz"),
        id_str=np.array(names),
        label_cols=np.array(labels),
        votes=frame.loc[names, labels].to_numpy(np.float32),
        images=np.stack(pixels),
        encoding=np.array(config.encoding),
    )


def main() -> None:
    """Make them."""
    folder = Path(sys.argv[1])
    catalog = write_catalog(folder)
    for encoding, color in itertools.product(("raw", "png", "jpeg"), (True, False)):
        config = ShardConfig(img_size=SIZE, encoding=encoding, color=color, eval_size=10)
        shard_dir = folder / f"{encoding}-{'colour' if color else 'greyscale'}"
        create_shards(catalog, shard_dir, schemas.load(SCHEMA), config)
        write_expected(catalog, shard_dir, config)


if __name__ == "__main__":
    main()
