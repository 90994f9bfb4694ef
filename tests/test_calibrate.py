"""Calibrating a model folder: what is written, that it is bound to the weights, and that stale ones are refused."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import typer
from conftest import make_model, make_survey
from typer.testing import CliRunner

from zoobot.cli import calibrate as command
from zoobot.errors import ModelError, PredictionError, SettingError
from zoobot.estimators import checkpoint
from zoobot.predictions.calibrate import calibrate
from zoobot.predictions.calibration_file import load_calibration, save_calibration
from zoobot.stats.recalibration import Recalibration


@pytest.fixture(scope="module")
def new_galaxies(tmp_path_factory):
    return make_survey(tmp_path_factory.mktemp("new"), galaxies=60)


@pytest.fixture
def folder(model_dir, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(model_dir / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def recalibration(schema):
    return Recalibration(tuple(schema.question_index_groups), (0.5, 2.0), (1.0, 0.5), (0.0, 1.0))


def test_from_a_catalog_it_writes_what_it_gives(folder, new_galaxies, schema):
    assert load_calibration(folder) is None
    found = calibrate(folder, catalog=new_galaxies)
    assert found.path == folder / checkpoint.CALIBRATION_NAME
    assert load_calibration(folder) == found.recalibration
    content = json.loads(found.path.read_text())
    assert content["label_cols"] == schema.label_cols
    assert content["n_samples"] == 5
    assert content["galaxies"] == found.all_before.galaxies == 60
    assert list(content["measured"]) == [*schema.question_names, "all questions"]
    assert content["measured"]["shape"]["after"]["coverage_90"][0] == found.after[0].coverages[1].value
    assert not list(folder.glob(".tmp-*"))


def test_an_untrained_model_gains(folder, new_galaxies):
    found = calibrate(folder, catalog=new_galaxies)
    assert found.recalibration.scales != (1.0, 1.0)
    assert found.all_after.loss.value < found.all_before.loss.value


def test_from_shards_only_galaxies_that_are_not_the_models_own(folder, shard_dir):
    found = calibrate(folder, shard_dir=shard_dir)
    assert found.all_before.galaxies == 11
    assert load_calibration(folder).scales == (1.0, 1.0)  # of too few galaxies nothing is learnt
    with pytest.raises(SettingError, match="trained on just these 29"):
        calibrate(folder, shard_dir=shard_dir, split="train")
    with pytest.raises(SettingError, match="needs votes"):
        calibrate(folder, shard_dir=shard_dir, split="unlabelled")


def test_images_that_cannot_be_read_do_not_count(folder, new_galaxies, tmp_path):
    table = pd.read_csv(new_galaxies, dtype={"id_str": str})
    table.loc[:4, "file_loc"] = "gone.png"
    table.to_csv(tmp_path / "c.csv", index=False)
    assert calibrate(folder, catalog=tmp_path / "c.csv", image_root=new_galaxies.parent).all_before.galaxies == 55
    table.assign(file_loc="gone.png").to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(PredictionError, match="not one of 60"):
        calibrate(folder, catalog=tmp_path / "c.csv")


def test_a_model_that_was_trained_since_has_none(folder, recalibration, schema):
    save_calibration(folder, recalibration, {})
    assert load_calibration(folder) == recalibration
    checkpoint.save_model(make_model(schema, seed=7), folder)
    with pytest.raises(ModelError, match=r"other weights.*zoobot calibrate"):
        load_calibration(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"recalibration": None}, "got NoneType"),
        ({"recalibration": {}}, "recalibration: got"),
        ({"recalibration": Recalibration(((0, 1),), (1.0,), (1.0,), (0.0,)).to_dict()}, "is for 2 answers"),
    ],
)
def test_strangers_files_are_checked(folder, recalibration, change, message):
    path = save_calibration(folder, recalibration, {})
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=message) as caught:
        load_calibration(folder)
    assert "zoobot calibrate" in str(caught.value).replace("Run", "run")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"format": 1}', "[" * 100_000, "\udcff"])
def test_torn_files_are_told(folder, text):
    (folder / checkpoint.CALIBRATION_NAME).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelError, match="no-recalibrate"):
        load_calibration(folder)


def test_bad_settings(folder, new_galaxies, shard_dir):
    with pytest.raises(SettingError, match="just one of"):
        calibrate(folder)
    with pytest.raises(SettingError, match="just one of"):
        calibrate(folder, catalog=new_galaxies, shard_dir=shard_dir)
    with pytest.raises(SettingError, match="n_samples"):
        calibrate(folder, catalog=new_galaxies, n_samples=0)
    with pytest.raises(ModelError, match="does not exist"):
        calibrate(folder / "none", catalog=new_galaxies)


def test_the_command_prints_before_and_after(folder, new_galaxies):
    app = typer.Typer()
    app.command()(command.calibrate)
    result = CliRunner().invoke(app, ["--checkpoint-dir", str(folder), "--catalog", str(new_galaxies)])
    assert result.exit_code == 0, result.output
    for text in ("shape", "tilt", "all questions", "in 90%", checkpoint.CALIBRATION_NAME):
        assert text in result.output
    assert np.isfinite(load_calibration(folder).scales).all()
