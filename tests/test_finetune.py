"""Finetuning: every task learns, what is frozen stays, and cross-validation judges what it has not seen."""

import json
import shutil
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from zoobot.cli.main import app
from zoobot.errors import CatalogError, ImageError, ModelError, PredictionError, SettingError, TrainingError
from zoobot.estimators import checkpoint, define_model
from zoobot.predictions.evaluate import match_votes
from zoobot.predictions.predict_on_images import predict
from zoobot.training.callbacks import KeepBest
from zoobot.training.cross_validation import choose_labels, cross_validate
from zoobot.training.finetune import FinetuneConfig, Learner, finetune
from zoobot.training.labels import assign_folds


@pytest.fixture(scope="module")
def labelled(catalog, tmp_path_factory):
    """The survey with a class, a number, and a gap."""
    table = pd.read_csv(catalog)
    table["file_loc"] = [str(catalog.parent / name) for name in table["file_loc"]]
    flat = table["shape_flat"] / (table["shape_flat"] + table["shape_round"])
    table["kind"] = np.where(flat > flat.median(), "flat", "round")
    table["flattening"] = flat
    table["few"] = table["kind"].where(table.index >= 4)
    path = tmp_path_factory.mktemp("labelled") / "labels.csv"
    table.to_csv(path, index=False)
    return path


def make_config(labelled, model_dir, **settings):
    return FinetuneConfig(**{"catalog": labelled, "weights": model_dir, "targets": ["kind"], "seed": 1, **settings})


@pytest.mark.parametrize("layers", [0, 2, None])
def test_classes_are_learnt_with_any_number_of_layers(labelled, model_dir, tmp_path, layers):
    done = finetune(make_config(labelled, model_dir, layers=layers, epochs=4), tmp_path / "m")
    assert (done.trained, done.held_back) == (32, 8)
    assert done.scores["auc"] > 0.8  # ellipses are easy
    before = checkpoint.load_model(model_dir).encoder.state_dict()
    after = checkpoint.load_model(tmp_path / "m").encoder.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    expected = {0: set(), 2: {"layer3", "layer4"}}
    assert moved == expected.get(layers, moved)
    assert (layers is None) == ("conv1" in moved)
    statistics = [name for name in before if "running" in name]
    assert statistics
    assert all(torch.equal(before[name], after[name]) for name in statistics)  # frozen by default
    about = checkpoint.load_config(tmp_path / "m")["metadata"]["finetuning"]
    assert about["scores"] == pytest.approx(done.scores)


def test_a_finetuned_classifier_predicts_the_same_chances_from_its_folder_alone(labelled, model_dir, tmp_path):
    config = make_config(labelled, model_dir, layers=0)
    finetune(config, tmp_path / "m")
    predict(checkpoint_dir=tmp_path / "m", catalog=labelled, save_loc=tmp_path / "p.csv", n_samples=1, tta="dihedral")
    table = pd.read_csv(tmp_path / "p.csv")
    learner = Learner(config)
    expected = learner.predict(checkpoint.load_model(tmp_path / "m"), np.arange(40))
    np.testing.assert_allclose(table[["kind_flat_probability", "kind_round_probability"]], expected, atol=1e-5)
    leading = np.where(expected[:, 0] > expected[:, 1], "flat", "round")
    assert table["kind"].tolist() == leading.tolist()
    assert not [name for name in table if "fraction" in name or "concentration" in name]


def test_numbers_are_learnt_in_their_own_units(labelled, model_dir, tmp_path):
    table = pd.read_csv(labelled)
    table["flattening"] = 1000 + 50 * table["flattening"]
    table.to_csv(tmp_path / "scaled.csv", index=False)
    config = make_config(tmp_path / "scaled.csv", model_dir, targets=["flattening"], layers=0)
    done = finetune(config, tmp_path / "m")
    assert done.scores["r2"] > 0.5
    predict(checkpoint_dir=tmp_path / "m", catalog=tmp_path / "scaled.csv", save_loc=tmp_path / "p.parquet")
    predicted = pd.read_parquet(tmp_path / "p.parquet")
    assert np.corrcoef(predicted["flattening"], table["flattening"])[0, 1] > 0.7
    assert 990 < predicted["flattening"].mean() < 1060


