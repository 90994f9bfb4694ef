"""Creating shards: ``create_shards`` beside decoding alone, beside Pillow, and beside TensorFlow's way.

Run ``python benchmarks/creating_shards.py --folder FOLDER`` with a folder of PNGs (made-up galaxies without it), and
``--tensorflow-python .venv-tensorflow/bin/python`` for the last. The first row is the bound: the fastest decoder
and the resizing, in processes that are ready before the clock starts, with nothing written.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import galaxies
import numpy as np
import timing
from PIL import Image

from zoobot import schemas
from zoobot.data import images
from zoobot.data.shard_writing import ShardConfig, create_shards
from zoobot.processes import count_cores, map_in_processes

SIZE = 300
BOUND, WHOLE, STEADY = "decoding and resizing alone", "**create_shards**, whole run", "**create_shards**, less start-up"
ORIGINAL = 55  # images/s of the original system where Pillow took so many ms to decode one of these PNGs:
ORIGINAL_PILLOW_MS = 10


def read_all(paths: list[Path]) -> None:
    for path in paths:
        images.read_image(path, size=SIZE)


def read_all_with_pillow(paths: list[Path]) -> None:
    for path in paths:
        with Image.open(path) as image:
            np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def decode_all_with_pillow(paths: list[Path]) -> None:
    for path in paths:
        with Image.open(path) as image:
            np.asarray(image.convert("RGB"))


def start_up(_: int) -> None:
    """Nothing: to do it, a process must have started and imported what create_shards needs."""


def share_out(pool: ProcessPoolExecutor, function: Callable[[list[Path]], None], paths: list[Path]) -> None:
    parts = min(len(paths), 16 * count_cores())
    list(pool.map(function, (paths[number::parts] for number in range(parts))))


def create(catalog: Path, shard_dir: Path) -> float:
    start = time.perf_counter()
    create_shards(catalog, shard_dir, schemas.load(galaxies.SCHEMA), ShardConfig(img_size=SIZE))
    seconds = time.perf_counter() - start
    shutil.rmtree(shard_dir)
    return seconds


def start_processes() -> None:
    items: Iterator[object] = map_in_processes(start_up, range(count_cores()))
    list(items)


def main() -> None:
    parser = timing.make_parser(__doc__, repeats=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--galaxies", type=int, default=4000)
    parser.add_argument("--tensorflow-python", type=Path)
    args = parser.parse_args()
    count, repeats = (40, 1) if args.quick else (args.galaxies, args.repeats)
    few = max(10, count // 20)  # for those that take long
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        paths = galaxies.find_or_make_up(args.folder, Path(scratch))
        catalog = galaxies.write_catalog(Path(scratch, "catalog.parquet"), paths, count)
        many = (paths * (1 + count // len(paths)))[:count]
        pool = stack.enter_context(ProcessPoolExecutor(count_cores(), get_context("spawn")))
        cases: dict[str, timing.Case] = {
            BOUND: partial(share_out, pool, read_all, many),
            WHOLE: partial(create, catalog, Path(scratch, "shards")),
            "start-up": start_processes,
            "Pillow, a process per core": partial(share_out, pool, read_all_with_pillow, many[: 2 * few]),
            "Pillow, one process": partial(read_all_with_pillow, many[:few]),
            "Pillow, one process, no resizing": partial(decode_all_with_pillow, many[:few]),
        }
        counts = dict.fromkeys(cases, few) | {BOUND: count, WHOLE: count, STEADY: count}
        counts["Pillow, a process per core"] = 2 * few
        if args.tensorflow_python:
            folder = paths[0].parent
            peer = timing.OtherPython(args.tensorflow_python, "tensorflow_peer.py", "create", folder, SIZE, few)
            stack.callback(peer.close)
            cases["Pillow and TensorFlow, one process"] = peer
            counts["Pillow and TensorFlow, one process"] = few
        seconds = timing.interleave(cases, repeats)
    start = seconds.pop("start-up")
    seconds[STEADY] = seconds[WHOLE] - start
    timing.print_comparison(seconds, counts, BOUND, "image")
    timing.print_machine(repeats)
    pillow_ms = 1000 * seconds["Pillow, one process, no resizing"] / few
    original = ORIGINAL * ORIGINAL_PILLOW_MS / pillow_ms
    print(
        f"{count} PNGs; create_shards reaches {seconds[BOUND] / seconds[WHOLE]:.0%} of the bound, "
        f"{seconds[BOUND] / seconds[STEADY]:.0%} without the {start:.1f} s in which its processes start.\n"
        f"The original system, {ORIGINAL} images/s where Pillow decodes one in {ORIGINAL_PILLOW_MS} ms, would make "
        f"{original:.0f} images/s here: create_shards is {count / seconds[WHOLE] / original:.1f} x as fast."
    )


if __name__ == "__main__":
    main()
