"""Calibrating models and mixtures: what is written, that it is bound to the weights, that stale ones are refused."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from conftest import make_model, make_survey
from typer.testing import CliRunner

from zoobot.cli import calibrate as command
from zoobot.cli import predict as predict_command
from zoobot.errors import ModelError, PredictionError, SettingError
from zoobot.estimators import checkpoint, define_model
from zoobot.predictions.calibrate import calibrate
from zoobot.predictions.calibration_file import load_calibration, save_calibration
from zoobot.predictions.predict_on_images import predict
from zoobot.stats.calibration import measure_calibration
from zoobot.stats.recalibration import Recalibration, cross_recalibrate, fit_recalibration


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
    with pytest.raises(SettingError, match="tta is 'mirror'"):
        calibrate(folder, catalog=new_galaxies, tta="mirror")
    with pytest.raises(SettingError, match="checkpoint_dir is empty"):
        calibrate([], catalog=new_galaxies)
    with pytest.raises(ModelError, match="does not exist"):
        calibrate(folder / "none", catalog=new_galaxies)


# mixtures of models


@pytest.fixture(scope="module")
def models(schema, tmp_path_factory):
    """Three models, the last of which takes smaller images."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(3)
    small = define_model.get_model(schema=schema, input_size=24, crop_size=24, encoder="test_resnet")
    for name, model in {"a": make_model(schema, 1), "b": make_model(schema, 2), "small": small}.items():
        checkpoint.save_model(model, root / name)
    return [root / "a", root / "b", root / "small"]


@pytest.fixture(scope="module")
def mixture(models, new_galaxies, tmp_path_factory):
    """Of the first and the last."""
    save_loc = tmp_path_factory.mktemp("mixture") / "new" / "ab.calibration.json"
    return calibrate([models[0], models[2]], catalog=new_galaxies, save_loc=save_loc, n_samples=2)


def read_concentrations_of(path, schema, kind, samples):
    table = pd.read_parquet(path)
    columns = [[f"{answer}_{kind}_{sample}" for answer in schema.label_cols] for sample in range(samples)]
    return np.stack([table[names] for names in columns], axis=1)


def test_a_mixture_has_one_recalibration_fitted_to_all_its_samples_and_measured_on_the_other_half(
    mixture, models, new_galaxies, schema, tmp_path
):
    path = tmp_path / "p.parquet"
    predict(checkpoint_dir=[models[0], models[2]], catalog=new_galaxies, save_loc=path, n_samples=2)
    samples = read_concentrations_of(path, schema, "concentration", 4)
    votes = pd.read_csv(new_galaxies)[schema.label_cols]
    groups = schema.question_index_groups
    expected = fit_recalibration(votes, samples, groups)
    for name in ("scales", "exponents", "offsets"):
        np.testing.assert_allclose(getattr(mixture.recalibration, name), getattr(expected, name), rtol=0.01, atol=0.01)
    _, halved = measure_calibration(votes, cross_recalibrate(votes, samples, groups), groups)
    assert mixture.all_after.loss.value == pytest.approx(halved.loss.value, rel=1e-4)
    assert mixture.all_after.loss.value < mixture.all_before.loss.value
    assert not any((folder / checkpoint.CALIBRATION_NAME).exists() for folder in models)


def test_it_is_applied_to_the_mixture_whatever_the_order(mixture, models, catalog, schema, tmp_path):
    path = tmp_path / "p.parquet"
    settings = {"catalog": catalog, "save_loc": path, "calibration": mixture.path, "n_samples": 2, "keep_raw": True}
    for folders in ([models[0], models[2]], [models[2], models[0]]):
        predict(checkpoint_dir=folders, **settings, overwrite=True)
        raw = read_concentrations_of(path, schema, "raw_concentration", 4)
        found = read_concentrations_of(path, schema, "concentration", 4)
        np.testing.assert_allclose(found, mixture.recalibration.apply(raw), rtol=1e-5)
        assert (abs(found / raw - 1) > 0.01).any()


