"""Several models, and several views of each image, are one mixture; and the table that is easy on the eye."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SIZE, make_model

from zoobot import schemas
from zoobot.data import tables
from zoobot.data.catalog import read_catalog
from zoobot.errors import PredictionError, SettingError
from zoobot.estimators import checkpoint, define_model
from zoobot.predictions.calibration_file import save_calibration
from zoobot.predictions.catalogue import make_catalogue, make_friendly
from zoobot.predictions.drawing import predict_mixture
from zoobot.predictions.predict_on_images import PredictConfig, predict
from zoobot.predictions.sources import open_images
from zoobot.schemas import Schema
from zoobot.stats import dirichlet
from zoobot.stats.recalibration import Recalibration

ANSWERS = 5


@pytest.fixture(scope="module")
def folders(schema, tmp_path_factory):
    """Three models: two that take the same images, and one that takes smaller ones between them."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(9)
    small = define_model.get_model(schema=schema, input_size=24, crop_size=24, encoder="test_resnet")
    for name, model in {"a": make_model(schema, 1), "small": small, "b": make_model(schema, 2)}.items():
        checkpoint.save_model(model, root / name)
    return [root / "a", root / "small", root / "b"]


def concentrations(path, samples: int, kind: str = "concentration") -> np.ndarray:
    """(galaxies, samples, answers) of a table."""
    table = pd.read_parquet(path)
    suffixes = [f"_{number}" for number in range(samples)] if samples > 1 else [""]
    columns = [[name for name in table if name.endswith(f"_{kind}{suffix}")] for suffix in suffixes]
    return np.stack([table[[n for n in names if kind != "concentration" or "raw" not in n]] for names in columns], 1)


def test_an_ensemble_is_the_mixture_of_its_models_in_order(catalog, folders, schema, tmp_path):
    alone = []
    for folder in folders:
        predict(checkpoint_dir=folder, catalog=catalog, save_loc=tmp_path / f"{folder.name}.parquet", n_samples=2)
        alone.append(concentrations(tmp_path / f"{folder.name}.parquet", 2))
    predict(checkpoint_dir=folders, catalog=catalog, save_loc=tmp_path / "all.parquet", n_samples=2)
    together = concentrations(tmp_path / "all.parquet", 6)
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), rtol=1e-4)
    fractions = pd.read_parquet(tmp_path / "all.parquet")[[f"{name}_fraction" for name in schema.label_cols]]
    groups = schema.question_index_groups
    mean = np.mean([dirichlet.expected_fractions(each, groups) for each in alone], axis=0)
    np.testing.assert_allclose(fractions, mean, rtol=1e-4)


def test_an_image_that_any_model_could_not_read_has_a_fault(catalog, folders):
    models = [checkpoint.load_model(folder) for folder in folders[:2]]
    whole = read_catalog(catalog)
    broken = whole.assign(file_loc=["gone.png", *whole["file_loc"][1:]])
    for each in ([whole, broken], [broken, whole]):
        datasets = [open_images(table, model) for table, model in zip(each, models, strict=True)]
        drawn = predict_mixture(models, datasets, n_samples=1)
        assert [bool(fault) for fault in drawn.faults] == [True] + [False] * 39
        assert np.isnan(drawn.concentrations).any(axis=(1, 2)).tolist() == [True] + [False] * 39


def test_dihedral_views_are_the_eight_of_the_square_and_the_first_is_the_image_itself(schema):
    model = make_model(schema).eval()
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (1, SIZE, SIZE, 3), np.uint8))

    class OneImage:
        id_str, file_loc, label_cols, votes, image_shape = ["a"], ["a"], [], np.zeros((1, 0)), (SIZE, SIZE, 3)

        def __len__(self):
            return 1

        def __getitems__(self, places):
            from zoobot.data.datasets import Batch

            return Batch(images, torch.zeros(1, 0), ["a"], [""], np.zeros(1, int))

    found = predict_mixture([model], [OneImage()], n_samples=1, tta="dihedral").concentrations
    plain = predict_mixture([model], [OneImage()], n_samples=1).concentrations
    assert found.shape == (1, 8, ANSWERS)
    np.testing.assert_allclose(found[:, :1], plain, rtol=1e-5)
    picture = images[0].numpy()
    turned = {np.rot90(p, k).tobytes() for p in (picture, picture[:, ::-1]) for k in range(4)}
    assert len(turned) == 8
    with torch.inference_mode():
        batch = np.stack([np.frombuffer(b, np.uint8).reshape(picture.shape) for b in turned])
        expected = model.sample(torch.from_numpy(batch), 1).numpy()
    np.testing.assert_allclose(np.sort(found[0], axis=0), np.sort(expected[:, 0], axis=0), rtol=1e-4)


def test_with_all_views_a_turned_galaxy_is_predicted_the_same(catalog, folders, tmp_path):
    first = pd.read_csv(catalog)["file_loc"][0]
    picture = cv2.imread(str(catalog.parent / first))
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), picture)
    cv2.imwrite(str(tmp_path / "images" / "b.png"), np.rot90(picture).copy())
    cv2.imwrite(str(tmp_path / "images" / "c.png"), picture[:, ::-1].copy())
    where = {"checkpoint_dir": folders[0], "folder_to_predict": tmp_path / "images"}
    predict(**where, save_loc=tmp_path / "all.parquet", tta="dihedral")
    predict(**where, save_loc=tmp_path / "one.parquet")
    views = pd.read_parquet(tmp_path / "all.parquet")["shape_round_fraction"]
    assert views.max() - views.min() < 1e-5
    single = pd.read_parquet(tmp_path / "one.parquet")["shape_round_fraction"]
    assert single.max() - single.min() > 1e-5


