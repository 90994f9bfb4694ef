"""TFRecords: what is written is read back, what others write is read, and what is broken is named."""

import io
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from zoobot.data import tfrecord
from zoobot.errors import ShardError


def make_example_class():
    """tf.train.Example, declared to Google's protobuf library from its published definition."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    lists = {"BytesList": kinds.TYPE_BYTES, "FloatList": kinds.TYPE_FLOAT, "Int64List": kinds.TYPE_INT64}
    for name, kind in lists.items():
        file.message_type.add(name=name).field.add(name="value", number=1, type=kind, label=3)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, list_name) in enumerate(zip(["bytes_list", "float_list", "int64_list"], lists, strict=True), 1):
        feature.field.add(
            name=name,
            number=number,
            type=kinds.TYPE_MESSAGE,
            type_name=f".t.{list_name}",
            label=1,
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=1)
    entry.field.add(name="value", number=2, type=kinds.TYPE_MESSAGE, type_name=".t.Feature", label=1)
    features.field.add(name="feature", number=1, type=kinds.TYPE_MESSAGE, type_name=".t.Features.FeatureEntry", label=3)
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, type=kinds.TYPE_MESSAGE, type_name=".t.Features", label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


EXAMPLE = make_example_class()
VALUES = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=20),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(width=32, allow_nan=False),
)


def as_buffer(data: bytes):
    return np.frombuffer(data, np.uint8)


@given(st.dictionaries(st.text(max_size=20), VALUES, max_size=5))
def test_googles_protobuf_reads_what_we_write(features):
    example = EXAMPLE.FromString(tfrecord.encode_example(features))
    assert set(example.features.feature) == set(features)
    for name, value in features.items():
        found = example.features.feature[name]
        kind = found.WhichOneof("kind")
        expected = value.encode() if isinstance(value, str) else value
        assert getattr(found, kind).value[0] == expected
        assert kind == {bytes: "bytes_list", int: "int64_list", float: "float_list"}[type(expected)]


@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
)
def test_we_read_what_googles_protobuf_writes(floats, integers):
    example = EXAMPLE()
    example.features.feature["f"].float_list.value.extend(floats)
    example.features.feature["i"].int64_list.value.extend(integers)
    example.features.feature["b"].bytes_list.value.append(b"pixels")
    buffer = as_buffer(example.SerializeToString())
    features = tfrecord.scan_example(buffer)
    np.testing.assert_array_equal(tfrecord.read_floats(buffer, features["f"]), np.array(floats, np.float32))
    assert tfrecord.read_integers(buffer, features["i"]) == integers
    assert buffer[features["b"].start : features["b"].end].tobytes() == b"pixels"


def test_unpacked_lists_are_read_too():
    # field 1 as single fixed 32-bit floats, as old protobuf writers do: tag 13
    values = b"".join(b"\x0d" + np.float32(value).tobytes() for value in (1.5, -2.0))
    buffer = as_buffer(values)
    feature = tfrecord.Feature("float", 0, len(values))
    assert tfrecord.read_floats(buffer, feature).tolist() == [1.5, -2.0]


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_an_example_or_a_clear_error(data):
    try:
        tfrecord.scan_example(as_buffer(data))
    except ShardError as error:
        assert "tf.train.Example" in str(error)  # noqa: PT017  # most inputs raise, some do not


def write(records: list[bytes]) -> bytes:
    file = io.BytesIO()
    for record in records:
        tfrecord.write_record(file, record)
    return file.getvalue()


@given(st.lists(st.binary(max_size=100), max_size=4))
def test_records_come_back(records):
    buffer = as_buffer(write(records))
    assert [buffer[a:b].tobytes() for a, b in tfrecord.walk_records(buffer, "made")] == records


@given(st.data())
def test_every_flipped_bit_is_noticed(data):
    content = bytearray(write([b"first", b"second"]))
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ShardError, match=r"made: record [01]"):
        list(tfrecord.walk_records(as_buffer(bytes(content)), "made"))


@given(st.integers(1, len(write([b"first", b"second"])) - 1))
def test_a_file_cut_short_is_noticed_unless_between_records(length):
    content = write([b"first", b"second"])
    if length == len(write([b"first"])):
        return
    with pytest.raises(ShardError, match="torn"):
        list(tfrecord.walk_records(as_buffer(content[:length]), "made"))


def test_a_lying_length_is_refused_before_anything_is_read():
    file = io.BytesIO()
    length = (2**62).to_bytes(8, "little")
    file.write(length + tfrecord._FOOTER.pack(tfrecord._masked_checksum(length)) + b"x" * 20)
    with pytest.raises(ShardError, match="torn: it needs 4611686018427387904 bytes"):
        list(tfrecord.walk_records(as_buffer(file.getvalue()), "made"))


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ShardError, match=r"no\.tfrecord"):
        tfrecord.map_file(tmp_path / "no.tfrecord")
