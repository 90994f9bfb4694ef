"""Training: it learns, keeps the best, stops when it should, and a resumed run equals an unbroken one."""

import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SIZE, make_model

from zoobot.data import shards
from zoobot.data.catalog import read_catalog
from zoobot.data.datasets import ImageDataset
from zoobot.errors import ModelError, SettingError, TrainingError
from zoobot.estimators import checkpoint, define_model
from zoobot.training import losses
from zoobot.training.callbacks import LAST_NAME
from zoobot.training.estimator_module import learning_rate_factor
from zoobot.training.training_config import TrainConfig, train_estimator


@pytest.fixture(scope="module")
def datasets(shard_dir):
    return shards.load_datasets(shard_dir)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)


def test_it_learns_and_saves_what_it_returns(datasets, schema, tmp_path):
    model = make_model(schema)
    config = TrainConfig(log_dir=tmp_path / "m", epochs=8, batch_size=8, learning_rate=3e-3, precision="32-true")
    trained = train_estimator(model, config, *datasets)
    history = pd.read_csv(tmp_path / "m" / "history.csv")
    assert history["epoch"].tolist() == list(range(1, 9))
    assert history["train_loss"].iloc[-1] < 0.9 * history["train_loss"].iloc[0]
    parts = history[["test_loss_shape", "test_loss_tilt"]].sum(axis=1)
    np.testing.assert_allclose(parts, history["test_loss"])
    assert_same(weights(trained), weights(checkpoint.load_model(tmp_path / "m")))
    # what is kept is the best, and the loss recorded is the loss one gets
    batch = datasets[1].__getitems__(range(len(datasets[1])))
    with torch.no_grad():
        loss = losses.get_multiquestion_loss(schema.question_index_groups)(batch.votes, trained(batch.images))
    assert loss.sum(1).mean().item() == pytest.approx(history["test_loss"].min(), rel=1e-5)
    assert (tmp_path / "m" / "learning_curve.png").stat().st_size > 1000
    assert list((tmp_path / "m" / "tensorboard").glob("events*"))
    metadata = checkpoint.load_config(tmp_path / "m")["metadata"]
    assert metadata["finished"]
    assert metadata["metrics"]["test_loss"] == pytest.approx(history["test_loss"].min())
    assert metadata["data"]["train"]["galaxies"] == 29


class BreakOffError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize(("ema_decay", "workers"), [(None, 0), (0.9, 0), (None, 1)])
def test_a_resumed_run_equals_an_unbroken_one(datasets, schema, tmp_path, monkeypatch, ema_decay, workers):
    settings = {"epochs": 4, "batch_size": 8, "ema_decay": ema_decay, "workers": workers}
    unbroken = train_estimator(make_model(schema), TrainConfig(log_dir=tmp_path / "a", **settings), *datasets)

    steps = 0
    function = losses.get_multiquestion_loss(schema.question_index_groups)

    def break_off(votes, concentrations):
        nonlocal steps
        steps += concentrations.requires_grad
        if steps == 11:  # in the third epoch
            raise BreakOffError
        return function(votes, concentrations)

    with pytest.raises(BreakOffError):
        train_estimator(make_model(schema), TrainConfig(log_dir=tmp_path / "b", **settings), *datasets, loss=break_off)
    other = make_model(schema, seed=7)  # its weights must not matter
    config = TrainConfig(log_dir=tmp_path / "b", resume=True, **settings)
    resumed = train_estimator(other, config, *datasets)
    assert_same(weights(resumed), weights(unbroken))
    histories = [pd.read_csv(tmp_path / run / "history.csv").drop(columns="minutes") for run in "ab"]
    pd.testing.assert_frame_equal(*histories)
    # once finished there is nothing left to do
    before = (tmp_path / "b" / LAST_NAME).stat().st_mtime_ns
    assert_same(weights(train_estimator(make_model(schema, seed=8), config, *datasets)), weights(unbroken))
    assert (tmp_path / "b" / LAST_NAME).stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_killed_run_resumes(shard_dir, datasets, tmp_path):
    command = [
        sys.executable,
        "-m",
        "zoobot",
        "train",
        "--shard-dir",
        str(shard_dir),
        "--encoder",
        "test_resnet",
    ]
    command += ["--epochs", "20", "--patience", "20", "--batch-size", "4", "--save-dir"]
    process = subprocess.Popen([*command, str(tmp_path / "killed")])
    while process.poll() is None and not (tmp_path / "killed" / LAST_NAME).exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was too quick to be killed"
    checkpoint.load_model(tmp_path / "killed")  # the best so far is there
    subprocess.run([*command, str(tmp_path / "killed"), "--resume"], check=True)
    subprocess.run([*command, str(tmp_path / "unbroken")], check=True)
    assert_same(*(weights(checkpoint.load_model(tmp_path / run)) for run in ("killed", "unbroken")))


