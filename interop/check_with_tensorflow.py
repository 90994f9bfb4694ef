"""Reads shards with TensorFlow's own parser and compares them with what they hold; second half of ``make interop``.

Run ``python interop/check_with_tensorflow.py FOLDER`` in an environment with TensorFlow, and without Zoobot, on
what ``make_shards.py`` made. TensorFlow verifies checksums as it reads; that it does is tried on a spoilt copy.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf


def feature_spec(encoding: str, label_cols: list[str]) -> dict[str, tf.io.FixedLenFeature]:
    """What each record must hold."""
    prefix, image = ("", "matrix") if encoding == "raw" else ("image/", "image/encoded")
    spec = {name: tf.io.FixedLenFeature([], tf.string) for name in ("id_str", image)}
    if prefix:
        spec["image/format"] = tf.io.FixedLenFeature([], tf.string)
    spec |= {prefix + name: tf.io.FixedLenFeature([], tf.int64) for name in ("height", "width", "channels")}
    return spec | {name: tf.io.FixedLenFeature([], tf.float32) for name in label_cols}


def read_image(features: dict[str, tf.Tensor], encoding: str) -> np.ndarray:
    """The pixels of one record."""
    if encoding == "raw":
        shape = [int(features[name]) for name in ("height", "width", "channels")]
        return tf.reshape(tf.io.decode_raw(features["matrix"], tf.uint8), shape).numpy()
    if features["image/format"].numpy().decode() != encoding:
        raise ValueError(f"image/format is {features['image/format']}, not {encoding}")
    content = features["image/encoded"]
    if encoding == "png":
        return tf.io.decode_png(content).numpy()
    return tf.io.decode_jpeg(content, dct_method="INTEGER_ACCURATE").numpy()


def compare(shard_dir: Path) -> int:
    """Compare every galaxy of a folder of shards; the number of them."""
    expected = np.load(shard_dir.with_suffix(".npz"))
    encoding, label_cols = str(expected["encoding"]), expected["label_cols"].tolist()
    rows = {name: row for row, name in enumerate(expected["id_str"].tolist())}
    spec = feature_spec(encoding, label_cols)
    for record in tf.data.TFRecordDataset(sorted(map(str, shard_dir.glob("*/*.tfrecord")))):
        features = tf.io.parse_single_example(record, spec)
        name = features["id_str"].numpy().decode()
        row = rows.pop(name)
        np.testing.assert_array_equal(read_image(features, encoding), expected["images"][row], name)
        votes = [float(features[column]) for column in label_cols]
        np.testing.assert_array_equal(votes, expected["votes"][row], name)
    if rows:
        raise ValueError(f"{shard_dir} lacks {len(rows)} galaxies, such as {next(iter(rows))}")
    return len(expected["id_str"])


def spoil(shard: Path, folder: Path) -> None:
    """Change one bit of a copy: reading it must fail, or its checksums were never looked at."""
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    spoilt = folder / "spoilt"
    spoilt.write_bytes(content)
    try:
        list(tf.data.TFRecordDataset(str(spoilt)))
    except tf.errors.DataLossError:
        return
    raise ValueError("TensorFlow read a spoilt shard without complaint")


def main() -> None:
    """Compare all."""
    folder = Path(sys.argv[1])
    shard_dirs = sorted(path.with_suffix("") for path in folder.glob("*.npz"))
    for shard_dir in shard_dirs:
        print(f"{shard_dir.name}: {compare(shard_dir)} galaxies equal")
        spoil(next(shard_dir.glob("train/*.tfrecord")), folder)
    if not shard_dirs:
        raise ValueError(f"{folder} holds nothing to compare; make_shards.py makes it")
    print(f"TensorFlow {tf.__version__} reads all {len(shard_dirs)} kinds of shards, checksums verified")


if __name__ == "__main__":
    main()
