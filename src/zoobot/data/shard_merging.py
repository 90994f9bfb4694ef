"""Making one folder of shards of the parts that several machines wrote into it."""

import collections
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from zoobot.data import tables
from zoobot.data.manifest import MANIFEST_NAME, PARTS_NAME, SPLITS, Manifest
from zoobot.data.shard_index import load_index
from zoobot.data.shard_parts import Part, part_folder
from zoobot.data.shard_planning import describe_difference, shard_path
from zoobot.data.shard_writing import BAD_IMAGES_NAME, finish_folder
from zoobot.errors import ShardError
from zoobot.files import delete_leftovers

__all__ = ["merge_shards"]

_MOST_FAULTS_SHOWN = 20


def merge_shards(shard_dir: str | Path) -> Manifest:
    """Check the parts that ``create_shards(part=…)`` wrote, and make the manifest of the whole folder.

    All parts must be there and finished, of the same catalog and settings, with all of their files and every galaxy
    just once. The record files stay where they are. It may be run again.

    Returns:
        The manifest, as written: that of an unparted call, save that the galaxies may lie in more files.

    Raises:
        ShardError: something is missing or does not fit; all faults are listed, with what to run.
    """
    shard_dir = Path(shard_dir)
    parts = _load_parts(shard_dir)
    _fail_with(_find_missing(shard_dir, parts) or _find_differences(parts))
    _fail_with(list(_check_files(shard_dir, parts)))
    manifest = _sum_parts(parts)
    _merge_bad_images(shard_dir, parts)
    finish_folder(shard_dir, manifest)
    delete_leftovers(shard_dir)  # only now: while parts are written, another machine's processes are not to be seen
    return manifest


def _load_parts(shard_dir: Path) -> dict[Part, Manifest]:
    parts = {}
    for folder in sorted((shard_dir / PARTS_NAME).glob("*-of-*")):
        number = re.fullmatch(r"([0-9]{5})-of-([0-9]{5})", folder.name)
        if number and (folder / MANIFEST_NAME).exists():
            parts[Part(int(number[1]), int(number[2]))] = Manifest.load(folder)
    if not parts:
        raise ShardError(f"{shard_dir} holds no parts; write them with `zoobot create-shards … --part i/n`")
    divisions = sorted({part.of for part in parts})
    if len(divisions) > 1:
        raise ShardError(
            f"{shard_dir} holds parts of {' and of '.join(map(str, divisions))}; write all anew with one n"
        )
    return parts


def _find_missing(shard_dir: Path, parts: Mapping[Part, Manifest]) -> list[str]:
    of = next(iter(parts)).of
    faults = []
    for part in (Part(number, of) for number in range(1, of + 1)):
        if part not in parts or not parts[part].complete:
            state = "is not finished" if part in parts else "is missing"
            faults.append(f"part {part} {state}: run {_command(shard_dir, part)}")
    return faults


def _find_differences(parts: Mapping[Part, Manifest]) -> list[str]:
    """Compare each part with what most of them are."""
    kinds: list[list[Part]] = []
    for part, manifest in parts.items():
        kind = next((kind for kind in kinds if not describe_difference(parts[kind[0]], manifest)), None)
        kinds.append([part]) if kind is None else kind.append(part)
    usual = max(kinds, key=len)[0]
    return [
        f"part {part} was made with another {describe_difference(parts[usual], parts[part])} than part {usual}; "
        f"delete its folder in {PARTS_NAME} and its files, and write it like the others"
        for kind in kinds
        for part in kind
        if usual not in kind
    ]


def _check_files(shard_dir: Path, parts: Mapping[Part, Manifest]) -> Iterator[str]:
    """Whether each part's files are there and hold as many galaxies as it says, nothing else, and no galaxy twice."""
    files = next(iter(parts.values())).files
    plan = [
        (split, shard_path(shard_dir, split, number, files[split])) for split in files for number in range(files[split])
    ]
    names: dict[str, set[str]] = collections.defaultdict(set)
    twice: dict[str, str] = {}
    for part, manifest in parts.items():
        counts: collections.Counter[str] = collections.Counter()
        for split, path in plan[part.number - 1 :: part.of]:
            try:
                ids = load_index(path)["id_str"].to_pylist()
            except ShardError as error:
                yield f"part {part}: {error}; run {_command(shard_dir, part)}"
                continue
            counts[split] += len(ids)
            for name in names[split].intersection(ids):
                twice[split] = name
            names[split].update(ids)
        lacking = [split for split in files if counts[split] != manifest.counts.get(split, 0)]
        for split in lacking:
            yield (
                f"part {part}: its {split} files hold {counts[split]} galaxies, its manifest says "
                f"{manifest.counts.get(split, 0)}; delete them and run {_command(shard_dir, part)}"
            )
    for split, name in twice.items():
        yield f"galaxy {name} is in {split} twice; was a part made of a catalog with its rows in another order?"
    foreign = {path for split in SPLITS for path in (shard_dir / split).glob("[!.]*.tfrecord")} - {
        path for _, path in plan
    }
    for path in sorted(foreign):
        yield f"{path} belongs to none of the parts; delete it"


def _sum_parts(parts: Mapping[Part, Manifest]) -> Manifest:
    manifest = next(iter(parts.values()))
    counts = {split: sum(part.counts.get(split, 0) for part in parts.values()) for split in manifest.files}
    left_out = {split: sum(part.left_out.get(split, 0) for part in parts.values()) for split in manifest.files}
    return replace(manifest, counts=counts, left_out={split: count for split, count in left_out.items() if count})


def _merge_bad_images(shard_dir: Path, parts: Mapping[Part, Manifest]) -> None:
    lists = [part_folder(shard_dir, part) / BAD_IMAGES_NAME for part in parts]
    found = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in lists if path.exists()]
    if found:
        merged = pd.concat(found)
        order = merged["split"].map({split: number for number, split in enumerate(SPLITS)})
        tables.write_table(merged.iloc[order.argsort(kind="stable")], shard_dir / BAD_IMAGES_NAME)
    else:
        (shard_dir / BAD_IMAGES_NAME).unlink(missing_ok=True)


def _command(shard_dir: Path, part: Part) -> str:
    return f"`zoobot create-shards … --shard-dir {shard_dir} --part {part}` with the settings of the others"


def _fail_with(faults: list[str]) -> None:
    if faults:
        more = len(faults) - _MOST_FAULTS_SHOWN
        raise ShardError("\n".join([*faults[:_MOST_FAULTS_SHOWN], *([f"… and {more} more"] if more > 0 else [])]))
