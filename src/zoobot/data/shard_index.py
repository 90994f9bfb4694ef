"""The index of a TFRecord file: where each galaxy's image lies, and its votes."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoobot.data import images, tfrecord
from zoobot.errors import ShardError
from zoobot.files import replace_atomically

__all__ = ["INDEX_COLUMNS", "index_path", "index_tfrecord", "is_encoded", "load_index", "write_index"]

INDEX_COLUMNS = ("id_str", "start", "end", "height", "width", "channels")
_ID_FEATURES = ("id_str", "image/filename")


def index_path(tfrecord_path: str | Path) -> Path:
    """Where the index of a TFRecord file lies."""
    path = Path(tfrecord_path)
    return path.with_name(path.name.removesuffix(".tfrecord") + ".index.parquet")


def load_index(path: str | Path) -> pa.Table:
    """The index of a TFRecord file: the one beside it if it fits the file, else one made now, and saved if possible.

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


def write_index(table: pa.Table, tfrecord_path: str | Path) -> None:
    """Save the index of a TFRecord file beside it."""
    with replace_atomically(index_path(tfrecord_path)) as path:
        pq.write_table(table, path)


def index_tfrecord(path: str | Path) -> pa.Table:
    """Walk a TFRecord file, verify every checksum, and find each galaxy's image and votes.

    Returns:
        One row a galaxy: ``id_str``, the ``start`` and ``end`` of its image in the file in bytes, ``height``,
        ``width``, ``channels``, and a float32 column for every feature that is one number.

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
        raise ShardError(
            f"it has no image: no bytes `matrix` or `image/encoded` among {', '.join(sorted(features))[:200]}"
        )
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
    labels = sorted({name for row in rows for name in row} - set(INDEX_COLUMNS))
    incomplete = [name for name in labels if any(name not in row for row in rows)]
    if incomplete:
        raise ShardError(f"{path}: some records lack the votes {', '.join(incomplete[:5])}, others have them")
    types = {"id_str": pa.string(), "start": pa.int64(), "end": pa.int64()}
    fields = [pa.field(name, types.get(name, pa.int32())) for name in INDEX_COLUMNS]
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
    if facts.get(b"tfrecord_bytes") != str(size).encode() or not set(INDEX_COLUMNS) <= set(table.column_names):
        return None
    start, end = (table[name].to_numpy() for name in ("start", "end"))
    if len(table) and not (start.min() >= 0 and (start <= end).all() and end.max() <= size):
        raise ShardError(f"{index_path(path)} points outside {path}; delete the index and it is made again")
    return table


def is_encoded(table: pa.Table) -> bool:
    """Whether the images of an indexed file are encoded (PNG, JPEG), or raw."""
    return bool((table.schema.metadata or {}).get(b"encoded") == b"1")
