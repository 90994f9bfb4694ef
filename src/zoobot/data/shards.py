"""Shards: reading galaxies from TFRecord files by a gather from memory maps.

A folder of shards, as ``zoobot create-shards`` makes it, holds::

    manifest.json                            schema, image size, counts, where it came from
    train/train-00000-of-00012.tfrecord      standard TFRecords of tf.train.Example
    train/train-00000-of-00012.index.parquet where each image lies, and the votes
    test/…, unlabelled/…

A TFRecord from elsewhere, of raw pixels (``matrix``) or of encoded images (``image/encoded``), is indexed on first use.
"""

import collections
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from zoobot.data import images, tfrecord
from zoobot.data.datasets import Batch
from zoobot.errors import SettingError, ShardError, ZoobotError
from zoobot.files import replace_atomically
from zoobot.schemas import Schema

__all__ = [
    "Manifest",
    "ShardDataset",
    "index_path",
    "index_tfrecord",
    "load_datasets",
    "load_index",
    "open_split",
    "write_index",
]

MANIFEST_NAME = "manifest.json"
SPLITS = ("train", "test", "unlabelled")
_MOST_OPEN_FILES = 256
_ID_FEATURES = ("id_str", "image/filename")
_INDEX_COLUMNS = ("id_str", "start", "end", "height", "width", "channels")


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds and how it was made.

    Attributes:
        schema: the decision tree whose votes the labelled galaxies carry.
        image_size: height and width of every image, in pixels.
        channels: 1 or 3.
        encoding: ``raw``, ``jpeg`` or ``png``.
        counts: galaxies in each split.
        left_out: galaxies whose image could not be read, in each split.
        settings: what else the shards were made with.
        complete: false while they are still being written.
    """

    schema: Schema
    image_size: int
    channels: int
    encoding: str
    counts: dict[str, int]
    left_out: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    complete: bool = True

    @classmethod
    def load(cls, shard_dir: str | Path) -> "Manifest":
        """Read the manifest of a folder of shards.

        Raises:
            ShardError: there is none, or it is not one.
        """
        path = Path(shard_dir) / MANIFEST_NAME
        if not path.is_file():
            raise ShardError(f"{shard_dir} holds no {MANIFEST_NAME}; make shards there with `zoobot create-shards`")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            manifest = cls(**{**content, "schema": Schema.from_dict(content["schema"])})
        except (ValueError, KeyError, TypeError, ZoobotError) as error:
            raise ShardError(f"{path} is not a manifest of shards: {error}") from error
        manifest._check(path)
        return manifest

    def save(self, shard_dir: str | Path) -> None:
        """Write it into the folder."""
        content = {**asdict(self), "schema": self.schema.to_dict()}
        with replace_atomically(Path(shard_dir) / MANIFEST_NAME) as path:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _check(self, path: Path) -> None:
        good = (
            isinstance(self.image_size, int)
            and self.image_size > 0
            and self.channels in (1, 3)
            and isinstance(self.counts, dict)
            and set(self.counts) <= set(SPLITS)
        )
        if not good:
            raise ShardError(f"{path} is not a manifest of shards: its sizes, channels or counts make no sense")


class ShardDataset(Dataset[Batch]):
    """Galaxies in shards, gathered a batch at a time from memory maps.

    Indexing with one position gives a batch of one; a ``DataLoader`` (see :func:`zoobot.data.datasets.make_loader`)
    asks for whole batches. Any order is as fast as any other, so shuffling is over all galaxies.

    Args:
        files: TFRecord files, read in this order. Files without an index are indexed first.
        label_cols: the votes to give, in this order; all that every file holds when left out.
        size: height and width that encoded images are resized to; raw ones must have it.
        channels: 1 or 3, likewise. Both are those of the first image when left out.

    Raises:
        ShardError: a file is torn or corrupt, lacks one of ``label_cols``, or holds images of another shape.
    """

    def __init__(
        self,
        files: Iterable[str | Path],
        label_cols: Sequence[str] | None = None,
        *,
        size: int | None = None,
        channels: int | None = None,
    ) -> None:
        self.files = [Path(file) for file in files]
        if not self.files:
            raise ShardError("files is empty; a dataset of shards needs at least one TFRecord file")
        tables = [load_index(file) for file in self.files]
        encoded = {_is_encoded(table) for table in tables}
        if len(encoded) > 1:
            raise ShardError("files holds raw and encoded shards; read them as two datasets")
        self.encoded = encoded.pop()
        self.label_cols = _common_labels(tables, self.files) if label_cols is None else list(label_cols)
        self.id_str: list[str] = [name for table in tables for name in table["id_str"].to_pylist()]
        self.votes = np.concatenate([_votes(t, f, self.label_cols) for t, f in zip(tables, self.files, strict=True)])
        self._file = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
        self._start = _column(tables, "start")
        self._end = _column(tables, "end")
        self.image_shape = self._find_shape(tables, size, channels)
        self._maps: collections.OrderedDict[int, NDArray[np.uint8]] = collections.OrderedDict()

    def __len__(self) -> int:
        """The number of galaxies."""
        return len(self.id_str)

    @property
    def file_loc(self) -> list[str]:
        """The TFRecord file of each galaxy."""
        return [str(self.files[file]) for file in self._file]

    def __getitem__(self, position: int) -> Batch:
        """A batch of one galaxy."""
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """Gather these galaxies, in this order."""
        pixels = np.empty((len(positions), *self.image_shape), np.uint8)
        for row, position in enumerate(positions):
            self._read(position, pixels[row])
        return Batch(
            torch.from_numpy(pixels),
            torch.from_numpy(self.votes[np.asarray(positions, int)]),
            [self.id_str[position] for position in positions],
            [""] * len(positions),
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the memory maps behind when a loader's worker is given a copy."""
        return {**self.__dict__, "_maps": collections.OrderedDict()}

    def _read(self, position: int, out: NDArray[np.uint8]) -> None:
        span = self._map(int(self._file[position]))[self._start[position] : self._end[position]]
        if not self.encoded:
            out.reshape(-1)[:] = span
            return
        height, _, channels = self.image_shape
        out[:] = images.decode_image(span.tobytes(), name=self._name(position), size=height, channels=channels)

    def _map(self, file: int) -> NDArray[np.uint8]:
        """The file's memory map; the longest unused is closed when many are open, as processes may open only so many."""
        if file in self._maps:
            self._maps.move_to_end(file)
        else:
            if len(self._maps) >= _MOST_OPEN_FILES:
                self._maps.popitem(last=False)
            # a plain array over the map: slicing a numpy.memmap costs ten times as much
            self._maps[file] = np.asarray(tfrecord.map_file(self.files[file]))
        return self._maps[file]

    def _name(self, position: int) -> str:
        return f"{self.files[self._file[position]]}: galaxy {self.id_str[position]}"

    def _find_shape(self, tables: list[pa.Table], size: int | None, channels: int | None) -> tuple[int, int, int]:
        if not self.id_str:
            raise ShardError(f"{self.files[0]} holds no galaxies")
        shapes = np.stack([_column(tables, name) for name in ("height", "width", "channels")], axis=1)
        if self.encoded:
            side = size or int(shapes[0, :2].min())
            return side, side, channels or int(shapes[0, 2])
        shape = shapes[0] if size is None else np.array([size, size, channels or shapes[0, 2]])
        other = np.flatnonzero((shapes != shape).any(axis=1))
        if other.size:
            found = "×".join(map(str, shapes[other[0]]))
            raise ShardError(
                f"{self._name(int(other[0]))} is {found} pixels, not {'×'.join(map(str, shape))}; "
                "raw shards of one dataset must have one size: make them again with one --img-size"
            )
        height, width, depth = (int(length) for length in shape)
        lying = np.flatnonzero(self._end - self._start != height * width * depth)
        if lying.size:
            raise ShardError(f"{self._name(int(lying[0]))}: the index gives it another length; delete the index files")
        return height, width, depth