def test_models_of_other_answers_are_not_mixed(catalog, folders, tmp_path):
    other = define_model.get_model(schema=schemas.load("gz_rings"), input_size=SIZE, encoder="test_resnet")
    checkpoint.save_model(other, tmp_path / "rings")
    with pytest.raises(SettingError, match="has 5 answers"):
        predict(checkpoint_dir=[folders[0], tmp_path / "rings"], catalog=catalog, save_loc=tmp_path / "p.csv")
    renamed = Schema.from_dict({"name": "r", "question": [{"name": "x", "answers": ["1", "2", "3", "4", "5"]}]})
    checkpoint.save_model(make_model(renamed), tmp_path / "renamed")
    with pytest.raises(SettingError, match="only models of the same"):
        predict(checkpoint_dir=[folders[0], tmp_path / "renamed"], catalog=catalog, save_loc=tmp_path / "p.csv")


@pytest.mark.parametrize("wrong", [{"tta": "mirror"}, {"asked_threshold": 2.0}, {"checkpoint_dir": []}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        PredictConfig(**{"checkpoint_dir": "m", "save_loc": "p.csv", "catalog": "c.csv", **wrong})


def test_fits_tables_count_every_sample(catalog, folders, tmp_path):
    with pytest.raises(SettingError, match="999"):
        predict(checkpoint_dir=folders, catalog=catalog, save_loc=tmp_path / "p.fits", tta="dihedral", n_samples=10)


def test_recalibration_is_for_one_model_and_the_samples_it_was_fitted_with(catalog, model_dir, folders, tmp_path):
    calibrated = tmp_path / "m"
    shutil.copytree(model_dir, calibrated)
    recalibration = Recalibration(((0, 1), (2, 4)), (0.5, 0.5), (1.0, 1.0), (0.0, 0.0))
    save_calibration(calibrated, recalibration, {"n_samples": 5, "tta": "none"})
    predict(checkpoint_dir=calibrated, catalog=catalog, save_loc=tmp_path / "p.parquet", keep_raw=True)
    table = pd.read_parquet(tmp_path / "p.parquet")
    for sample in range(5):
        raw = table[f"shape_round_raw_concentration_{sample}"]
        assert (abs(table[f"shape_round_concentration_{sample}"] / raw - 0.5) < 1e-4).all()
    for other in ({"n_samples": 1}, {"tta": "dihedral"}):
        with pytest.raises(SettingError, match="zoobot calibrate"):
            predict(checkpoint_dir=calibrated, catalog=catalog, save_loc=tmp_path / "q.parquet", **other)
    mixed = {"checkpoint_dir": [calibrated, folders[0]], "catalog": catalog, "save_loc": tmp_path / "q.parquet"}
    with pytest.raises(SettingError, match=r"--save-loc FILE.*--calibration FILE.*--no-recalibrate"):
        predict(**mixed)
    predict(**mixed, recalibrate=False)
    with pytest.raises(SettingError, match="another table"):
        PredictConfig(checkpoint_dir="m", save_loc="p.csv", catalog="c.csv", friendly_loc="p.failed.csv")


# the friendly table


def test_what_is_unlikely_to_be_asked_is_blank(schema):
    alpha = np.array([[[90.0, 10.0, 1, 2, 3]], [[20.0, 80.0, 1, 2, 3]]], np.float32)
    catalogue = make_catalogue(["a", "b"], ["a.png", "b.png"], alpha, schema)
    friendly = make_friendly(catalogue, schema)
    assert friendly["shape"].tolist() == ["round", "flat"]
    assert friendly["tilt"].isna().tolist() == [True, False]
    assert friendly["tilt"][1] == "unclear"
    assert friendly["tilt_unclear_fraction"].isna().tolist() == [True, False]
    assert friendly["shape_round_fraction"].tolist() == pytest.approx([0.9, 0.2])
    everything = make_friendly(catalogue, schema, threshold=0.0)
    assert everything["tilt"].tolist() == ["unclear", "unclear"]
    assert make_friendly(catalogue, schema, threshold=0.9)["tilt"].isna().all()


def test_the_friendly_table_is_written_beside(catalog, model_dir, tmp_path):
    for suffix in ("csv", "parquet"):
        friendly = tmp_path / f"friendly.{suffix}"
        predict(
            checkpoint_dir=model_dir,
            catalog=catalog,
            save_loc=tmp_path / "p.parquet",
            friendly_loc=friendly,
            asked_threshold=0.0,
            overwrite=True,
        )
        table = tables.read_table(friendly)
        assert len(table) == 40
        assert set(table["shape"]) <= {"round", "flat"}
    with pytest.raises(PredictionError, match="friendly"):
        predict(checkpoint_dir=model_dir, catalog=catalog, save_loc=tmp_path / "q.parquet", friendly_loc=friendly)
    for wrong in (
        {"save_loc": tmp_path / "q.csv", "friendly_loc": tmp_path / "q.csv"},
        {"save_loc": tmp_path / "q.csv", "friendly_loc": tmp_path / "q.failed.csv"},
        {"save_loc": catalog},
        {"save_loc": tmp_path / "q.csv", "friendly_loc": catalog},
    ):
        with pytest.raises(SettingError, match="another table"):
            predict(checkpoint_dir=model_dir, catalog=catalog, overwrite=True, **wrong)