def test_votes_of_another_tree_are_learnt(labelled, model_dir, schema, tmp_path):
    done = finetune(make_config(labelled, model_dir, targets=(), schema=schema, layers=0), tmp_path / "m")
    untrained = Learner(make_config(labelled, None, targets=(), schema=schema, encoder="test_resnet"))
    rows = np.arange(40)
    blank = np.full((40, len(schema.label_cols)), 3.0, np.float32)
    assert done.scores["loss"] < untrained.score(rows, blank)["loss"]
    predict(checkpoint_dir=tmp_path / "m", catalog=labelled, save_loc=tmp_path / "p.csv")
    assert f"{schema.label_cols[0]}_fraction_lower" in pd.read_csv(tmp_path / "p.csv")


def test_learning_from_scratch_needs_no_weights(labelled, tmp_path):
    config = make_config(labelled, None, encoder="test_resnet", epochs=1, image_size=32, label_smoothing=0.1)
    done = finetune(config, tmp_path / "m")
    assert 0 <= done.scores["accuracy"] <= 1
    with pytest.raises(SettingError, match="from scratch"):
        make_config(labelled, None, layers=0)


def test_galaxies_without_a_label_are_counted(labelled, model_dir, tmp_path):
    done = finetune(make_config(labelled, model_dir, targets=["few"], layers=0), tmp_path / "m")
    assert done.labels.unlabelled == 4
    assert done.trained + done.held_back == 36


def test_the_same_seed_gives_the_same_model(labelled, model_dir, tmp_path):
    config = make_config(labelled, model_dir, layers=1, epochs=2)
    sums = []
    for name in ("a", "b"):
        finetune(config, tmp_path / name)
        sums.append(checkpoint.load_config(tmp_path / name)["weights_sha256"])
    assert sums[0] == sums[1]


def test_a_taken_folder_is_kept(labelled, model_dir, tmp_path):
    config = make_config(labelled, model_dir, layers=0)
    finetune(config, tmp_path / "m")
    with pytest.raises(TrainingError, match="--overwrite"):
        finetune(config, tmp_path / "m")
    finetune(config, tmp_path / "m", overwrite=True)


def test_a_model_is_not_lost_to_a_command_that_cannot_be_done(labelled, model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "m")
    before = (tmp_path / "m" / "model.safetensors").read_bytes()
    with pytest.raises(SettingError, match="weights are to start from"):
        finetune(make_config(labelled, tmp_path / "m", layers=0), tmp_path / "m", overwrite=True)
    with pytest.raises(CatalogError):
        finetune(make_config(labelled, model_dir, targets=["no such"]), tmp_path / "m", overwrite=True)
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before


def test_images_that_cannot_be_read_are_all_named(labelled, model_dir, tmp_path):
    table = pd.read_csv(labelled)
    for row in (2, 5):
        broken = tmp_path / f"broken{row}.png"
        broken.write_bytes(b"\x89PNG no image")
        table.loc[row, "file_loc"] = str(broken)
    table.to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(ImageError, match=r"broken2.*\n.*broken5"):
        finetune(make_config(tmp_path / "c.csv", model_dir), tmp_path / "m")


def test_cross_validation_judges_every_galaxy_once(labelled, model_dir, tmp_path):
    config = make_config(labelled, model_dir, layers=0)
    found = cross_validate(config, tmp_path / "cv", folds=4, label_counts=[8, 16])
    assert found.scores["labels"].tolist() == [8, 16, 30] * 4
    assert found.scores.groupby("labels")["galaxies"].sum().tolist() == [40] * 3
    said = found.predictions
    assert said["kind_flat_probability"].between(0, 1).all()
    assert ((said["kind_flat_probability"] > 0.5) == (said["kind_predicted"] == "flat")).all()
    truth = pd.read_csv(labelled, dtype={"id_str": str}).set_index("id_str")["kind"]
    assert (said["kind"].to_numpy() == truth[said["id_str"]].to_numpy()).all()
    summary = found.summary()
    assert summary["auc"].iloc[-1] > 0.8
    of_all = found.scores[found.scores["labels"] == 30]["auc"]
    assert summary["auc_error"].iloc[-1] == pytest.approx(of_all.std() / 2)
    assert (tmp_path / "cv" / "scores.png").stat().st_size > 5000
    with pytest.raises(TrainingError, match="--overwrite"):
        cross_validate(config, tmp_path / "cv", folds=4)


