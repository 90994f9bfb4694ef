"""TFRecord files of ``tf.train.Example``: written, walked and checked without TensorFlow.

A TFRecord file is a run of records, each framed as ::

    length    uint64, little endian
    checksum  uint32, masked CRC-32C of the eight bytes of the length
    data      ``length`` bytes
    checksum  uint32, masked CRC-32C of the data

and the data are a protocol buffer ``Example { features: { feature: map<string, Feature> } }`` whose ``Feature`` is one
of a list of bytes, of floats or of integers
(https://www.tensorflow.org/tutorials/load_data/tfrecord, https://protobuf.dev/programming-guides/encoding).

The protocol buffer is walked here and not unpacked by its library, because what a shard's index needs is *where*
the pixels lie, so that they can be gathered from a memory map without a copy. Files may come from anywhere: every
length is checked against what holds it before anything is read.
"""

import contextlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, TypeAlias

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from zoobot.errors import ShardError

__all__ = [
    "Feature",
    "Record",
    "encode_example",
    "map_file",
    "read_floats",
    "read_integers",
    "scan_example",
    "walk_records",
    "write_record",
]

Buffer: TypeAlias = NDArray[np.uint8]
FeatureValue: TypeAlias = bytes | str | int | float | NDArray[np.uint8]
Chunk: TypeAlias = bytes | memoryview
Kind = Literal["bytes", "float", "int64"]

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_KIND_OF_FIELD: dict[int, Kind] = {1: "bytes", 2: "float", 3: "int64"}
_FIELD_OF_KIND = {kind: field for field, kind in _KIND_OF_FIELD.items()}


class Record(NamedTuple):
    """Where a record's data lie in its file, in bytes."""

    start: int
    end: int


class Feature(NamedTuple):
    """Where the values of one feature lie in a buffer, in bytes.

    For ``bytes`` the span is that of the first value itself, without its tag and length;
    for ``float`` and ``int64`` it is that of the whole list, for :func:`read_floats` or :func:`read_integers`.
    """

    kind: Kind
    start: int
    end: int


# writing


def encode_example(features: Mapping[str, FeatureValue]) -> bytes:
    """Serialise one galaxy's features as a ``tf.train.Example``, features in alphabetical order.

    Text and bytes become a list of bytes, whole numbers one of int64, other numbers one of float32, each of one value.

    >>> example = encode_example({"height": 64, "smooth": 5.0})
    >>> {name: feature.kind for name, feature in scan_example(np.frombuffer(example, np.uint8)).items()}
    {'height': 'int64', 'smooth': 'float'}
    """
    chunks: list[Chunk] = []
    for name in sorted(features):
        chunks += _message(1, [*_message(1, [name.encode()]), *_message(2, _feature(features[name]))])
    return b"".join(_message(1, chunks))  # the pixels are copied here, once


def write_record(file: BinaryIO, data: bytes) -> None:
    """Append one record, framed and with its checksums, to a file opened for writing in binary."""
    length = struct.pack("<Q", len(data))
    file.write(length + _FOOTER.pack(_masked_checksum(length)))
    file.write(data)
    file.write(_FOOTER.pack(_masked_checksum(data)))


def _feature(value: FeatureValue) -> list[Chunk]:
    """A Feature message, in pieces."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return _message(_FIELD_OF_KIND["bytes"], _message(1, [value]))
    if isinstance(value, np.ndarray):
        return _message(_FIELD_OF_KIND["bytes"], _message(1, [np.ascontiguousarray(value).reshape(-1).data]))
    if isinstance(value, int):
        return _message(_FIELD_OF_KIND["int64"], _message(1, [_encode_varint(value)]))
    return _message(_FIELD_OF_KIND["float"], _message(1, [struct.pack("<f", value)]))


def _message(field: int, content: list[Chunk]) -> list[Chunk]:
    """A field whose content has a length, before the content."""
    length = sum(map(len, content))
    return [_encode_varint(field << 3 | _DELIMITED) + _encode_varint(length), *content]


def _encode_varint(number: int) -> bytes:
    number &= 0xFFFF_FFFF_FFFF_FFFF
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _masked_checksum(data: bytes | Buffer) -> int:
    checksum: int = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFF_FFFF


# reading


def map_file(path: str | Path) -> Buffer:
    """Map a whole file into memory, read only, as bytes.

    Raises:
        ShardError: the file is missing or cannot be read.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:  # an empty file cannot be mapped
            return np.empty(0, np.uint8)
        return np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise ShardError(f"cannot read {path}: {error.strerror or error}") from error