def load_datasets(shard_dir: str | Path, schema: Schema | None = None) -> tuple[ShardDataset, ShardDataset]:
    """Open the train and the test galaxies of a folder that ``zoobot create-shards`` made.

    Args:
        shard_dir: the folder.
        schema: the decision tree to take the votes of; that of the shards when left out.

    Raises:
        ShardError: the folder is not one of finished shards, or lacks votes of ``schema``.
    """
    return open_split(shard_dir, "train", schema), open_split(shard_dir, "test", schema)


def open_split(shard_dir: str | Path, split: str, schema: Schema | None = None) -> ShardDataset:
    """Open one split of a folder of shards: ``train``, ``test`` or ``unlabelled``.

    Raises:
        SettingError: ``split`` is none of these.
        ShardError: as :func:`load_datasets`; also where the galaxies are not as many as the manifest says.
    """
    if split not in SPLITS:
        raise SettingError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    manifest = Manifest.load(shard_dir)
    if not manifest.complete:
        raise ShardError(f"{shard_dir} is not finished; run the same `zoobot create-shards` again and it goes on")
    if not manifest.counts.get(split):
        raise ShardError(f"{shard_dir} holds no {split} galaxies; it has {_describe_counts(manifest)}")
    label_cols = [] if split == "unlabelled" else (schema or manifest.schema).label_cols
    files = sorted((Path(shard_dir) / split).glob("*.tfrecord"))
    if not files:
        raise ShardError(f"{Path(shard_dir) / split} holds no .tfrecord files, though the manifest counts some")
    dataset = ShardDataset(files, label_cols, size=manifest.image_size, channels=manifest.channels)
    if len(dataset) != manifest.counts[split]:
        raise ShardError(
            f"{Path(shard_dir) / split} holds {len(dataset)} galaxies, its manifest says {manifest.counts[split]}; "
            "a shard is missing or foreign: check with `zoobot check-shards`"
        )
    return dataset


