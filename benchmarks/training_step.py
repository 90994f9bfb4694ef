"""The training loop beside bare steps of the same model on pixels in memory, and beside TensorFlow's steps.

Run ``python benchmarks/training_step.py``, with ``--tensorflow-python .venv-tensorflow/bin/python`` for the last.
A bare step is augmentation, forward, loss, backward and AdamW. The loop is ``train_estimator``'s own: the mean
time from one batch asked of the shards to the next. What comes once an epoch, testing and saving, is told apart.
"""

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import galaxies
import timing
import torch

from zoobot import schemas
from zoobot.data import shards
from zoobot.data.datasets import Batch
from zoobot.data.shard_writing import ShardConfig
from zoobot.data.shards import ShardDataset
from zoobot.estimators.define_model import Model, get_model
from zoobot.training import losses
from zoobot.training.training_config import TrainConfig, train_estimator


@dataclass(frozen=True)
class Setting:
    """What is trained."""

    encoder: str
    image_size: int
    crop_size: int
    resize_size: int
    batch_size: int
    steps: int

    def make_model(self) -> Model:
        return get_model(
            schema=schemas.load(galaxies.SCHEMA),
            input_size=self.image_size,
            crop_size=self.crop_size,
            resize_size=self.resize_size,
            channels=1,
            encoder=self.encoder,
        )


class Stopwatch:
    """A dataset that notes when each batch is asked for."""

    def __init__(self, dataset: ShardDataset) -> None:
        self._dataset = dataset
        self.times: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        self.times.append(time.perf_counter())
        return self._dataset.__getitems__(positions)


class BareSteps:
    """Steps on one batch in memory; gives the mean seconds of one."""

    def __init__(self, setting: Setting, batch: Batch, dtype: torch.dtype) -> None:
        self._model = setting.make_model().train()
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-3, weight_decay=0.05)
        self._loss = losses.get_multiquestion_loss(schemas.load(galaxies.SCHEMA).question_index_groups)
        self._batch, self._dtype, self._steps = batch, dtype, setting.steps

    def __call__(self) -> float:
        start = time.perf_counter()
        for _ in range(self._steps):
            self._optimizer.zero_grad()
            with torch.autocast("cpu", self._dtype, enabled=self._dtype != torch.float32):
                concentrations = self._model(self._batch.images)
            loss = self._loss(self._batch.votes, concentrations).sum() / len(concentrations)
            loss.backward()
            self._optimizer.step()
        return (time.perf_counter() - start) / self._steps


class Loop:
    """Two epochs of ``train_estimator``; gives the mean seconds of a step and keeps those that an epoch adds."""

    def __init__(self, setting: Setting, shard_dir: Path) -> None:
        self._setting, self._log_dir = setting, shard_dir.with_suffix(".model")
        self._train, self._test = shards.load_datasets(shard_dir)
        self.ends: list[float] = []

    def __call__(self) -> float:
        config = TrainConfig(
            self._log_dir, epochs=2, batch_size=self._setting.batch_size, accelerator="cpu", overwrite=True
        )
        watched = Stopwatch(self._train)
        train_estimator(self._setting.make_model(), config, watched, self._test)
        steps = self._setting.steps
        first, second = watched.times[:steps], watched.times[steps:]
        step = (first[-1] - first[0] + second[-1] - second[0]) / (2 * steps - 2)
        self.ends.append(second[0] - first[-1] - step)
        return step


def compare(setting: Setting, repeats: int, peers: dict[str, timing.Case], bfloat16: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        paths = galaxies.find_or_make_up(None, Path(scratch), size=setting.image_size)
        config = ShardConfig(img_size=setting.image_size, color=False, eval_size=setting.batch_size, workers=1)
        count = (setting.steps + 1) * setting.batch_size
        folder = galaxies.make_shards(Path(scratch, "shards"), paths, count, config)
        batch = shards.open_split(folder, "train").__getitems__(range(setting.batch_size))
        loop = Loop(setting, folder)
        cases = {"bare step": BareSteps(setting, batch, torch.float32), "**zoobot**'s loop": loop}
        if bfloat16:
            cases["bare step, bfloat16"] = BareSteps(setting, batch, torch.bfloat16)
        seconds = timing.interleave(cases | peers, repeats)
    print(
        f"{setting.encoder}, {setting.image_size} cropped to {setting.crop_size} and resized to "
        f"{setting.resize_size} pixels, greyscale, batches of {setting.batch_size}:\n"
    )
    timing.print_comparison(seconds, dict.fromkeys(seconds, setting.batch_size), "bare step", "image")
    end = sorted(loop.ends)[len(loop.ends) // 2]
    print(f"\nAn epoch adds {end:.2f} s: testing {setting.batch_size} galaxies, saving the model and the run's state.")
    timing.print_machine(repeats)


def main() -> None:
    parser = timing.make_parser(__doc__, repeats=5)
    parser.add_argument("--tensorflow-python", type=Path)
    args = parser.parse_args()
    steps, small_steps, repeats = (4, 4, 1) if args.quick else (6, 20, args.repeats)
    with ExitStack() as stack:
        peers: dict[str, timing.Case] = {}
        if args.tensorflow_python:
            peer = timing.OtherPython(args.tensorflow_python, "tensorflow_peer.py", "train", 224, 16, steps)
            stack.callback(peer.close)
            peers["Keras, without augmentation"] = partial(lambda run: run() / steps, peer)
        compare(Setting("efficientnet_b0", 300, 225, 224, 16, steps), repeats, peers, bfloat16=True)
    compare(Setting("resnet10t", 96, 72, 64, 64, small_steps), repeats, {}, bfloat16=False)


if __name__ == "__main__":
    main()