def test_galaxies_that_are_judged_were_not_learnt_from(labelled, model_dir, tmp_path):
    """With labels drawn by lot, a judge who had seen them would find an area above a half."""
    table = pd.read_csv(labelled)
    table["kind"] = np.random.default_rng(5).permutation(table["kind"])
    table.to_csv(tmp_path / "c.csv", index=False)
    found = cross_validate(make_config(tmp_path / "c.csv", model_dir, layers=0), tmp_path / "cv", folds=4)
    assert found.summary()["auc"].iloc[-1] < 0.8


def test_a_judge_has_neither_learnt_from_a_galaxy_nor_stopped_by_it(labelled, model_dir, tmp_path, monkeypatch):
    seen, judged = [], []
    train, predict_ = Learner.train, Learner.predict

    def watch_training(self, learnt_from, stopped_by, folder, **settings):
        assert not set(learnt_from) & set(stopped_by)
        assert len(stopped_by)
        seen.append({*learnt_from, *stopped_by})
        return train(self, learnt_from, stopped_by, folder, **settings)

    def watch_judging(self, model, galaxies):
        judged.append(set(galaxies))
        return predict_(self, model, galaxies)

    monkeypatch.setattr(Learner, "train", watch_training)
    monkeypatch.setattr(Learner, "predict", watch_judging)
    cross_validate(make_config(labelled, model_dir, layers=1, epochs=1), tmp_path / "cv", folds=2, label_counts=[8])
    assert [len(each) for each in seen] == [8, 20, 8, 20]
    assert all(not one & other for one, other in zip(seen, judged, strict=True))
    assert judged[1] | judged[3] == set(range(40))


def test_other_files_are_not_overwritten_by_cross_validation(labelled, model_dir, tmp_path):
    (tmp_path / "predictions.csv").write_text("precious")
    with pytest.raises(TrainingError, match=r"predictions\.csv"):
        cross_validate(make_config(labelled, model_dir, layers=0), tmp_path, folds=4)


def test_fewer_labels_are_part_of_more_and_keep_the_shares(labelled, model_dir):
    labels = Learner(make_config(labelled, model_dir)).labels
    galaxies = np.arange(10, 40)
    chosen = [set(choose_labels(labels, galaxies, count)) for count in (6, 12, 30)]
    assert chosen[0] < chosen[1] < chosen[2]
    share = labels.values[galaxies].mean(axis=0)
    few = labels.values[galaxies][sorted(chosen[1])].mean(axis=0)
    np.testing.assert_allclose(few, share, atol=0.1)


def test_too_many_folds_or_labels_are_refused(labelled, model_dir, tmp_path):
    config = make_config(labelled, model_dir, layers=0)
    with pytest.raises(SettingError, match="from 4 to 32"):
        cross_validate(config, tmp_path / "cv", label_counts=[33])
    with pytest.raises(SettingError, match="folds"):
        cross_validate(config, tmp_path / "cv", folds=41)
    assert not (tmp_path / "cv").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"layers": -1},
        {"layer_decay": 1.5},
        {"layer_decay": 0},
        {"label_smoothing": 1.0},
        {"epochs": 0},
        {"targets": "kind"},
    ],
)
def test_settings_out_of_range_are_refused(labelled, model_dir, settings):
    with pytest.raises(SettingError):
        make_config(labelled, model_dir, **settings)


