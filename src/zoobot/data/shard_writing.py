"""Making shards from a catalog and its images, and checking what was made."""

import collections
import contextlib
import functools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from zoobot.data import images, tables, tfrecord
from zoobot.data.fits_images import FitsConfig, looks_like_fits
from zoobot.data.manifest import MANIFEST_NAME, PARTS_NAME, SPLITS, Manifest
from zoobot.data.shard_index import (
    BAD_PIXELS_FEATURE,
    DTYPE_FEATURE,
    INDEX_COLUMNS,
    index_path,
    index_tfrecord,
    load_index,
    write_index,
)
from zoobot.data.shard_parts import Part, claim_part, part_folder
from zoobot.data.shard_planning import (
    PlannedShard,
    ShardConfig,
    describe_difference,
    plan_manifest,
    plan_shards,
    read_splits,
)
from zoobot.errors import ImageError, SchemaError, SettingError, ShardError
from zoobot.files import delete_leftovers, replace_atomically
from zoobot.processes import map_in_processes
from zoobot.progress import progress_bar
from zoobot.schemas import Schema

__all__ = [
    "BAD_IMAGES_NAME",
    "BAD_PIXELS_NAME",
    "ShardConfig",
    "check_shards",
    "create_shards",
    "finish_folder",
]

BAD_IMAGES_NAME = "bad_images.csv"
BAD_PIXELS_NAME = "bad_pixels.csv"
_MOST_BAD_IMAGES_SHOWN = 20
_RESERVED = {*INDEX_COLUMNS, "file_loc", "matrix"}


class _BadImage(NamedTuple):
    shard: Path
    split: str
    id_str: str
    file_loc: str
    reason: str


def create_shards(
    labelled_catalog: str | Path,
    shard_dir: str | Path,
    schema: Schema,
    config: ShardConfig | None = None,
    *,
    unlabelled_catalog: str | Path | None = None,
    image_root: str | Path | None = None,
    part: Part | str | None = None,
) -> Manifest:
    """Write the galaxies of a catalog as shards, split into train and test.

    An interrupted call, made again, keeps the files that are finished and ends with the same bytes as an unbroken one.

    Args:
        labelled_catalog: a table with ``id_str``, ``file_loc`` and a column of votes per answer of ``schema``.
        shard_dir: the folder to write; new, empty, or of an interrupted call with the same settings.
        schema: the decision tree.
        config: how.
        unlabelled_catalog: a table with ``id_str`` and ``file_loc``, for the ``unlabelled`` split.
        image_root: the folder that relative ``file_loc`` start from; the catalog's own when left out.
        part: write a share of the files only, ``"2/4"``, into the same folder as the other parts, which may be written
            at the same time; :func:`~zoobot.data.shard_merging.merge_shards` makes one folder of shards of them.

    Returns:
        The manifest, as written; of this part, if it is one.

    Raises:
        CatalogError: a catalog has faults; all are listed.
        SettingError: ``eval_size`` leaves nothing to train on, or ``part`` is none.
        ShardError: the folder holds something else, or images cannot be read; all are listed.
    """
    config = config or ShardConfig()
    shard_dir = Path(shard_dir)
    reserved = [name for name in schema.label_cols if name in _RESERVED or name.startswith("image/")]
    if reserved:
        raise SchemaError(
            f"schema {schema.name}: the answers {', '.join(reserved)} have names that shards use themselves"
        )
    part = Part.parse(part) if isinstance(part, str) else part
    if part and config.overwrite:
        raise SettingError("overwrite cannot be given with a part, whose folder others write to; delete it first")
    splits = read_splits(labelled_catalog, unlabelled_catalog, schema.label_cols, image_root, config)
    if config.fits is None and any(looks_like_fits(file) for split in splits.values() for file in split["file_loc"]):
        config = replace(config, fits=FitsConfig())
    manifest = plan_manifest(splits, schema, config, part.of if part else 1)
    plan = list(plan_shards(splits, shard_dir, manifest.files))
    if part:
        own = plan[part.number - 1 :: part.of]
        manifest = replace(manifest, counts=_count(own))
        claim_part(shard_dir, part, manifest)
        bad = _write_readable(own, schema, config, part_folder(shard_dir, part) / BAD_IMAGES_NAME)
        manifest = _finish_manifest(manifest, bad)
        manifest.save(part_folder(shard_dir, part))
        return manifest
    if _prepare_folder(shard_dir, manifest, overwrite=config.overwrite):
        return Manifest.load(shard_dir)
    bad = _write_readable(plan, schema, config, shard_dir / BAD_IMAGES_NAME)
    manifest = _finish_manifest(manifest, bad)
    finish_folder(shard_dir, manifest)
    return manifest


