"""Shards: reading galaxies from TFRecord files by a gather from memory maps.

A folder of shards, as ``zoobot create-shards`` makes it, holds::

    manifest.json                            schema, image size, counts, where it came from
    train/train-00000-of-00012.tfrecord      standard TFRecords of tf.train.Example
    train/train-00000-of-00012.index.parquet where each image lies, and the votes
    test/…, unlabelled/…

The folder may be a URL, such as ``s3://bucket/shards``: record files are then fetched to a cache on disk when needed.
A TFRecord from elsewhere, of raw pixels (``matrix``) or of encoded images (``image/encoded``), is indexed on first use.
"""

import collections
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from zoobot.data import images, tfrecord
from zoobot.data.buffers import BufferPool
from zoobot.data.datasets import Batch
from zoobot.data.limits import MAX_PIXELS
from zoobot.data.manifest import SPLITS, Manifest
from zoobot.data.remote_files import is_url
from zoobot.data.remote_shards import RemoteSplit, open_remote_split
from zoobot.data.shard_index import INDEX_COLUMNS, is_encoded, load_index
from zoobot.data.window_order import order_in_windows
from zoobot.errors import ImageError, SettingError, ShardError
from zoobot.schemas import Schema

__all__ = ["ShardDataset", "load_datasets", "open_split"]

_MOST_OPEN_FILES = 256
_MOST_VOTES = 1_000_000  # as in a catalog
_LARGEST_SIDE = math.isqrt(MAX_PIXELS)