def walk_records(buffer: Buffer, name: str, *, check: bool = True) -> Iterator[Record]:
    """Give the span of each record of a TFRecord file in turn.

    Args:
        buffer: the whole file, as from :func:`map_file`.
        name: what errors call the file.
        check: compare the checksum of each record's data too; that of its length always is.

    Raises:
        ShardError: a record is torn or corrupt; the message gives its number, from 0, and its place.
    """
    position, number, size = 0, 0, len(buffer)
    while position < size:
        where = f"{name}: record {number} (byte {position})"
        if size - position < _HEADER.size:
            raise ShardError(f"{where} is torn: the file ends within its header")
        length, checksum = _HEADER.unpack(buffer[position : position + _HEADER.size].tobytes())
        if checksum != _masked_checksum(buffer[position : position + 8]):
            raise ShardError(f"{where} is corrupt: the checksum of its length is wrong (is this a TFRecord file?)")
        start = position + _HEADER.size
        end = start + length
        if end + _FOOTER.size > size:
            raise ShardError(f"{where} is torn: it needs {length} bytes, the file has {size - start} left")
        if check:
            (checksum,) = _FOOTER.unpack(buffer[end : end + _FOOTER.size].tobytes())
            if checksum != _masked_checksum(buffer[start:end]):
                raise ShardError(f"{where} is corrupt: the checksum of its data is wrong")
        yield Record(start, end)
        position, number = end + _FOOTER.size, number + 1


def scan_example(buffer: Buffer, start: int = 0, end: int | None = None) -> dict[str, Feature]:
    """Find the features of the ``tf.train.Example`` that fills ``buffer[start:end]``.

    Nothing is copied but the names. A feature without a value is left out.

    Raises:
        ShardError: the bytes are not such a message.
    """
    features: dict[str, Feature] = {}
    view = buffer.data  # indexing it gives plain integers, faster than an array's
    with _telling_faults():
        for content in _submessages(view, start, len(buffer) if end is None else end, 1):
            for entry in _submessages(view, *content, 1):
                name, feature = _scan_entry(view, *entry)
                if feature is not None:
                    features[name] = feature
    return features


def read_floats(buffer: Buffer, feature: Feature) -> NDArray[np.float32]:
    """The values of a feature of floats.

    Raises:
        ShardError: it is of another kind, or corrupt.
    """
    _expect_kind(feature, "float")
    view = buffer.data
    with _telling_faults():
        parts = [view[a:b] for a, b in _submessages(view, feature.start, feature.end, 1)]
        if any(len(part) % 4 for part in parts):
            raise ValueError("a list of floats is not a whole number of them")
    return np.frombuffer(b"".join(parts), "<f4").astype(np.float32)


def read_integers(buffer: Buffer, feature: Feature) -> list[int]:
    """The values of a feature of integers.

    Raises:
        ShardError: it is of another kind, or corrupt.
    """
    _expect_kind(feature, "int64")
    view = buffer.data
    values = []
    with _telling_faults():
        for position, end in _submessages(view, feature.start, feature.end, 1):
            while position < end:
                value, position = _varint(view, position, end)
                values.append(value - (1 << 64) if value >> 63 else value)
    return values


@contextlib.contextmanager
def _telling_faults() -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # of UTF-8, too
        raise ShardError(f"not a tf.train.Example: {error}") from error


def _expect_kind(feature: Feature, kind: Kind) -> None:
    if feature.kind != kind:
        raise ShardError(f"the feature holds values of kind {feature.kind}, not {kind}")


def _scan_entry(view: memoryview, start: int, end: int) -> tuple[str, Feature | None]:
    """One entry of the map: the feature's name and where its values lie."""
    name, feature = "", None
    for field, a, b in _fields(view, start, end):
        if field == 1:
            name = str(view[a:b], "utf-8")
        elif field == 2:
            for number, first, last in _fields(view, a, b):
                kind = _KIND_OF_FIELD.get(number)
                if kind == "bytes":
                    value = next(_submessages(view, first, last, 1), None)
                    feature = Feature(kind, *value) if value else None
                elif kind:
                    feature = Feature(kind, first, last) if last > first else None
    return name, feature


def _submessages(view: memoryview, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    return ((a, b) for field, a, b in _fields(view, start, end) if field == wanted)


def _fields(view: memoryview, position: int, end: int) -> Iterable[tuple[int, int, int]]:
    """The fields of a message: number, and the span of the content (of the number itself if it is a varint)."""
    while position < end:
        tag, position = _varint(view, position, end)
        wire_type = tag & 7
        if wire_type == _DELIMITED:
            length, position = _varint(view, position, end)
            stop = position + length
        elif wire_type == _VARINT:
            stop = _varint(view, position, end)[1]
        elif wire_type == _FIXED32:
            stop = position + 4
        elif wire_type == _FIXED64:
            stop = position + 8
        else:
            raise ValueError(f"wire type {wire_type} at byte {position}")
        if stop > end:
            raise ValueError(f"a field at byte {position} runs over the end of its message")
        yield tag >> 3, position, stop
        position = stop


def _varint(view: memoryview, position: int, end: int) -> tuple[int, int]:
    """A variable-length integer and where it ends."""
    value = shift = 0
    while position < end and shift < 70:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7
    raise ValueError(f"a number at byte {position} has no end")
