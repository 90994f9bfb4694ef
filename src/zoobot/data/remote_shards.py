"""A split of a folder of shards behind a URL: its indexes at once, its record files when they are needed."""

import functools
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from zoobot.data.manifest import Manifest
from zoobot.data.remote_files import RemoteFiles, fetch_file, find_cache, list_files
from zoobot.data.shard_index import index_path, index_tfrecord, read_index_alone, record_bytes
from zoobot.data.shard_planning import shard_path
from zoobot.errors import SettingError, ShardError
from zoobot.files import delete_leftovers

__all__ = ["RemoteSplit", "open_remote_split"]

_INDEXES_AT_ONCE = 16
_FEWEST_FILES_HELD = 4


class RemoteSplit(NamedTuple):
    """What there is to know of a split before its record files are here.

    Attributes:
        files: gives the record files.
        tables: their indexes.
        window: how many files there is room for at a time; nothing if all fit.
    """

    files: RemoteFiles
    tables: list[pa.Table]
    window: int | None


def open_remote_split(
    url: str, manifest: Manifest, split: str, *, cache_dir: str | Path | None, cache_gb: float | None
) -> RemoteSplit:
    """Fetch the indexes of a split.

    Raises:
        ShardError: something is missing, torn or out of reach.
        SettingError: the cache is too small for a few files.
    """
    cache, limit = find_cache(cache_dir, cache_gb)
    # other shards at the same address are other files
    key = hashlib.sha256(f"{url}\n{manifest!r}".encode()).hexdigest()[:16]
    folder = cache / key
    delete_leftovers(folder)
    names = _list_names(url, manifest, split)
    indexes = [index_path(folder / name) for name in names]

    def fetch(number: int) -> pa.Table:
        address = f"{url}/{split}/{indexes[number].name}"
        fetch_file(address, indexes[number], read_index_alone)
        return read_index_alone(indexes[number])

    with ThreadPoolExecutor(_INDEXES_AT_ONCE) as pool:
        tables = list(pool.map(fetch, range(len(names))))
    sizes = [record_bytes(table) for table in tables]
    verify = functools.partial(_verify_records, sizes=sizes, indexes=indexes)
    files = RemoteFiles(url, folder, names, sizes, verify, limit=limit, cache_dir=cache)
    return RemoteSplit(files, tables, _choose_window(manifest, split, sizes, limit))


def _list_names(url: str, manifest: Manifest, split: str) -> list[str]:
    count = manifest.files.get(split, 0)
    if count:
        return [shard_path(Path(), split, number, count).as_posix() for number in range(count)]
    return [f"{split}/{name}" for name in list_files(f"{url}/{split}", ".tfrecord")]


def _verify_records(number: int, path: Path, sizes: Sequence[int], indexes: Sequence[Path]) -> None:
    found = path.stat().st_size
    if found != sizes[number]:
        raise ShardError(f"it has {found:,} bytes, its index says {sizes[number]:,}")
    if not index_tfrecord(path).equals(read_index_alone(indexes[number])):
        raise ShardError("it does not fit its index")


def _choose_window(manifest: Manifest, split: str, sizes: list[int], limit: int) -> int | None:
    """How many files of this split to hold at a time, if not all: half of its share of the cache, the rest is ahead."""
    largest = max(sizes, default=0)
    if limit < _FEWEST_FILES_HELD * largest:
        raise SettingError(
            f"cache_gb (ZOOBOT_CACHE_GB): got {limit / 1e9:.3g} GB, expected room for {_FEWEST_FILES_HELD} files "
            f"at least, of {largest / 1e9:.3g} GB each"
        )
    used = sum(count for name, count in manifest.counts.items() if name in (split, "train", "test"))
    share = limit * manifest.counts[split] / used
    return None if sum(sizes) <= share else max(1, int(share / 2 / np.mean(sizes)))
