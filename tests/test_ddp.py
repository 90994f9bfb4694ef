"""Training on several devices: two processes on a CPU train as one does, each galaxy once an epoch.

Run as a script, this file is one such process.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from zoobot import schemas
from zoobot.data.datasets import MemoryDataset
from zoobot.data.window_order import order_in_windows
from zoobot.errors import SettingError, TrainingError, ZoobotError
from zoobot.estimators import define_model
from zoobot.estimators.checkpoint import load_model
from zoobot.estimators.encoders import ENCODERS, register_encoder
from zoobot.training.estimator_module import EpochSampler, GalaxyData, learning_rate_factor
from zoobot.training.losses import get_multiquestion_loss
from zoobot.training.training_config import TrainConfig, train_estimator

SCHEMA = schemas.load("gz_rings")
SIZE, GALAXIES, TESTED, EPOCHS, STEPS = 16, 29, 9, 3, 4  # the last step has 5 galaxies; tests take 2 batches and 1
LOSS = get_multiquestion_loss(SCHEMA.question_index_groups)


class Plain(nn.Sequential):
    """An encoder without batch normalisation, whose statistics depend on how galaxies are shared out."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Conv2d(channels, 4, 3, stride=2), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.num_features = 16


class Normed(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.num_features = 4


@pytest.fixture(autouse=True, scope="module")
def encoders():
    register_encoder("plain", Plain)
    register_encoder("normed", Normed)
    yield
    ENCODERS.pop("plain")
    ENCODERS.pop("normed")


class Watched(MemoryDataset):
    """Galaxies in the order of shards that are fetched a few files at a time; it notes what was asked for."""

    asked: list[list[str]]

    def __getitems__(self, positions):
        batch = super().__getitems__(positions)
        self.asked = [*getattr(self, "asked", []), batch.id_str]
        return batch

    def epoch_order(self, seed):
        return order_in_windows(np.arange(len(self)) // 4, 3, seed)[0].tolist()


def make_galaxies(count, seed=0):
    generator = np.random.default_rng(seed)
    images = torch.from_numpy(generator.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8))
    votes = torch.from_numpy(generator.integers(1, 9, (count, len(SCHEMA.label_cols))).astype(np.float32))
    names = [f"G{seed}-{number}" for number in range(count)]
    return Watched(images, votes, SCHEMA.label_cols, names, names)


def train(folder, encoder="plain", loss=LOSS, galaxies=GALAXIES, **settings):
    torch.manual_seed(0)
    chances = {"dropout_rate": 0.0, "rotate": False, "flip": False, "move": 0.0}
    model = define_model.get_model(schema=SCHEMA, input_size=SIZE, encoder=encoder, **chances)
    settings = {"epochs": EPOCHS, "precision": "32-true", "accelerator": "cpu", "learning_rate": 0.01, **settings}
    config = TrainConfig(log_dir=folder, show_progress=False, **settings)
    datasets = make_galaxies(galaxies), make_galaxies(TESTED, seed=1)
    train_estimator(model, config, *datasets, loss=loss)
    return [dataset.asked for dataset in datasets]


def run_as_one_of_two(folder, rank, task):
    """The unbroken runs and one in which this process kills itself if it is the second; or what goes on with that."""
    shared = {"batch_size": 4, "devices": 2}
    if task == "begin":
        asked = train(folder / "two", **shared)
        (folder / f"asked-{rank}.json").write_text(json.dumps(asked))
        train(folder / "normed", "normed", ema_decay=0.5, **shared)
        train(folder / "bf16", precision="bf16-mixed", **shared)
    steps = 0

    def die_in_the_third_epoch(votes, concentrations):
        nonlocal steps
        steps += concentrations.requires_grad
        if task == "begin" and rank == 1 and steps == 2 * STEPS + 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return LOSS(votes, concentrations)

    train(folder / "killed", loss=die_in_the_third_epoch, resume=task == "resume", **shared)


def start_two(folder, task):
    """Two processes as torchrun starts them; their exit codes and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
    common |= {"TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": 1}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), task],
            env={**os.environ, **{name: str(value) for name, value in (common | {"RANK": r, "LOCAL_RANK": r}).items()}},
            stderr=subprocess.PIPE,
            text=True,
        )
        for r in range(2)
    ]
    try:
        said = [process.communicate(timeout=600)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    return folder, *start_two(folder, "begin")


def read_history(folder):
    return pd.read_csv(folder / "history.csv").drop(columns="minutes")


def assert_same_run(first, second, **tolerance):
    pd.testing.assert_frame_equal(read_history(first), read_history(second), **tolerance)
    states = [load_model(folder).state_dict() for folder in (first, second)]
    for name, weights in states[0].items():
        torch.testing.assert_close(states[1][name], weights, **tolerance)


CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(two, tmp_path):
    folder, _, said = two
    assert (folder / "two" / "config.json").exists(), said
    one = train(tmp_path / "one", batch_size=8, devices=1)
    assert_same_run(folder / "two", tmp_path / "one", **CLOSE)

    shares = [json.loads((folder / f"asked-{rank}.json").read_text()) for rank in range(2)]
    trained, tested = zip(*shares, strict=True)
    assert [len(batch) for batch in trained[0]] == [4, 4, 4, 3] * EPOCHS
    assert [len(batch) for batch in trained[1]] == [4, 4, 4, 2] * EPOCHS
    # the galaxies of every step are those that one process takes, hence each comes once an epoch
    for first, second, both in zip(*trained, one[0], strict=True):
        assert sorted(first + second) == sorted(both)
    for epoch in range(EPOCHS):
        names = [name for batch in one[0][epoch * STEPS : (epoch + 1) * STEPS] for name in batch]
        assert sorted(names) == sorted(make_galaxies(GALAXIES).id_str)
    names = [name for share in tested for batch in share for name in batch]
    assert sorted(names) == sorted(make_galaxies(TESTED, seed=1).id_str * EPOCHS)


@pytest.mark.slow
def test_two_processes_in_bfloat16_train_as_one_within_its_rounding(two, tmp_path):
    train(tmp_path, batch_size=8, devices=1, precision="bf16-mixed")
    in_bf16, in_one, in_float = (
        read_history(each)["train_loss"] for each in (two[0] / "bf16", tmp_path, two[0] / "two")
    )
    np.testing.assert_allclose(in_bf16, in_one, rtol=5e-3)
    assert not np.allclose(in_bf16, in_float, rtol=1e-6)


@pytest.mark.slow
def test_the_test_loss_is_that_of_the_model_saved_with_batch_normalisation_too(two):
    folder = two[0]
    model = load_model(folder / "normed").eval()
    galaxies = make_galaxies(TESTED, seed=1)
    with torch.no_grad():
        loss = LOSS(galaxies.votes, model(galaxies.images)).sum(1).mean().item()
    assert loss == pytest.approx(read_history(folder / "normed")["test_loss"].min(), rel=1e-5)


@pytest.mark.slow
def test_after_one_process_is_killed_the_other_says_so_and_the_run_can_go_on(two):
    folder, codes, said = two
    assert codes == [2, -signal.SIGKILL], said
    assert "one of the 2 processes of this training has ended" in said[0]
    assert len(read_history(folder / "killed")) == 2
    codes, said = start_two(folder, "resume")
    assert codes == [0, 0], said
    assert "goes on after its last whole epoch" in said[0]
    assert "goes on" not in said[1]
    assert_same_run(folder / "killed", folder / "two", rtol=0, atol=0)


@pytest.mark.parametrize("galaxies", [22, 24, 29, 27])
def test_batches_accumulated_are_one_larger_batch(tmp_path, galaxies):
    # of 29 the last batch of four would be a single galaxy: batches are then of five, and ten make a step
    whole = {29: 10}.get(galaxies, 8)
    train(tmp_path / "a", batch_size=4, accumulate=2, devices=1, galaxies=galaxies)
    train(tmp_path / "b", batch_size=whole, devices=1, galaxies=galaxies)
    assert_same_run(tmp_path / "a", tmp_path / "b", **CLOSE)


def test_a_run_goes_on_with_other_steps_and_its_learning_rate_still_ends_at_zero(tmp_path):
    batches = 0

    def break_off(votes, concentrations):
        nonlocal batches
        batches += concentrations.requires_grad
        if batches == 10:
            raise KeyError("broken off")
        return LOSS(votes, concentrations)

    settings = {"batch_size": 4, "devices": 1, "galaxies": 24, "epochs": 4}
    with pytest.raises(KeyError):
        train(tmp_path, loss=break_off, accumulate=2, **settings)
    train(tmp_path, accumulate=3, resume=True, **settings)
    # the rate is that of the middle of an epoch's last step: 3 steps an epoch at first, then 2
    done = [2.5 / 12, 3.5 / 8, 5.5 / 8, 7.5 / 8]
    expected = [0.01 * learning_rate_factor(share) for share in done]
    np.testing.assert_allclose(read_history(tmp_path)["learning_rate"], expected)


def test_a_compiled_encoder_trains_and_is_given_back_as_it_was(tmp_path, monkeypatch):
    calls = []

    def compile_nothing(function, **_):
        def compiled(*arguments):
            calls.append(1)
            return function(*arguments)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_nothing)
    train(tmp_path / "a", batch_size=8, devices=1, compile=True)
    assert len(calls) == EPOCHS * (STEPS + 2)  # two batches of test galaxies
    train(tmp_path / "b", batch_size=8, devices=1)
    assert len(calls) == EPOCHS * (STEPS + 2)
    assert_same_run(tmp_path / "a", tmp_path / "b", rtol=0, atol=0)


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_shares_are_of_all_galaxies_once_in_equally_many_batches_of_two_at_least(processes, tmp_path):
    for galaxies in (2 * processes, 17, 29, 32, 33, 34, 48, 50):
        for batch_size in (2, 3, 4, 16):
            dataset, test = make_galaxies(galaxies), make_galaxies(processes + 1, seed=1)
            data = GalaxyData(dataset, test, TrainConfig(log_dir=tmp_path, batch_size=batch_size), processes)
            shares, tested = [], []
            for rank in range(processes):
                progress = SimpleNamespace(current=SimpleNamespace(processed=5))
                fit_loop = SimpleNamespace(epoch_progress=progress)
                data.trainer = SimpleNamespace(global_rank=rank, fit_loop=fit_loop)
                shares.append([batch.id_str for batch in data.train_dataloader()])
                assert len(data.train_dataloader()) == len(shares[0])
                tested += [name for batch in data.val_dataloader() for name in batch.id_str]
            assert sorted(tested) == sorted(test.id_str)
            assert sorted(name for share in shares for batch in share for name in batch) == sorted(dataset.id_str)
            for number, step in enumerate(zip(*shares, strict=True)):
                sizes = [len(batch) for batch in step]
                assert min(sizes) >= 2
                assert max(sizes) - min(sizes) <= 1
                assert sum(sizes) == data.count_galaxies(number, 1)
            assert data.count_galaxies(0, 1000) == galaxies


def test_too_few_galaxies_for_the_devices_are_refused(tmp_path):
    config = TrainConfig(log_dir=tmp_path)
    for galaxies, tested in ((5, 3), (6, 2)):
        with pytest.raises(TrainingError, match="too few for 3 devices"):
            GalaxyData(make_galaxies(galaxies), make_galaxies(tested), config, 3)


def test_processes_that_disagree_about_the_order_stop(monkeypatch):
    def gather(sums, mine):
        sums[:] = [mine, mine + other]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    order = make_galaxies(9).epoch_order
    other = 0
    assert len(list(EpochSampler(9, 0, 0, order, rank=1, processes=2))) == 4
    other = 1
    with pytest.raises(TrainingError, match="ZOOBOT_CACHE_GB"):
        list(EpochSampler(9, 0, 0, order, rank=1, processes=2))


@pytest.mark.parametrize("settings", [{"strategy": "fsdp"}, {"accumulate": 0}, {"num_nodes": 0}])
def test_settings_out_of_range_are_refused(settings, tmp_path):
    with pytest.raises(SettingError, match=f"^{next(iter(settings))} is "):
        TrainConfig(log_dir=tmp_path, **settings)


TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
SLURM = {
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_JOB_NAME": "train",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


@pytest.mark.parametrize(
    ("environment", "devices", "found"),
    [
        (TORCHRUN, 1, "torchrun started is 2"),
        (TORCHRUN, 3, "does not match the world size"),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "2"}, 1, "srun started is 2"),
        (SLURM, 2, "srun started is 1"),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "2", "SLURM_NNODES": "2"}, 2, "number of nodes"),
    ],
)
def test_other_processes_than_devices_are_refused(tmp_path, monkeypatch, environment, devices, found):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingError, match=found):
        train(tmp_path / "m", devices=devices)
    assert not (tmp_path / "m").exists()


if __name__ == "__main__":
    register_encoder("plain", Plain)
    register_encoder("normed", Normed)
    try:
        run_as_one_of_two(Path(sys.argv[1]), int(os.environ["RANK"]), sys.argv[2])
    except ZoobotError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
