"""How time and memory grow from a thousand galaxies to a hundred thousand, for each step up to the predictions.

Run ``python benchmarks/scaling.py`` (on Linux; it needs 2 GB of disk). Images are made up, 64 x 64 pixels in colour,
and a few hundred files serve many galaxies. Each step runs once, in a process of its own, and is timed after
its imports. Memory is the most that the process and those it starts held together at any time, files that are
mapped not counted: those are the system's cache, and given back when it needs the room.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import galaxies
import timing
from torch import Tensor, nn

from zoobot import schemas
from zoobot.data import shards
from zoobot.data.catalog import read_catalog
from zoobot.data.datasets import make_loader
from zoobot.data.shard_writing import ShardConfig, create_shards
from zoobot.estimators.checkpoint import save_model
from zoobot.estimators.define_model import get_model
from zoobot.estimators.encoders import register_encoder
from zoobot.predictions.predict_on_images import predict

SIZE, SCHEMA = 64, "gz_decals"


class Means(nn.Module):
    """An encoder that costs nothing: the mean of each channel."""

    num_features = 3

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean((2, 3))


def step_catalog(folder: Path) -> None:
    read_catalog(folder / "catalog.csv", schemas.load(SCHEMA).label_cols)


def step_create(folder: Path) -> None:
    config = ShardConfig(img_size=SIZE, eval_size=100)
    create_shards(folder / "catalog.csv", folder / "shards", schemas.load(SCHEMA), config)


def step_read(folder: Path) -> None:
    dataset, _ = shards.load_datasets(folder / "shards")
    for _ in make_loader(dataset, 128, shuffle=True):
        pass


def step_predict(folder: Path) -> None:
    predict(
        checkpoint_dir=folder / "model",
        shard_dir=folder / "shards",
        split="train",
        save_loc=folder / "predictions.parquet",
        n_samples=5,
        device="cpu",
    )


STEPS = {
    "read_catalog (34 columns of votes)": step_catalog,
    "create_shards": step_create,
    "open the shards, one epoch of batches": step_read,
    "predict, 5 samples, an encoder without cost": step_predict,
}


def measure(name: str, folder: Path) -> tuple[float, float]:
    """Seconds and peak MiB of a step, in a process of its own."""
    # Not as a script, which the workers of create_shards would import again, torch and all.
    call = f"import scaling; scaling.run_step({name!r}, {str(folder)!r})"
    here = Path(__file__).parent
    with subprocess.Popen([sys.executable, "-c", call], cwd=here, stdout=subprocess.PIPE, text=True) as process:
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, sum(map(own_memory, find_processes(process.pid))))
            time.sleep(0.02)
        if process.returncode or process.stdout is None:
            raise RuntimeError(f"{name} ended with {process.returncode}; see its message above")
        return float(process.stdout.read()), peak


def find_processes(root: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield root
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{root}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from find_processes(int(child))


def own_memory(process: int) -> float:
    """MiB that are not the pages of a file."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in status if line.startswith(("RssAnon", "RssShmem"))) / 1024
    return 0.0


def run_step(name: str, scratch: str) -> None:
    """What the process does: prints the seconds."""
    folder = Path(scratch)
    register_encoder("means", Means)
    if STEPS[name] is step_predict:
        save_model(get_model(schema=schemas.load(SCHEMA), input_size=SIZE, encoder="means"), folder / "model")
    start = time.perf_counter()
    STEPS[name](folder)
    print(time.perf_counter() - start)


def main() -> None:
    args = timing.make_parser(__doc__).parse_args()
    counts = [200, 400] if args.quick else [1_000, 10_000, 100_000]
    cells: dict[str, list[str]] = {name: [] for name in STEPS}
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            paths = galaxies.find_or_make_up(None, Path(scratch), count=300, size=SIZE)
            galaxies.write_catalog(Path(scratch, "catalog.csv"), paths, count, SCHEMA)
            for name in STEPS:
                seconds, memory = measure(name, Path(scratch))
                cells[name].append(f"{seconds:.2f} s, {memory:.0f} MiB")
    timing.print_rows(["", *(f"{count:,} galaxies" for count in counts)], [[name, *row] for name, row in cells.items()])
    timing.print_machine(1)


if __name__ == "__main__":
    main()