def _describe_counts(manifest: Manifest) -> str:
    return ", ".join(f"{count} {split}" for split, count in manifest.counts.items() if count) or "none at all"


# the index of one TFRecord file


def index_path(tfrecord_path: str | Path) -> Path:
    """Where the index of a TFRecord file lies."""
    path = Path(tfrecord_path)
    return path.with_name(path.name.removesuffix(".tfrecord") + ".index.parquet")


def load_index(path: str | Path) -> pa.Table:
    """The index of a TFRecord file: the one beside it if it fits the file, else one made now and saved if that is allowed.

    Raises:
        ShardError: the file is missing, torn, corrupt or not of galaxies.
    """
    path = Path(path)
    if not path.is_file():
        raise ShardError(f"there is no TFRecord file {path}")
    table = _read_index(path)
    if table is None:
        table = index_tfrecord(path)
        try:
            write_index(table, path)
        except OSError:  # somebody else's folder; the index is made again next time
            pass
    return table


def write_index(table: pa.Table, tfrecord_path: str | Path) -> None:
    """Save the index of a TFRecord file beside it."""
    with replace_atomically(index_path(tfrecord_path)) as path:
        pq.write_table(table, path)


def index_tfrecord(path: str | Path) -> pa.Table:
    """Walk a TFRecord file, verify every checksum, and find each galaxy's image and votes.

    Returns:
        One row a galaxy: ``id_str``, the ``start`` and ``end`` of its image in the file in bytes, ``height``, ``width``,
        ``channels``, and a float32 column for every feature that is one number.

    Raises:
        ShardError: a record is torn, corrupt, or not of a galaxy; the message names it.
    """
    path = Path(path)
    buffer = np.asarray(tfrecord.map_file(path))
    rows: list[dict[str, Any]] = []
    encodings = set()
    for record in tfrecord.walk_records(buffer, str(path)):
        where = f"{path}: record {len(rows)}"
        try:
            features = tfrecord.scan_example(buffer, *record)
            encodings.add("matrix" not in features)
            rows.append(_index_row(buffer, features, default_id=f"{path.stem}-{len(rows)}"))
        except ShardError as error:
            raise ShardError(f"{where}: {error}") from error
    if len(encodings) > 1:
        raise ShardError(f"{path} mixes raw and encoded images")
    return _index_table(rows, encoded=encodings == {True}, tfrecord_bytes=len(buffer), path=path)