class ShardDataset(Dataset[Batch]):
    """Galaxies in shards, gathered a batch at a time from memory maps.

    Indexing with one position gives a batch of one; a ``DataLoader`` (see :func:`zoobot.data.datasets.make_loader`)
    asks for whole batches. Any order is as fast as any other, so shuffling is over all galaxies.

    Args:
        files: TFRecord files, read in this order. Files without an index are indexed first.
        label_cols: the votes to give, in this order; all that every record holds when left out.
        size: height and width that encoded images are resized to; raw ones must have it.
        channels: 1 or 3, likewise. Both are those of the first image when left out.
        keep_faulty: give a black image and the reason in ``Batch.faults`` for an encoded one that cannot be read.
        remote: where the files are fetched from, if they are not here; see :func:`open_split`.

    Raises:
        ShardError: a file is torn or corrupt, lacks one of ``label_cols``, or holds images of another shape.
        ImageError: on reading, an encoded image that cannot be read, unless ``keep_faulty``.
    """

    def __init__(
        self,
        files: Iterable[str | Path],
        label_cols: Sequence[str] | None = None,
        *,
        size: int | None = None,
        channels: int | None = None,
        keep_faulty: bool = False,
        remote: RemoteSplit | None = None,
    ) -> None:
        self.files = [Path(file) for file in files]
        if not self.files:
            raise ShardError("files is empty; a dataset of shards needs at least one TFRecord file")
        tables = remote.tables if remote else [load_index(file) for file in self.files]
        encoded = {is_encoded(table) for table in tables}
        if len(encoded) > 1:
            raise ShardError("files holds raw and encoded shards; read them as two datasets")
        self.encoded = encoded.pop()
        self.label_cols = _common_labels(tables, self.files) if label_cols is None else list(label_cols)
        self.id_str: list[str] = [name for table in tables for name in table["id_str"].to_pylist()]
        self.votes = np.concatenate([_votes(t, f, self.label_cols) for t, f in zip(tables, self.files, strict=True)])
        self._file = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
        self._start = _column(tables, "start")
        self._end = _column(tables, "end")
        self._bad_pixels = _column(tables, "bad_pixels")
        self._keep_faulty = keep_faulty
        self._remote_files = remote.files if remote else None
        self._window = remote.window if remote else None
        self._most_open = _MOST_OPEN_FILES if self._window is None else 2 * self._window
        self._last_file: int | None = -1
        self._maps: collections.OrderedDict[int, torch.Tensor] = collections.OrderedDict()
        self._buffers = BufferPool()
        self.image_shape = self._find_shape(tables, size, channels)
        self.image_dtype = self._find_dtype()
        if label_cols is not None:  # else they may be anything, coordinates too
            self._check_votes()

    def __len__(self) -> int:
        """The number of galaxies."""
        return len(self.id_str)

    @property
    def file_loc(self) -> list[str]:
        """The TFRecord file of each galaxy, or its URL."""
        places = self._remote_files.urls if self._remote_files else [str(path) for path in self.files]
        return [places[file] for file in self._file]

    def __getitem__(self, position: int) -> Batch:
        """A batch of one galaxy."""
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """Gather these galaxies, in this order."""
        height, width, channels = self.image_shape
        pixels = self._buffers.take(len(positions), (height, width, channels * self.image_dtype.itemsize))
        faults = [""] * len(positions)
        if self.encoded:
            faults = [self._read(position, pixels[row].numpy()) for row, position in enumerate(positions)]
        else:
            torch.stack([self._span(position) for position in positions], out=pixels.flatten(1))  # on all cores
        return Batch(
            pixels.view(self.image_dtype),
            torch.from_numpy(self.votes[np.asarray(positions, int)]),
            [self.id_str[position] for position in positions],
            faults,
            self._bad_pixels[np.asarray(positions, int)],
        )

    def epoch_order(self, seed: int) -> list[int]:
        """An order to train in, of all galaxies, another for each seed: a full shuffle if all files are here or fit.

        Otherwise :func:`~zoobot.data.window_order.order_in_windows`, with the next files being fetched meanwhile.
        """
        self._last_file = None
        if self._window is not None and self._remote_files is not None:
            order, files = order_in_windows(self._file, self._window, seed)
            self._remote_files.prefetch(files.tolist())
            return [int(position) for position in order]
        order_of_all = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        if self._remote_files is not None:
            self._remote_files.prefetch(range(len(self.files)))
        return [int(position) for position in order_of_all.tolist()]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the memory maps behind when a loader's worker is given a copy."""
        return {**self.__dict__, "_maps": collections.OrderedDict(), "_buffers": BufferPool()}

    def _read(self, position: int, out: NDArray[np.uint8]) -> str:
        """Fill ``out`` with an image; give the reason if it cannot be read and that is allowed."""
        height, _, channels = self.image_shape
        try:
            out[:] = self._decode(position, size=height, channels=channels)
        except ImageError as error:
            if not self._keep_faulty:
                raise
            out[:] = 0
            return str(error)
        return ""

    def _decode(self, position: int, *, size: int | None = None, channels: int = 3) -> NDArray[np.uint8]:
        encoded = self._span(position).numpy().tobytes()
        return images.decode_image(encoded, name=self._name(position), size=size, channels=channels)

    def _span(self, position: int) -> torch.Tensor:
        return self._map(int(self._file[position]))[self._start[position] : self._end[position]]

    def _map(self, file: int) -> torch.Tensor:
        """The file's memory map; a process may hold only so many, so the longest unused is closed."""
        if file in self._maps:
            self._maps.move_to_end(file)
        else:
            if len(self._maps) >= self._most_open:
                self._maps.popitem(last=False)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor is it written to
                self._maps[file] = torch.from_numpy(tfrecord.map_file(self._find(file)))
        return self._maps[file]

    def _find(self, file: int) -> Path:
        """Where a file is, fetched if need be; read in order, the next one is fetched meanwhile."""
        if self._remote_files is None:
            return self.files[file]
        path = self._remote_files.open(file)
        if self._last_file is not None:  # else epoch_order has said what comes next
            if file == self._last_file + 1 < len(self.files) - 1:
                self._remote_files.prefetch([file + 1])
            self._last_file = file
        return path

    def _check_votes(self) -> None:
        wrong = np.argwhere(~((self.votes >= 0) & (self.votes <= _MOST_VOTES)))
        if len(wrong):
            row, column = wrong[0]
            raise ShardError(
                f"{self._name(int(row))} has {self.votes[row, column]} votes for {self.label_cols[column]}; "
                f"expected 0 to {_MOST_VOTES:,} ({len(wrong):,} such in all)"
            )

    def _name(self, position: int) -> str:
        return f"{self.files[self._file[position]]}: galaxy {self.id_str[position]}"

    def _find_shape(self, tables: list[pa.Table], size: int | None, channels: int | None) -> tuple[int, int, int]:
        if not self.id_str:
            raise ShardError(f"{self.files[0]} holds no galaxies")
        if size is not None and not 1 <= size <= _LARGEST_SIDE:
            raise ShardError(f"size (image_size of a manifest) is {size}; expected 1 to {_LARGEST_SIDE} pixels")
        shapes = np.stack([_column(tables, name) for name in ("height", "width", "channels")], axis=1)
        if self.encoded:
            if size is None or channels is None:
                first = shapes[0] if shapes[0].all() else self._decode(0).shape
                size, channels = size or int(min(first[:2])), channels or int(first[2])
            return size, size, channels
        shape = shapes[0] if size is None else np.array([size, size, channels or shapes[0, 2]])
        other = np.flatnonzero((shapes != shape).any(axis=1))
        if other.size:
            found = "×".join(map(str, shapes[other[0]]))
            raise ShardError(
                f"{self._name(int(other[0]))} is {found} pixels, not {'×'.join(map(str, shape))}; "
                "raw shards of one dataset must have one size: make them again with one --img-size"
            )
        height, width, depth = (int(length) for length in shape)
        return height, width, depth

    def _find_dtype(self) -> torch.dtype:
        """Colours, uint8, or fluxes, float16, which take twice the bytes."""
        if self.encoded:
            return torch.uint8
        sizes = self._end - self._start
        values = int(np.prod(self.image_shape))
        dtype = torch.float16 if sizes[0] == 2 * values else torch.uint8
        lying = np.flatnonzero(sizes != values * dtype.itemsize)
        if lying.size:
            raise ShardError(f"{self._name(int(lying[0]))}: the index gives it another length; delete the index files")
        return dtype