def test_the_commands(labelled, model_dir, tmp_path):
    same = ["--catalog", str(labelled), "--target", "kind", "--weights", str(model_dir), "--layers", "head"]
    done = CliRunner().invoke(app, ["finetune", *same, "--save-dir", str(tmp_path / "m")], catch_exceptions=False)
    assert "learnt classification of kind: flat, round" in done.output
    judging = ["cross-validate", *same, "--folds", "3", "--label-counts", "8", "--save-dir", str(tmp_path / "cv")]
    judged = CliRunner().invoke(app, judging, catch_exceptions=False)
    assert "auc" in judged.output


def test_bad_options_of_the_commands(labelled, tmp_path):
    base = ["finetune", "--catalog", str(labelled), "--save-dir", str(tmp_path / "m"), "--target", "kind"]
    cases = ((["--layers", "top"], "--layers"), (["--layers", "9" * 5000], "--layers"), (["--schema", "gz2"], "either"))
    for extra, complaint in cases:
        result = CliRunner().invoke(app, [*base, *extra])
        assert isinstance(result.exception, (SettingError, CatalogError))
        assert complaint in str(result.exception)


def test_numbers_may_all_be_zero_where_they_are_judged(labelled, model_dir, tmp_path):
    """Zeros are no lack of votes."""
    config = make_config(labelled, model_dir, targets=["flattening"], layers=1, epochs=1)
    table = pd.read_csv(labelled)
    table.loc[assign_folds(Learner(config).labels, 5, config.seed) == 0, "flattening"] = 0.0
    table.to_csv(tmp_path / "c.csv", index=False)
    done = finetune(replace(config, catalog=tmp_path / "c.csv"), tmp_path / "m")
    assert np.isnan(done.scores["r2"])
    assert not (tmp_path / "m" / "last.ckpt").exists()  # nothing goes on from there


def test_an_interrupted_cross_validation_has_no_scores(labelled, model_dir, tmp_path, monkeypatch):
    """Ctrl-C ends a training early, and keeps its model; as a fold it must not count."""
    record = KeepBest._record

    def press(self, *arguments):
        record(self, *arguments)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(KeepBest, "_record", press)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(make_config(labelled, model_dir, layers=1, epochs=4), tmp_path / "cv", folds=2)
    assert not list((tmp_path / "cv").iterdir())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"input_size": "64", "crop_size": None}, "input_size"),
        ({"fits": [1]}, "fits"),
        ({"fits": {"layout": 3}}, "fits"),
        ({"mean": "x"}, "mean"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_damaged_config_of_the_weights_is_told(labelled, model_dir, tmp_path, change, complaint):
    shutil.copytree(model_dir, tmp_path / "m")
    config = checkpoint.load_config(model_dir)
    config["model"] |= change
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    with pytest.raises((ModelError, SettingError), match=complaint):
        finetune(make_config(labelled, tmp_path / "m", layers=0), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("work", [finetune, cross_validate])
def test_a_folder_that_cannot_be_written_is_found_before_the_work(labelled, model_dir, tmp_path, monkeypatch, work):
    def train(*arguments, **others):
        pytest.fail("it was trained first")

    monkeypatch.setattr(Learner, "train", train)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        work(make_config(labelled, model_dir, layers=0), tmp_path / "file" / "m")


def test_predictions_of_classes_are_not_scored_as_votes(labelled, tmp_path):
    (tmp_path / "p.csv").write_text("id_str,kind,kind_flat_probability\nJ0001,flat,0.9\n")
    with pytest.raises(PredictionError, match="no fractions of votes"):
        match_votes(tmp_path / "p.csv", labelled)


@pytest.mark.parametrize(("head", "named"), [("softmax", "none"), ("softmax", "tree"), ("linear", "tree")])
def test_outputs_without_names_are_not_predicted(catalog, schema, tmp_path, head, named):
    settings = {"schema": schema} if named == "tree" else {"output_dim": 2}
    model = define_model.get_model(input_size=32, encoder="test_resnet", head=head, **settings)
    checkpoint.save_model(model, tmp_path / "m")
    with pytest.raises(SettingError, match="does not say what it predicts"):
        predict(checkpoint_dir=tmp_path / "m", catalog=catalog, save_loc=tmp_path / "p.csv")
