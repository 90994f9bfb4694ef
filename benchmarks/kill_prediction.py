"""SIGKILL at random moments of a prediction, which is run again until it is done: is the table the same?

Run ``python benchmarks/kill_prediction.py``: 20,000 tiny PNGs, a tiny encoder, 79 parts; one run is left alone, the
other is killed ten times, each time before its end. The images are few files under many names. The tables must be
equal, byte for byte.
"""

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import galaxies
import timing
import torch

from zoobot import schemas
from zoobot.estimators.checkpoint import save_model
from zoobot.estimators.define_model import get_model
from zoobot.predictions.merging import merge
from zoobot.predictions.prediction_parts import PartsFolder

SIZE, GALAXIES_PER_PART = 32, 256


def start(command: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: "subprocess.Popen[bytes]") -> None:
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(said.decode())


def count_parts(folder: Path) -> int:
    return len(list(folder.glob("part-*.parquet")))


def kill_once(command: list[str], folder: Path, generator: random.Random, most: int) -> str:
    """Kill it at a random moment, from its first sign of life until it has made so many parts; say what it left."""
    before, awaited = count_parts(folder), generator.randint(0, most)
    process = start(command)
    while process.poll() is None:
        if (folder / "manifest.json").exists() and count_parts(folder) >= before + awaited:
            break
        time.sleep(0.001)
    time.sleep(generator.uniform(0, 0.2))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        raise RuntimeError("it came to its end before it was killed; take more galaxies")
    left = len(list(folder.glob(".tmp-*")))
    return f"killed with {count_parts(folder)} parts done and {left} half written"


def main() -> None:
    parser = timing.make_parser(__doc__)
    parser.add_argument("--galaxies", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    count, kills = (3_000, 2) if args.quick else (args.galaxies, args.kills)
    generator = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        paths = galaxies.find_or_make_up(None, Path(scratch), size=48)
        paths[7].write_bytes(b"no image")  # of which many rows of the list of failures come
        catalog = galaxies.write_catalog(Path(scratch, "catalog.parquet"), paths, count)
        torch.manual_seed(0)
        model = get_model(schema=schemas.load(galaxies.SCHEMA), input_size=SIZE, encoder="test_resnet")
        save_model(model, Path(scratch, "model"))
        command = [str(Path(sys.executable).with_name("zoobot")), "predict", "--checkpoint-dir", f"{scratch}/model"]
        command += ["--catalog", str(catalog), "--galaxies-per-part", str(GALAXIES_PER_PART), "--save-loc"]
        finish(start([*command, f"{scratch}/whole"]))
        parts = len(PartsFolder.open(Path(scratch, "whole")))
        for _ in range(kills):
            print(
                kill_once([*command, f"{scratch}/broken"], Path(scratch, "broken"), generator, parts // kills - 3),
                flush=True,
            )
        finish(start([*command, f"{scratch}/broken"]))
        for name in ("whole", "broken"):
            merge(Path(scratch, name), Path(scratch, f"{name}.parquet"))
        for suffix in ("parquet", "failed.csv"):
            same = Path(scratch, f"whole.{suffix}").read_bytes() == Path(scratch, f"broken.{suffix}").read_bytes()
            print(f"{suffix}: {'the same bytes' if same else 'OTHER BYTES'} after {kills} kills, {parts} parts")


if __name__ == "__main__":
    main()