def test_it_is_for_these_weights_samples_and_views(mixture, models, catalog, tmp_path):
    settings = {"catalog": catalog, "save_loc": tmp_path / "p.parquet", "calibration": mixture.path, "n_samples": 2}
    pair = [models[0], models[2]]
    for folders in (models[:2], models, models[0], [*pair, models[0]]):
        with pytest.raises(ModelError, match=r"other weights \(2 models\).*without --calibration"):
            predict(checkpoint_dir=folders, **settings)
    for other in ({"n_samples": 4}, {"tta": "dihedral"}):
        with pytest.raises(SettingError, match=r"was fitted with.*without --calibration"):
            predict(checkpoint_dir=pair, **{**settings, **other})
    with pytest.raises(SettingError, match="exclude each other"):
        predict(checkpoint_dir=pair, **settings, recalibrate=False)
    with pytest.raises(ModelError, match="no such file"):
        predict(checkpoint_dir=pair, **{**settings, "calibration": tmp_path / "none.json"})
    assert not (tmp_path / "p.parquet").exists()


def test_a_chosen_file_goes_before_that_in_the_folder(folder, recalibration, new_galaxies, tmp_path):
    own = save_calibration(folder, recalibration, {})
    before = own.read_bytes()
    found = calibrate(folder, catalog=new_galaxies, save_loc=tmp_path / "other.json")
    assert own.read_bytes() == before
    assert load_calibration(folder) == recalibration
    assert load_calibration([folder], tmp_path / "other.json") == found.recalibration != recalibration
    assert load_calibration(folder, own) == recalibration


def test_where_a_recalibration_may_go(models, folder, new_galaxies, tmp_path):
    with pytest.raises(SettingError, match=r"--save-loc.* mixture of 2 models"):
        calibrate(models[:2], catalog=new_galaxies)
    with pytest.raises(SettingError, match=r"written as \.json"):
        calibrate(folder, catalog=new_galaxies, save_loc=tmp_path / "c.txt")
    before = (folder / "config.json").read_bytes()
    with pytest.raises(SettingError, match=r"config\.json exists"):
        calibrate(folder, catalog=new_galaxies, save_loc=folder / "config.json")
    with pytest.raises(PredictionError, match="cannot be written"):
        calibrate(folder, catalog=new_galaxies, save_loc=folder / "config.json" / "c.json")
    assert (folder / "config.json").read_bytes() == before


def test_no_model_of_a_mixture_may_know_the_votes(folder, models, shard_dir, tmp_path):
    with pytest.raises(SettingError, match="trained on just these 29"):
        calibrate([models[0], folder], shard_dir=shard_dir, split="train", save_loc=tmp_path / "c.json")


def test_the_commands_calibrate_and_predict_a_mixture(models, new_galaxies, catalog, tmp_path):
    app = typer.Typer()
    app.command("calibrate")(command.calibrate)
    app.command("predict")(predict_command.predict)
    folders = ["--checkpoint-dir", models[0], "--checkpoint-dir", models[1]]
    table, save_loc = tmp_path / "p.csv", tmp_path / "ab.json"
    for words in (
        ["calibrate", *folders, "--catalog", new_galaxies, "--save-loc", save_loc],
        ["predict", *folders, "--catalog", catalog, "--calibration", save_loc, "--save-loc", table, "--uncertainty"],
    ):
        result = CliRunner().invoke(app, list(map(str, words)))
        assert result.exit_code == 0, result.output
        assert words[0] == "predict" or f"--calibration {save_loc}" in result.output.replace("\n", "")
    assert "tilt_between_samples" in pd.read_csv(table)


def test_the_command_prints_before_and_after(folder, new_galaxies):
    app = typer.Typer()
    app.command()(command.calibrate)
    result = CliRunner().invoke(app, ["--checkpoint-dir", str(folder), "--catalog", str(new_galaxies)])
    assert result.exit_code == 0, result.output
    for text in ("shape", "tilt", "all questions", "in 90%", checkpoint.CALIBRATION_NAME):
        assert text in result.output
    assert np.isfinite(load_calibration(folder).scales).all()