def _index_row(buffer: tfrecord.Buffer, features: dict[str, tfrecord.Feature], default_id: str) -> dict[str, Any]:
    prefix = "" if "matrix" in features else "image/"
    image = features.get("matrix") or features.get("image/encoded")
    if image is None or image.kind != "bytes":
        raise ShardError(f"it has no image: no bytes `matrix` or `image/encoded` among {', '.join(sorted(features))[:200]}")
    row: dict[str, Any] = {"id_str": default_id, "start": image.start, "end": image.end}
    for name in _ID_FEATURES:
        if name in features and features[name].kind == "bytes":
            text = buffer[features[name].start : features[name].end].tobytes()
            row["id_str"] = text.decode("utf-8", "backslashreplace")
            break
    for name in ("height", "width", "channels"):
        values = tfrecord.read_integers(buffer, features[prefix + name]) if prefix + name in features else []
        row[name] = values[0] if values else 0
    if not prefix and row["height"] * row["width"] * row["channels"] != image.end - image.start:
        raise ShardError(
            f"its matrix holds {image.end - image.start} bytes, not the height × width × channels of "
            f"{row['height']} × {row['width']} × {row['channels']}"
        )
    if prefix and not all(row[name] > 0 for name in ("height", "width", "channels")):
        content = buffer[image.start : image.end].tobytes()
        row["height"], row["width"], row["channels"] = images.decode_image(content, name=row["id_str"]).shape
    for name, feature in features.items():
        if feature.kind == "float":
            values_of_name = tfrecord.read_floats(buffer, feature)
            if len(values_of_name) == 1:
                row[name] = values_of_name[0]
    return row


def _index_table(rows: list[dict[str, Any]], *, encoded: bool, tfrecord_bytes: int, path: Path) -> pa.Table:
    labels = sorted({name for row in rows for name in row} - set(_INDEX_COLUMNS))
    incomplete = [name for name in labels if any(name not in row for row in rows)]
    if incomplete:
        raise ShardError(f"{path}: some records lack the votes {', '.join(incomplete[:5])}, others have them")
    types = {"id_str": pa.string(), "start": pa.int64(), "end": pa.int64()}
    fields = [pa.field(name, types.get(name, pa.int32())) for name in _INDEX_COLUMNS]
    fields += [pa.field(name, pa.float32()) for name in labels]
    facts = {"encoded": str(int(encoded)), "tfrecord_bytes": str(tfrecord_bytes)}
    return pa.Table.from_pylist(rows, pa.schema(fields, metadata=facts))


def _read_index(path: Path) -> pa.Table | None:
    """The index beside a TFRecord file, or nothing where it is missing, torn or of another file."""
    try:
        table = pq.read_table(index_path(path), memory_map=False, partitioning=None)
    except (OSError, pa.ArrowException):
        return None
    facts = table.schema.metadata or {}
    size = path.stat().st_size
    if facts.get(b"tfrecord_bytes") != str(size).encode() or not set(_INDEX_COLUMNS) <= set(table.column_names):
        return None
    start, end = (_column([table], name) for name in ("start", "end"))
    if len(table) and not (0 <= start.min() and (start <= end).all() and end.max() <= size):
        raise ShardError(f"{index_path(path)} points outside {path}; delete the index and it is made again")
    return table


def _is_encoded(table: pa.Table) -> bool:
    return bool((table.schema.metadata or {}).get(b"encoded") == b"1")


def _column(tables: Iterable[pa.Table], name: str) -> NDArray[np.int64]:
    return np.concatenate([table[name].to_numpy().astype(np.int64) for table in tables])


def _label_columns(table: pa.Table) -> Iterator[str]:
    return (name for name in table.column_names if name not in _INDEX_COLUMNS)


def _common_labels(tables: list[pa.Table], files: list[Path]) -> list[str]:
    labels = list(_label_columns(tables[0]))
    for table, file in zip(tables, files, strict=True):
        if set(_label_columns(table)) != set(labels):
            raise ShardError(f"{file} and {files[0]} hold different votes; say which you want with label_cols")
    return labels


def _votes(table: pa.Table, file: Path, label_cols: list[str]) -> NDArray[np.float32]:
    missing = [name for name in label_cols if name not in table.column_names]
    if missing:
        raise ShardError(
            f"{file} lacks the votes {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''} "
            f"({len(missing)} of {len(label_cols)}); was it made for another schema?"
        )
    votes = np.empty((len(table), len(label_cols)), np.float32)
    for number, name in enumerate(label_cols):
        votes[:, number] = table[name].to_numpy()
    return votes