def check_shards(path: str | Path) -> dict[Path, int]:
    """Verify every checksum and every index of a folder of shards, or of one TFRecord file.

    Returns:
        The number of galaxies in each file.

    Raises:
        ShardError: something is wrong; every fault is listed.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.rglob("[!.]*.tfrecord"))
    if not files:
        raise ShardError(f"{path} is not a TFRecord file nor a folder with any (*.tfrecord)")
    counts: dict[Path, int] = {}
    faults: list[str] = []
    with progress_bar("checking shards", len(files), unit="files") as advance:
        for file in files:
            try:
                counts[file] = _check_file(file)
            except ShardError as error:
                faults.append(str(error))
            advance(1)
    if path.is_dir() and (path / MANIFEST_NAME).exists():
        faults += _check_counts(path, counts) if not faults else []
    if faults:
        raise ShardError("\n".join(faults))
    return counts


# the folder


def _prepare_folder(shard_dir: Path, planned: Manifest, *, overwrite: bool) -> bool:
    """Make the folder ready to be written or gone on with; true if it holds just these shards, finished."""
    if (shard_dir / MANIFEST_NAME).exists() and not overwrite:
        found = Manifest.load(shard_dir)
        difference = describe_difference(found, planned)
        if difference:
            raise ShardError(
                f"{shard_dir} holds shards with another {difference}; "
                "choose another --shard-dir, or delete them with --overwrite"
            )
        if found.complete:
            return True
        delete_leftovers(shard_dir)
        return False
    if shard_dir.exists() and not shard_dir.is_dir():
        raise ShardError(f"shard_dir {shard_dir} is a file; name a folder")
    delete_leftovers(shard_dir)  # of a run that was killed before it had written anything else
    if shard_dir.is_dir() and any(shard_dir.iterdir()):
        if not overwrite and (shard_dir / PARTS_NAME).is_dir():
            raise ShardError(f"{shard_dir} holds parts; go on with --part, or choose another --shard-dir")
        if not overwrite:
            raise ShardError(f"{shard_dir} is not empty and holds no shards of ours; choose another --shard-dir")
        _delete_shards(shard_dir)
    planned.save(shard_dir)
    return False


def _delete_shards(shard_dir: Path) -> None:
    """Delete what create_shards writes, and nothing else that somebody may keep in the folder."""
    (shard_dir / MANIFEST_NAME).unlink(missing_ok=True)
    (shard_dir / BAD_IMAGES_NAME).unlink(missing_ok=True)
    (shard_dir / BAD_PIXELS_NAME).unlink(missing_ok=True)
    for name in (*SPLITS, PARTS_NAME):
        shutil.rmtree(shard_dir / name, ignore_errors=True)


# writing


def _write_readable(
    plan: Sequence[PlannedShard], schema: Schema, config: ShardConfig, bad_images: Path
) -> list[_BadImage]:
    """Write the shards and list their bad images, which are an error unless they may be left out."""
    bad = _write_shards(plan, schema, config)
    _list_bad_images(bad, bad_images)
    if bad and not config.skip_bad_images:
        raise ShardError(_describe_bad_images(bad, bad_images))
    return bad


def _write_shards(plan: Sequence[PlannedShard], schema: Schema, config: ShardConfig) -> list[_BadImage]:
    """Write every shard that is not there yet; list the images that could not be read, of earlier runs too."""
    bad: list[_BadImage] = []
    pending = []
    for shard in plan:
        left_out = _left_out(shard, config)
        if left_out is None:
            pending.append(shard)
        else:
            bad += left_out
    total = sum(len(shard.catalog) for shard in plan)
    done = total - sum(len(shard.catalog) for shard in pending)
    write = functools.partial(_write_shard, label_cols=schema.label_cols, config=config)
    # a process writes whole shards, so that no pixels pass between processes and decoders may hold the interpreter
    results = map_in_processes(write, pending, config.workers)
    with progress_bar("creating shards", total, done=done) as advance, contextlib.closing(results):
        for shard, unreadable in results:
            bad += unreadable
            advance(len(shard.catalog))
    order = {shard.path: number for number, shard in enumerate(plan)}
    return sorted(bad, key=lambda image: order[image.shard])


def _left_out(shard: PlannedShard, config: ShardConfig) -> list[_BadImage] | None:
    """What an earlier run left out of a shard that it finished; nothing if the shard is to be written (again)."""
    # both files are renamed into place when they are whole, the index last
    if not (shard.path.exists() and index_path(shard.path).exists()):
        return None
    written = set(load_index(shard.path)["id_str"].to_pylist())
    missing = [
        (id_str, file_loc)
        for id_str, file_loc in zip(shard.catalog["id_str"], shard.catalog["file_loc"], strict=True)
        if id_str not in written
    ]
    records = [_make_record(id_str, file_loc, {}, config) for id_str, file_loc in missing]
    if records and not (config.skip_bad_images and all(isinstance(record, str) for record in records)):
        return None
    return [
        _BadImage(shard.path, shard.split, id_str, file_loc, str(reason))
        for (id_str, file_loc), reason in zip(missing, records, strict=True)
    ]


def _write_shard(shard: PlannedShard, label_cols: list[str], config: ShardConfig) -> list[_BadImage]:
    """Write a shard and its index; list its bad images, and keep nothing if there are any and that is not allowed."""
    bad = []
    labels = [] if shard.split == "unlabelled" else label_cols
    votes = shard.catalog[labels].to_numpy(np.float64)
    with replace_atomically(shard.path) as path:
        with open(path, "wb") as file:
            rows = zip(shard.catalog["id_str"], shard.catalog["file_loc"], votes, strict=True)
            for id_str, file_loc, row in rows:
                record = _make_record(id_str, file_loc, dict(zip(labels, row.tolist(), strict=True)), config)
                if isinstance(record, str):
                    bad.append(_BadImage(shard.path, shard.split, id_str, file_loc, record))
                else:
                    tfrecord.write_record(file, record)
        index = index_tfrecord(path)  # reads back what was written and verifies it
    if bad and not config.skip_bad_images:
        shard.path.unlink()
    else:
        write_index(index, shard.path)  # later than the shard, or it would be taken for the index of another
    return bad


def _make_record(id_str: str, file_loc: str, votes: Mapping[str, float], config: ShardConfig) -> bytes | str:
    """The galaxy as a serialised example, or why its image cannot be read."""
    try:
        pixels, bad_pixels = images.read_picture(
            file_loc, size=config.img_size, channels=config.channels, fit=config.fit, fits=config.fits
        )
    except ImageError as error:
        return str(error)
    size: dict[str, tfrecord.FeatureValue] = {
        "height": config.img_size,
        "width": config.img_size,
        "channels": config.channels,
    }
    if config.encoding == "raw":
        picture: dict[str, tfrecord.FeatureValue] = {"matrix": pixels, **size}
        if pixels.dtype != np.uint8:
            picture |= {"matrix": pixels.astype("<f2").tobytes(), DTYPE_FEATURE: "float16"}
    else:
        content = images.encode_image(pixels, config.encoding)
        picture = {"image/encoded": content, "image/format": config.encoding}
        picture |= {f"image/{name}": value for name, value in size.items()}
    if bad_pixels:
        picture[BAD_PIXELS_FEATURE] = bad_pixels
    return tfrecord.encode_example({"id_str": id_str, **picture, **votes})


# bad images


def _list_bad_images(bad: list[_BadImage], path: Path) -> None:
    if bad:
        tables.write_table(pd.DataFrame(bad).drop(columns="shard"), path)
    else:
        path.unlink(missing_ok=True)


def _describe_bad_images(bad: list[_BadImage], path: Path) -> str:
    lines = [f"  {image.id_str}: {image.reason}" for image in bad[:_MOST_BAD_IMAGES_SHOWN]]
    more = len(bad) - len(lines)
    return "\n".join(
        [
            f"{len(bad)} image{'s' * (len(bad) > 1)} cannot be read (all in {path}); mend them and run again, "
            "or leave them out with --skip-bad-images:",
            *lines,
            *([f"  … and {more} more"] if more else []),
        ]
    )


def _list_bad_pixels(shard_dir: Path) -> None:
    """List the images of which pixels were filled, if any; from the indexes, so those of earlier runs too."""
    found = []
    for split in SPLITS:
        for file in sorted((shard_dir / split).glob("[!.]*.tfrecord")):
            table = load_index(file).select(["id_str", "bad_pixels"]).to_pandas()
            found.append(table[table["bad_pixels"] > 0].assign(split=split))
    listed = pd.concat(found)[["split", "id_str", "bad_pixels"]]
    if len(listed):
        tables.write_table(listed, shard_dir / BAD_PIXELS_NAME)
    else:
        (shard_dir / BAD_PIXELS_NAME).unlink(missing_ok=True)


def _count(plan: Sequence[PlannedShard]) -> dict[str, int]:
    counts: collections.Counter[str] = collections.Counter()
    for shard in plan:
        counts[shard.split] += len(shard.catalog)
    return dict(counts)


def _finish_manifest(manifest: Manifest, bad: Sequence[_BadImage]) -> Manifest:
    left_out = collections.Counter(image.split for image in bad)
    counts = {split: count - left_out[split] for split, count in manifest.counts.items()}
    return replace(manifest, counts=counts, left_out=dict(left_out), complete=True)


def finish_folder(shard_dir: Path, manifest: Manifest) -> None:
    """Declare a folder of shards finished, when all of its files are.

    Raises:
        ShardError: a split has no galaxies.
    """
    empty = [split for split, count in manifest.counts.items() if not count]
    if empty:
        raise ShardError(f"not one {' nor one '.join(empty)} image can be read; {shard_dir / BAD_IMAGES_NAME} says why")
    _list_bad_pixels(shard_dir)
    manifest.save(shard_dir)


# checking


def _check_file(file: Path) -> int:
    found = index_tfrecord(file)
    if index_path(file).exists() and not load_index(file).equals(found):
        raise ShardError(f"{index_path(file)} does not fit {file}; delete the index and it is made again")
    return len(found)


def _check_counts(shard_dir: Path, counts: dict[Path, int]) -> list[str]:
    manifest = Manifest.load(shard_dir)
    found: dict[str, Any] = collections.Counter()
    for file, count in counts.items():
        found[file.parent.name] += count
    faults = [] if manifest.complete else [f"{shard_dir} is not finished; run `zoobot create-shards` again"]
    return faults + [
        f"{shard_dir / split} holds {found[split]} galaxies, the manifest says {count}"
        for split, count in manifest.counts.items()
        if manifest.complete and found[split] != count
    ]
