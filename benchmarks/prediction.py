"""Predicting with five samples beside one, beside five full passes, and beside TensorFlow's passes.

Run ``python benchmarks/prediction.py --folder FOLDER`` with a folder of PNGs (made-up galaxies without it), and
``--tensorflow-python .venv-tensorflow/bin/python`` for the last. What is timed of Zoobot is all that the command does:
load the model (EfficientNet-B0, 224 x 224, greyscale), decode the images, predict, write the catalogue.
"""

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import galaxies
import timing
import torch

from zoobot import schemas
from zoobot.data.catalog import read_catalog
from zoobot.data.datasets import ImageDataset, make_loader
from zoobot.estimators.checkpoint import load_model, save_model
from zoobot.estimators.define_model import get_model
from zoobot.predictions.predict_on_images import predict

SIZE, BATCH_SIZE, SAMPLES = 300, 64, 5
ONE = "**zoobot**, 1 sample"


def predict_all(checkpoint_dir: Path, catalog: Path, n_samples: int) -> None:
    predict(
        checkpoint_dir=checkpoint_dir,
        catalog=catalog,
        save_loc=catalog.with_name("predictions.parquet"),
        n_samples=n_samples,
        batch_size=BATCH_SIZE,
        device="cpu",
        overwrite=True,
    )


def pass_often(checkpoint_dir: Path, catalog: Path) -> None:
    """The whole network once for each sample, dropout on; the images are decoded once, and nothing is written."""
    model = load_model(checkpoint_dir).eval()
    model.head.train()
    dataset = ImageDataset(read_catalog(catalog), size=SIZE, channels=1)
    with torch.inference_mode():
        for batch in make_loader(dataset, BATCH_SIZE):
            torch.stack([model(batch.images) for _ in range(SAMPLES)], dim=1)


def main() -> None:
    parser = timing.make_parser(__doc__, repeats=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--galaxies", type=int, default=128)
    parser.add_argument("--tensorflow-python", type=Path)
    args = parser.parse_args()
    count, repeats = (16, 1) if args.quick else (args.galaxies, args.repeats)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        paths = galaxies.find_or_make_up(args.folder, Path(scratch))
        catalog = galaxies.write_catalog(Path(scratch, "catalog.parquet"), paths, count)
        folder = Path(scratch, "model")
        schema = schemas.load("gz_decals")
        save_model(get_model(schema=schema, input_size=SIZE, crop_size=225, resize_size=224, channels=1), folder)
        cases: dict[str, timing.Case] = {
            ONE: partial(predict_all, folder, catalog, 1),
            f"**zoobot**, {SAMPLES} samples": partial(predict_all, folder, catalog, SAMPLES),
            f"{SAMPLES} full passes": partial(pass_often, folder, catalog),
        }
        counts = dict.fromkeys(cases, count)
        if args.tensorflow_python:
            batches = max(1, count // BATCH_SIZE)
            peer = timing.OtherPython(args.tensorflow_python, "tensorflow_peer.py", "predict", 224, BATCH_SIZE, batches)
            stack.callback(peer.close)
            name = "Keras, 1 pass, images in memory"
            cases[name], counts[name] = peer, batches * BATCH_SIZE
        seconds = timing.interleave(cases, repeats)
    timing.print_comparison(seconds, counts, ONE, "image")
    timing.print_machine(repeats)


if __name__ == "__main__":
    main()
