"""TensorFlow's side of the benchmarks; runs in an environment with TensorFlow and without Zoobot.

The other scripts start it as ``tensorflow_peer.py TASK ARGUMENTS``. It runs the task once for each line on
standard input and prints the seconds that it took.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from PIL import Image

Task = Callable[[], object]


def create_shards(folder: str, size: str, count: str) -> Task:
    """Pillow decodes, TensorFlow resizes and writes: one image after the other."""
    paths = sorted(Path(folder).glob("*.png"))
    paths = [paths[number % len(paths)] for number in range(int(count))]
    side = int(size)

    def bytes_feature(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def integer_feature(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    def run() -> None:
        with tempfile.TemporaryDirectory() as scratch, tf.io.TFRecordWriter(f"{scratch}/shard") as writer:
            for path in paths:
                pixels = np.asarray(Image.open(path).convert("RGB"))
                pixels = tf.cast(tf.image.resize(pixels, (side, side), antialias=True), tf.uint8).numpy()
                sizes = dict(zip(("height", "width", "channels"), pixels.shape, strict=True))
                features = {name: integer_feature(value) for name, value in sizes.items()}
                features |= {"matrix": bytes_feature(pixels.tobytes()), "id_str": bytes_feature(path.stem.encode())}
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())

    return run


def read_shards(folder: str, size: str, batch_size: str, tuned: str, *label_cols: str) -> Task:
    """One pass over all shards to float batches of 0 to 1; with ``label_cols`` also votes, and some shuffling.

    ``tuned`` is AUTOTUNE for every setting of tf.data that can be tuned, or plain for none.
    """
    files = sorted(str(path) for path in Path(folder).glob("*.tfrecord"))
    shape = (int(size), int(size), 3)
    spec = {"matrix": tf.io.FixedLenFeature([], tf.string)}
    spec |= {name: tf.io.FixedLenFeature([], tf.float32) for name in label_cols}

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        features = tf.io.parse_single_example(record, spec)
        pixels = tf.reshape(tf.io.decode_raw(features["matrix"], tf.uint8), shape)
        return tf.cast(pixels, tf.float32) / 255.0, [features[name] for name in label_cols]

    parallel = tf.data.AUTOTUNE if tuned == "AUTOTUNE" else None
    dataset = tf.data.TFRecordDataset(files, num_parallel_reads=parallel)
    if label_cols:
        dataset = dataset.shuffle(4 * int(batch_size))
    dataset = dataset.map(parse, num_parallel_calls=parallel).batch(int(batch_size)).prefetch(parallel or 1)

    def run() -> None:
        for batch in dataset:
            del batch

    return run


def make_model(size: int) -> tf.keras.Model:
    encoder = tf.keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_shape=(size, size, 1), pooling="avg"
    )
    return tf.keras.Sequential([encoder, tf.keras.layers.Dropout(0.2), tf.keras.layers.Dense(34)])


def train(size: str, batch_size: str, steps: str) -> Task:
    """Steps of EfficientNet-B0 on one batch, without augmentation and with a loss that costs nothing."""
    model, optimizer = make_model(int(size)), tf.keras.optimizers.Adam()
    pixels = tf.random.uniform((int(batch_size), int(size), int(size), 1))

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(pixels, training=True) ** 2)
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )

    def run() -> None:
        for _ in range(int(steps)):
            step()

    return run


def predict(size: str, batch_size: str, batches: str) -> Task:
    """Passes of EfficientNet-B0 over one batch."""
    model = make_model(int(size))
    pixels = tf.random.uniform((int(batch_size), int(size), int(size), 1))
    infer = tf.function(lambda: model(pixels, training=False))

    def run() -> None:
        for _ in range(int(batches)):
            infer().numpy()

    return run


TASKS = {"create": create_shards, "read": read_shards, "train": train, "predict": predict}


def main() -> None:
    task = TASKS[sys.argv[1]](*sys.argv[2:])
    for _ in sys.stdin:
        start = time.perf_counter()
        task()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
