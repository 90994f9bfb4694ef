"""The index of a TFRecord file: where each galaxy's image lies, and its votes."""

import array
import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoobot.data import tfrecord
from zoobot.data.limits import MAX_PIXELS
from zoobot.data.table_claims import read_parquet
from zoobot.errors import CatalogError, ShardError
from zoobot.files import replace_atomically

__all__ = [
    "BAD_PIXELS_FEATURE",
    "DTYPE_FEATURE",
    "INDEX_COLUMNS",
    "index_path",
    "index_tfrecord",
    "is_encoded",
    "load_index",
    "read_index_alone",
    "record_bytes",
    "write_index",
]

_SIZES = ("height", "width", "channels")
INDEX_COLUMNS = ("id_str", "start", "end", *_SIZES, "bad_pixels")
BAD_PIXELS_FEATURE = "image/bad_pixels"
DTYPE_FEATURE = "image/dtype"
_FIELDS = [
    pa.field("id_str", pa.string()),
    *(pa.field(name, pa.int64()) for name in ("start", "end")),
    *(pa.field(name, pa.int32()) for name in _SIZES),
    pa.field("bad_pixels", pa.int64()),
]
_LARGEST_SIDE = math.isqrt(MAX_PIXELS)
_MOST_FEATURES = 10_000  # a record with more would make a table with as many columns
_ID_FEATURES = ("id_str", "image/filename")


def index_path(tfrecord_path: str | Path) -> Path:
    """Where the index of a TFRecord file lies."""
    path = Path(tfrecord_path)
    return path.with_name(path.name.removesuffix(".tfrecord") + ".index.parquet")


def load_index(path: str | Path) -> pa.Table:
    """The index of a TFRecord file: the one beside it if it fits the file, else one made now, and saved if possible.

    It fits if it was written after the file, when the file had the size that it has.

    Raises:
        ShardError: the file is missing, torn, corrupt or not of galaxies.
    """
    path = Path(path)
    if not path.is_file():
        raise ShardError(f"there is no TFRecord file {path}")
    table = _read_index(path)
    if table is None:
        table = index_tfrecord(path)
        with contextlib.suppress(OSError):  # somebody else's folder: the index is made again next time
            write_index(table, path)
    return table


def read_index_alone(path: str | Path) -> pa.Table:
    """The index of a TFRecord file that is not here itself.

    Raises:
        ShardError: it is no index, or is torn.
    """
    table = _parse_index(Path(path))
    if table is None:
        raise ShardError(f"{path} is torn, or no index of a TFRecord file; check the folder with `zoobot check-shards`")
    _check_spans(table, Path(path))
    return table


def record_bytes(table: pa.Table) -> int:
    """The size that the TFRecord file of an index had."""
    return int((table.schema.metadata or {})[b"tfrecord_bytes"])


def write_index(table: pa.Table, tfrecord_path: str | Path) -> None:
    """Save the index of a TFRecord file beside it."""
    with replace_atomically(index_path(tfrecord_path)) as path:
        pq.write_table(table, path)


def index_tfrecord(path: str | Path) -> pa.Table:
    """Walk a TFRecord file, verify every checksum, and find each galaxy's image and votes.

    Returns:
        One row a galaxy: ``id_str``, the ``start`` and ``end`` of its image in the file in bytes, ``height``,
        ``width``, ``channels`` (all 0 where the record of an encoded image does not say), ``bad_pixels`` (how many
        were filled, where the record says), and a float32 column for
        every other feature that is one number, float or int64, in every record.

    Raises:
        ShardError: a record is torn, corrupt, or not of a galaxy; the message names it.
    """
    path = Path(path)
    buffer = np.asarray(tfrecord.map_file(path))
    # arrays and not lists: a file of others may hold millions of galaxies
    columns: dict[str, Any] = {field.name: array.array("q") for field in _FIELDS} | {"id_str": []}
    encodings = set()
    for number, record in enumerate(tfrecord.walk_records(buffer, str(path))):
        try:
            features = tfrecord.scan_example(buffer, *record)
            encodings.add("matrix" not in features)
            row = _index_row(buffer, features, default_id=f"{path.stem}-{number}")
        except ShardError as error:
            raise ShardError(f"{path}: record {number}: {error}") from error
        for name, value in row.items():
            columns.setdefault(name, array.array("f")).append(value)
    if len(encodings) > 1:
        raise ShardError(f"{path} mixes raw and encoded images")
    return _index_table(columns, encoded=encodings == {True}, tfrecord_bytes=len(buffer))


