"""Reading shards into batches: Zoobot beside tf.data on the same files, and beside a DataLoader over the PNGs.

Run ``python benchmarks/reading_shards.py --folder FOLDER`` with a folder of PNGs (made-up galaxies without it), and
``--tensorflow-python .venv-tensorflow/bin/python`` for tf.data. Batches are of 128 colour images of 300 x 300
pixels; Zoobot's have their votes and are in random order over all galaxies. The files are in the system's cache.
"""

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import galaxies
import numpy as np
import timing
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoobot.data import shards
from zoobot.data.datasets import GalaxyDataset, make_loader
from zoobot.data.shard_writing import ShardConfig
from zoobot.estimators.augment import Augment, AugmentConfig
from zoobot.processes import count_cores

SIZE, BATCH_SIZE = 300, 128
OURS = "**zoobot**, uint8"
IN_ORDER = "tf.data with AUTOTUNE, floats 0 to 1, in the files' order, no votes"
SHUFFLED = "tf.data with AUTOTUNE, floats 0 to 1, shuffled among 512, votes"
PLAIN = "tf.data as it comes, floats 0 to 1, shuffled among 512, votes"
PNGS = "Pillow and DataLoader over the PNGs, floats 0 to 1"


class PngDataset(Dataset[Tensor]):
    """What everyone writes first."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, position: int) -> Tensor:
        with Image.open(self._paths[position]) as image:
            pixels = np.array(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def read_bytes(dataset: GalaxyDataset) -> None:
    for _ in make_loader(dataset, BATCH_SIZE, shuffle=True):
        pass


def read_floats(dataset: GalaxyDataset) -> None:
    for batch in make_loader(dataset, BATCH_SIZE, shuffle=True):
        batch.images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def augment(dataset: GalaxyDataset, module: Augment) -> None:
    for batch in make_loader(dataset, BATCH_SIZE, shuffle=True):
        module(batch.images)


def read_pngs(loader: "DataLoader[Tensor]") -> None:
    for _ in loader:
        pass


def main() -> None:
    parser = timing.make_parser(__doc__, repeats=7)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--galaxies", type=int, default=2048)
    parser.add_argument("--tensorflow-python", type=Path)
    args = parser.parse_args()
    count, repeats = (128, 1) if args.quick else (args.galaxies, args.repeats)
    few = count // 4  # for that which takes long
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        paths = galaxies.find_or_make_up(args.folder, Path(scratch))
        config = ShardConfig(img_size=SIZE, eval_size=1)
        folder = galaxies.make_shards(Path(scratch, "shards"), paths, count + 1, config)
        dataset = shards.open_split(folder, "train")
        some = (paths * (1 + few // len(paths)))[:few]
        loader = DataLoader(
            PngDataset(some), BATCH_SIZE, shuffle=True, num_workers=count_cores(), persistent_workers=True
        )
        to_model = Augment(AugmentConfig(input_size=SIZE, crop_size=225, resize_size=224))
        cases: dict[str, timing.Case] = {
            OURS: partial(read_bytes, dataset),
            "**zoobot**, floats 0 to 1": partial(read_floats, dataset),
            "**zoobot**, augmented to 224 x 224": partial(augment, dataset, to_model),
            PNGS: partial(read_pngs, loader),
        }
        if args.tensorflow_python:
            votes = dataset.label_cols
            for name, settings in {
                IN_ORDER: ["AUTOTUNE"],
                SHUFFLED: ["AUTOTUNE", *votes],
                PLAIN: ["plain", *votes],
            }.items():
                task = ("read", folder / "train", SIZE, BATCH_SIZE, *settings)
                peer = timing.OtherPython(args.tensorflow_python, "tensorflow_peer.py", *task)
                stack.callback(peer.close)
                cases[name] = peer
        seconds = timing.interleave(cases, repeats)
    timing.print_comparison(seconds, dict.fromkeys(cases, count) | {PNGS: few}, OURS, "image")
    timing.print_machine(repeats)


if __name__ == "__main__":
    main()
