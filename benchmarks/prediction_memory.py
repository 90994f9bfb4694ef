"""The peak memory of predicting 100,000, 300,000 and 1,000,000 made-up galaxies in parts.

Run ``python benchmarks/prediction_memory.py``. The encoder is a made-up one, the mean of each channel, and the images
are 8 x 8 pixels of noise, so that hardly anything but the job itself takes memory; each number of galaxies has a
process of its own. The names alone are measured too: as lists of text, they are what may grow.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timing
import torch
from torch import Tensor, nn

from zoobot import schemas
from zoobot.data.datasets import Batch
from zoobot.estimators.define_model import get_model
from zoobot.estimators.encoders import register_encoder
from zoobot.predictions.job_progress import follow_job
from zoobot.predictions.prediction_job import Job, run_parts
from zoobot.predictions.prediction_parts import PartsFolder
from zoobot.predictions.prediction_settings import PredictConfig

SIZE = 8


class Mean(nn.Module):
    """An encoder: the mean of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_features = channels

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean((2, 3))


class MadeUp:
    """Galaxies of noise, of which only the names are held."""

    def __init__(self, galaxies: int) -> None:
        self.id_str = [f"galaxy-{number:08d}" for number in range(galaxies)]
        self.file_loc = [f"/a/folder/with/images/{name}.png" for name in self.id_str]
        self.votes = torch.zeros(galaxies, 0)
        self.label_cols: list[str] = []
        self.image_shape = (SIZE, SIZE, 3)

    def __len__(self) -> int:
        return len(self.id_str)

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        rows = len(positions)
        pixels = torch.randint(0, 256, (rows, *self.image_shape), dtype=torch.uint8)
        names = [self.id_str[position] for position in positions]
        return Batch(pixels, torch.zeros(rows, 0), names, [""] * rows, np.zeros(rows, np.int64))


def predict_made_up(galaxies: int, folder: Path) -> None:
    """Print the peak of this process's memory when it has the names, and at the end, in MB, and the seconds."""
    schema = schemas.load("gz_rings")
    register_encoder("mean", Mean)
    model = get_model(schema=schema, input_size=SIZE, crop_size=SIZE, encoder="mean")
    dataset = MadeUp(galaxies)
    config = PredictConfig(checkpoint_dir="none", catalog="none", save_loc=folder, device="cpu", batch_size=1024)
    job = Job(config, [model], [dataset], dataset.id_str, dataset.file_loc, schema, None)
    parts = PartsFolder.claim(folder, {}, galaxies, config.whole_part)
    before, start = find_peak(), time.perf_counter()
    with follow_job(galaxies, 0) as tell:
        failed = run_parts(job, parts, range(len(parts)), tell)
    if failed:
        raise RuntimeError(str(failed))
    print(before, find_peak(), time.perf_counter() - start)


def find_peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = timing.make_parser(__doc__)
    parser.add_argument("--galaxies", type=int, help="of one process; what the script calls itself with")
    parser.add_argument("--save-loc", type=Path)
    args = parser.parse_args()
    if args.galaxies:
        predict_made_up(args.galaxies, args.save_loc)
        return
    rows = []
    for galaxies in (2_000, 20_000) if args.quick else (100_000, 300_000, 1_000_000):
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, __file__, "--galaxies", str(galaxies), "--save-loc", f"{scratch}/parts"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        before, peak, seconds = map(float, done.stdout.split())
        rows.append([f"{galaxies:,}", *(f"{value:.0f}" for value in (before, peak, peak - before, seconds))])
    timing.print_rows(["galaxies", "names read, MB", "peak, MB", "of the job, MB", "seconds"], rows)


if __name__ == "__main__":
    main()