def test_a_model_in_evaluation_mode_trains_all_the_same(datasets, schema, tmp_path):
    modes = set()

    def loss(votes, concentrations):
        modes.add((concentrations.requires_grad, model.training))
        return concentrations.sum(1)

    model = make_model(schema).eval()
    train_estimator(model, TrainConfig(log_dir=tmp_path / "m", epochs=1), *datasets, loss=loss)
    assert modes == {(True, True), (False, False)}
    assert not model.training


def test_a_run_resumed_after_ctrl_c_keeps_the_best_it_ever_tested(datasets, schema, tmp_path):
    tested = []

    def stop_in_the_second_epoch(votes, concentrations):
        tested.append(concentrations.requires_grad)
        if concentrations.requires_grad and tested.count(True) == 5:  # of four steps an epoch
            signal.raise_signal(signal.SIGINT)
        quality = 1.0 if tested.count(True) == 5 and not concentrations.requires_grad else 2.0
        return 0 * concentrations.sum(1) + quality

    settings = {"log_dir": tmp_path / "m", "epochs": 3, "batch_size": 8}
    train_estimator(make_model(schema), TrainConfig(**settings), *datasets, loss=stop_in_the_second_epoch)
    assert checkpoint.load_config(tmp_path / "m")["metadata"]["metrics"]["test_loss"] == 1
    train_estimator(
        make_model(schema),
        TrainConfig(**settings, resume=True),
        *datasets,
        loss=lambda votes, concentrations: 0 * concentrations.sum(1) + 1.5,
    )
    assert checkpoint.load_config(tmp_path / "m")["metadata"]["metrics"]["test_loss"] == 1
    assert pd.read_csv(tmp_path / "m" / "history.csv")["test_loss"].tolist() == [2, 1.5, 1.5]


def test_a_finished_run_is_only_the_same_run_with_the_same_settings(datasets, schema, tmp_path):
    settings = {"log_dir": tmp_path / "m", "epochs": 1, "resume": True}
    train_estimator(make_model(schema), TrainConfig(**settings), *datasets)
    with pytest.raises(TrainingError, match=r"another settings \(learning_rate\)"):
        train_estimator(make_model(schema), TrainConfig(**settings, learning_rate=0.1), *datasets)
    wider = define_model.get_model(schema=schema, input_size=SIZE, encoder="test_resnet", crop_size=32)
    with pytest.raises(TrainingError, match=r"another model \(crop_size, resize_size\)"):
        train_estimator(wider, TrainConfig(**settings), *datasets)
    (tmp_path / "m" / LAST_NAME).unlink()
    with pytest.raises(TrainingError, match="no run to go on with"):
        train_estimator(make_model(schema), TrainConfig(**{**settings, "epochs": 2}), *datasets)