def _index_row(buffer: tfrecord.Buffer, features: dict[str, tfrecord.Feature], default_id: str) -> dict[str, Any]:
    image = features.get("matrix") or features.get("image/encoded")
    if image is None or image.kind != "bytes":
        raise ShardError(
            f"it has no image: no bytes `matrix` or `image/encoded` among {', '.join(sorted(features))[:200]}"
        )
    if len(features) > _MOST_FEATURES:
        raise ShardError(f"it has {len(features):,} features; expected at most {_MOST_FEATURES:,}")
    size = _read_size(buffer, features)
    if "matrix" in features and math.prod(size) * _value_bytes(buffer, features) != image.end - image.start:
        raise ShardError(
            f"its matrix holds {image.end - image.start} bytes, not the height × width × channels of "
            f"{' × '.join(map(str, size))}"
        )
    votes = {}
    for name, feature in features.items():
        if feature.kind == "bytes" or name in INDEX_COLUMNS or name.startswith("image/"):
            continue
        values = (tfrecord.read_floats if feature.kind == "float" else tfrecord.read_integers)(buffer, feature)
        if len(values) == 1:
            votes[name] = values[0]
    identity = _read_id(buffer, features) or default_id
    facts = (identity, image.start, image.end, *size, _read_bad_pixels(buffer, features))
    return dict(zip(INDEX_COLUMNS, facts, strict=True)) | votes


def _value_bytes(buffer: tfrecord.Buffer, features: dict[str, tfrecord.Feature]) -> int:
    """How many bytes a value of the matrix has: 2 of float16, where the record says so, else 1."""
    feature = features.get(DTYPE_FEATURE)
    halves = feature and feature.kind == "bytes" and buffer[feature.start : feature.end].tobytes() == b"float16"
    return 2 if halves else 1


def _read_bad_pixels(buffer: tfrecord.Buffer, features: dict[str, tfrecord.Feature]) -> int:
    """How many pixels of the image were filled, if the record says."""
    feature = features.get(BAD_PIXELS_FEATURE)
    values = tfrecord.read_integers(buffer, feature) if feature and feature.kind == "int64" else []
    return max(0, values[0]) if len(values) == 1 else 0


def _read_id(buffer: tfrecord.Buffer, features: dict[str, tfrecord.Feature]) -> str:
    for name in _ID_FEATURES:
        if name in features and features[name].kind == "bytes":
            text = buffer[features[name].start : features[name].end].tobytes()
            return text.decode("utf-8", "backslashreplace")
    return ""


def _read_size(buffer: tfrecord.Buffer, features: dict[str, tfrecord.Feature]) -> list[int]:
    """Height, width and channels; zeros where an encoded image leaves them to its own header."""
    prefix = "" if "matrix" in features else "image/"
    size = []
    for name in _SIZES:
        values = tfrecord.read_integers(buffer, features[prefix + name]) if prefix + name in features else []
        size.append(values[0] if values else 0)
    if prefix and 0 in size:
        return [0, 0, 0]
    if not (all(1 <= length <= _LARGEST_SIDE for length in size[:2]) and size[2] in (1, 3)):
        raise ShardError(
            f"its height × width × channels are {' × '.join(map(str, size))}, "
            f"expected sides from 1 to {_LARGEST_SIDE} pixels and 1 or 3 channels"
        )
    return size


def _index_table(columns: dict[str, Any], *, encoded: bool, tfrecord_bytes: int) -> pa.Table:
    galaxies = len(columns["id_str"])
    labels = sorted(set(columns) - set(INDEX_COLUMNS))
    votes = [pa.field(name, pa.float32()) for name in labels if len(columns[name]) == galaxies]
    facts = {"encoded": str(int(encoded)), "tfrecord_bytes": str(tfrecord_bytes)}
    schema = pa.schema([*_FIELDS, *votes], metadata=facts)
    values = [columns[name] if name == "id_str" else np.asarray(columns[name]) for name in schema.names]
    arrays = [pa.array(column, field.type) for column, field in zip(values, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _read_index(path: Path) -> pa.Table | None:
    """The index beside a TFRecord file, or nothing where it is missing, torn, older or of another file."""
    file = path.stat()
    try:
        if not index_path(path).is_file() or index_path(path).stat().st_mtime_ns < file.st_mtime_ns:
            return None
    except OSError:
        return None
    table = _parse_index(index_path(path))
    if table is None or record_bytes(table) != file.st_size:
        return None
    _check_spans(table, index_path(path))
    return table


def _parse_index(path: Path) -> pa.Table | None:
    """An index, or nothing where it is torn or something else."""
    try:
        table = read_parquet(path)
    except (CatalogError, OSError, ValueError, pa.ArrowException):
        return None
    facts = table.schema.metadata or {}
    if not facts.get(b"tfrecord_bytes", b"").isdigit() or not set(_FIELDS) <= set(table.schema):
        return None
    votes = [column for column in table.schema if column.name not in INDEX_COLUMNS]
    if any(column.null_count for column in table.columns) or any(column.type != pa.float32() for column in votes):
        return None
    return table


def _check_spans(table: pa.Table, path: Path) -> None:
    start, end, *size = (table[name].to_numpy() for name in ("start", "end", *_SIZES))
    inside = ((start >= 0) & (start <= end) & (end <= record_bytes(table))).all()
    shortest = 0 if is_encoded(table) else 1
    if not (inside and all(((lengths >= shortest) & (lengths <= _LARGEST_SIDE)).all() for lengths in size)):
        raise ShardError(f"{path} points outside its TFRecord file; delete the index and it is made again")


def is_encoded(table: pa.Table) -> bool:
    """Whether the images of an indexed file are encoded (PNG, JPEG), or raw."""
    return bool((table.schema.metadata or {}).get(b"encoded") == b"1")