def load_datasets(
    shard_dir: str | Path,
    schema: Schema | None = None,
    *,
    cache_dir: str | Path | None = None,
    cache_gb: float | None = None,
) -> tuple[ShardDataset, ShardDataset]:
    """Open the train and the test galaxies of a folder that ``zoobot create-shards`` made.

    Args:
        shard_dir: the folder, or a URL that fsspec reads, such as ``s3://bucket/shards``.
        schema: the decision tree to take the votes of; that of the shards when left out.
        cache_dir: where the files of a URL are kept; ``ZOOBOT_CACHE_DIR`` or ``~/.cache/zoobot`` when left out.
        cache_gb: how much to keep, in 10⁹ bytes; ``ZOOBOT_CACHE_GB`` or nine tenths of the free disk when left out.

    Raises:
        ShardError: the folder is not one of finished shards, cannot be reached, or lacks votes of ``schema``.
        SettingError: ``cache_gb`` is too little.
    """
    train, test = (
        open_split(shard_dir, split, schema, cache_dir=cache_dir, cache_gb=cache_gb) for split in ("train", "test")
    )
    return train, test


def open_split(
    shard_dir: str | Path,
    split: str,
    schema: Schema | None = None,
    *,
    keep_faulty: bool = False,
    cache_dir: str | Path | None = None,
    cache_gb: float | None = None,
) -> ShardDataset:
    """Open one split of a folder of shards: ``train``, ``test`` or ``unlabelled``; see :class:`ShardDataset`.

    Raises:
        SettingError: ``split`` is none of these.
        ShardError: as :func:`load_datasets`; also where the galaxies are not as many as the manifest says.
    """
    if split not in SPLITS:
        raise SettingError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    shard_dir = str(shard_dir).rstrip("/") if is_url(shard_dir) else Path(shard_dir)
    manifest = Manifest.load(shard_dir)
    if not manifest.complete:
        raise ShardError(f"{shard_dir} is not finished; run the same `zoobot create-shards` again and it goes on")
    if not manifest.counts.get(split):
        raise ShardError(f"{shard_dir} holds no {split} galaxies; it has {_describe_counts(manifest)}")
    label_cols = [] if split == "unlabelled" else (schema or manifest.schema).label_cols
    remote = None
    if isinstance(shard_dir, str):
        remote = open_remote_split(shard_dir, manifest, split, cache_dir=cache_dir, cache_gb=cache_gb)
        files = remote.files.paths
    else:
        files = sorted((shard_dir / split).glob("[!.]*.tfrecord"))
    if not files:
        raise ShardError(f"{shard_dir}/{split} holds no .tfrecord files, though the manifest counts some")
    size, channels = manifest.image_size, manifest.channels
    dataset = ShardDataset(files, label_cols, size=size, channels=channels, keep_faulty=keep_faulty, remote=remote)
    if len(dataset) != manifest.counts[split]:
        raise ShardError(
            f"{shard_dir}/{split} holds {len(dataset)} galaxies, its manifest says {manifest.counts[split]}; "
            "a shard is missing or foreign: check with `zoobot check-shards`"
        )
    return dataset


def _describe_counts(manifest: Manifest) -> str:
    return ", ".join(f"{count} {split}" for split, count in manifest.counts.items() if count) or "none at all"


def _column(tables: Iterable[pa.Table], name: str) -> NDArray[np.int64]:
    return np.concatenate([table[name].to_numpy().astype(np.int64) for table in tables])


def _label_columns(table: pa.Table) -> Iterator[str]:
    return (name for name in table.column_names if name not in INDEX_COLUMNS)


def _common_labels(tables: list[pa.Table], files: list[Path]) -> list[str]:
    labels = list(_label_columns(tables[0]))
    for table, file in zip(tables, files, strict=True):
        if set(_label_columns(table)) != set(labels):
            raise ShardError(f"{file} and {files[0]} hold different votes; say which you want with label_cols")
    return labels


def _votes(table: pa.Table, file: Path, label_cols: list[str]) -> NDArray[np.float32]:
    there = set(_label_columns(table))
    missing = [name for name in label_cols if name not in there]
    if missing:
        raise ShardError(
            f"{file} lacks the votes {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''} "
            f"({len(missing)} of {len(label_cols)}) in some or all of its records; was it made for another schema?"
        )
    votes = np.empty((len(table), len(label_cols)), np.float32)
    for number, name in enumerate(label_cols):
        votes[:, number] = table[name].to_numpy()
    return votes