def test_a_model_that_was_not_trained_here_is_not_resumed_over(datasets, schema, tmp_path):
    checkpoint.save_model(make_model(schema), tmp_path / "m")
    before = (tmp_path / "m" / "model.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="no run to go on with"):
        train_estimator(make_model(schema), TrainConfig(log_dir=tmp_path / "m", resume=True), *datasets)
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before


def test_a_torn_checkpoint_is_named(datasets, schema, tmp_path):
    settings = {"log_dir": tmp_path / "m", "batch_size": 8}
    train_estimator(make_model(schema), TrainConfig(**settings, epochs=1), *datasets)
    last = tmp_path / "m" / LAST_NAME
    last.write_bytes(last.read_bytes()[:-1000])
    with pytest.raises(TrainingError, match=r"last\.ckpt cannot be read"):
        train_estimator(make_model(schema), TrainConfig(**settings, epochs=2, resume=True), *datasets)


def test_a_test_loss_that_is_not_finite_stops_it_too(datasets, schema, tmp_path):
    def loss(votes, concentrations):
        return concentrations.sum(1) * (1.0 if concentrations.requires_grad else float("inf"))

    with pytest.raises(TrainingError, match=r"became inf .* galaxies J0\d\d\d"):
        train_estimator(make_model(schema), TrainConfig(log_dir=tmp_path / "m", epochs=1), *datasets, loss=loss)


def test_random_numbers_outside_are_left_as_they_were(datasets, schema, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    model = make_model(schema)
    torch.manual_seed(3)
    train_estimator(model, TrainConfig(log_dir=tmp_path / "m", epochs=1), *datasets)
    assert torch.equal(torch.rand(4), expected)


def test_a_run_is_not_resumed_with_other_settings_nor_overwritten_unasked(datasets, schema, tmp_path):
    settings = {"log_dir": tmp_path / "m", "epochs": 1, "batch_size": 8}
    train_estimator(make_model(schema), TrainConfig(**settings), *datasets)
    with pytest.raises(TrainingError, match="--overwrite"):
        train_estimator(make_model(schema), TrainConfig(**settings), *datasets)
    with pytest.raises(TrainingError, match=r"another settings \(batch_size\)"):
        train_estimator(
            make_model(schema),
            TrainConfig(**{**settings, "epochs": 2, "batch_size": 4}, resume=True),
            *datasets,
        )
    more = TrainConfig(**{**settings, "epochs": 2}, resume=True)
    train_estimator(make_model(schema), more, *datasets)
    assert len(pd.read_csv(tmp_path / "m" / "history.csv")) == 2
    train_estimator(make_model(schema), TrainConfig(**settings, overwrite=True), *datasets)
    assert len(pd.read_csv(tmp_path / "m" / "history.csv")) == 1


def test_it_stops_by_patience(datasets, schema, tmp_path):
    config = TrainConfig(log_dir=tmp_path / "m", epochs=50, patience=2, batch_size=29, learning_rate=1e-12)

    def loss(votes, concentrations):  # the same whatever the model does
        return (0 * concentrations).sum(1) + 1

    train_estimator(make_model(schema), config, *datasets, loss=loss)
    assert len(pd.read_csv(tmp_path / "m" / "history.csv")) == 3


def test_it_stops_by_time_with_the_learning_rate_near_zero(datasets, schema, tmp_path):
    config = TrainConfig(log_dir=tmp_path / "m", max_minutes=0.05, patience=1000, batch_size=8)
    assert config.epochs is None
    train_estimator(make_model(schema), config, *datasets)
    history = pd.read_csv(tmp_path / "m" / "history.csv")
    assert len(history) > 1
    assert history["learning_rate"].iloc[-1] < 0.3 * history["learning_rate"].max()


def test_a_dataset_smaller_than_a_batch_trains(datasets, schema, tmp_path):
    model = make_model(schema)
    before = weights(model)
    train_estimator(model, TrainConfig(log_dir=tmp_path / "m", epochs=1, batch_size=512), *datasets)
    changed = [name for name, value in weights(model).items() if not torch.equal(value, before[name])]
    assert {"head.linear.weight", "encoder.conv1.weight"} & set(changed)
    assert len(pd.read_csv(tmp_path / "m" / "history.csv")) == 1


def test_a_loss_that_is_not_finite_stops_with_the_ids_and_the_best_is_kept(datasets, schema, tmp_path):
    function = losses.get_multiquestion_loss(schema.question_index_groups)
    steps = 0

    def fail_later(votes, concentrations):
        nonlocal steps
        steps += concentrations.requires_grad
        return function(votes, concentrations) * (float("nan") if steps == 7 else 1)

    with pytest.raises(TrainingError, match=r"became nan .* galaxies J0\d\d\d"):
        train_estimator(
            make_model(schema),
            TrainConfig(log_dir=tmp_path / "m", epochs=3, batch_size=8),
            *datasets,
            loss=fail_later,
        )
    assert checkpoint.load_config(tmp_path / "m")["metadata"]["metrics"]["epoch"] == 1


def test_ctrl_c_ends_cleanly_with_the_model_saved(datasets, schema, tmp_path):
    config = TrainConfig(log_dir=tmp_path / "m", epochs=1000, patience=1000, batch_size=8)
    folder = tmp_path / "m"
    before = signal.getsignal(signal.SIGINT)  # a job in the background ignores it

    def press():
        while not (folder / LAST_NAME).exists():
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    train_estimator(make_model(schema), config, *datasets)
    presser.join()
    assert 0 < len(pd.read_csv(folder / "history.csv")) < 1000
    assert checkpoint.load_config(folder)["metadata"]["finished"] is False
    assert signal.getsignal(signal.SIGINT) is before


def test_training_works_straight_from_images_and_without_a_schema(catalog, schema, tmp_path):
    table = read_catalog(catalog, schema.label_cols)
    dataset = ImageDataset(table, size=SIZE, channels=1, label_cols=schema.label_cols)
    model = define_model.get_model(output_dim=5, input_size=SIZE, channels=1, encoder="test_resnet")
    config = TrainConfig(log_dir=tmp_path / "m", epochs=1, batch_size=16)
    with pytest.raises(TrainingError, match="no schema"):
        train_estimator(model, config, dataset, dataset)
    loss = losses.get_multiquestion_loss(schema.question_index_groups)
    train_estimator(model, config, dataset, dataset, loss=loss)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["schema"] is None


def test_data_that_do_not_fit_the_model_are_refused(datasets, schema, tmp_path):
    small = define_model.get_model(schema=schema, input_size=16, encoder="test_resnet")
    with pytest.raises(TrainingError, match=r"images of 32×32×3, the model takes 16×16×3"):
        train_estimator(small, TrainConfig(log_dir=tmp_path / "m"), *datasets)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"learning_rate": float("nan")},
        {"batch_size": -1},
        {"precision": "8"},
        {"ema_decay": 1.0},
        {"resume": True, "overwrite": True},
    ],
)
def test_settings_out_of_range_are_refused(settings, tmp_path):
    with pytest.raises(SettingError, match=next(iter(settings))):
        TrainConfig(log_dir=tmp_path, **settings)


def test_the_learning_rate_rises_then_falls():
    factors = np.array([learning_rate_factor(progress) for progress in np.linspace(0, 1, 1001)])
    assert factors[0] == 0
    assert factors[-1] == pytest.approx(0, abs=1e-6)
    assert factors.max() == pytest.approx(1)
    top = factors.argmax()
    assert (np.diff(factors[: top + 1]) > 0).all()
    assert (np.diff(factors[top:]) < 0).all()


def test_an_encoder_that_cannot_take_so_small_an_image_says_so(schema):
    with pytest.raises(ModelError, match="encoder inception_v3 cannot take images of 24 pixels"):
        define_model.get_model(schema=schema, input_size=32, encoder="inception_v3")


@pytest.mark.slow
def test_two_devices_train_and_end_together(shard_dir, tmp_path):
    command = [sys.executable, "-m", "zoobot", "train", "--shard-dir", str(shard_dir), "--encoder", "test_resnet"]
    command += ["--epochs", "2", "--batch-size", "8", "--accelerator", "cpu", "--devices", "2"]
    subprocess.run([*command, "--save-dir", str(tmp_path / "m")], check=True, timeout=120)
    assert checkpoint.load_config(tmp_path / "m")["metadata"]["finished"]
