"""Prediction and evaluation: rows in order, posteriors honest, bad images listed, scores as by hand."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from zoobot import schemas
from zoobot.data import images, tables, tfrecord
from zoobot.data.catalog import read_catalog
from zoobot.data.datasets import ImageDataset
from zoobot.errors import ModelError, PredictionError, SettingError, ZoobotError
from zoobot.estimators import checkpoint, define_model
from zoobot.predictions.evaluate import evaluate
from zoobot.predictions.predict_on_images import PredictConfig, failed_path, predict


@pytest.fixture(scope="module")
def predictions(catalog, model_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("predictions") / "p.parquet"
    predict(checkpoint_dir=model_dir, catalog=catalog, save_loc=path)
    return path


def test_the_table_holds_what_the_model_says_in_the_order_of_the_input(catalog, model_dir, predictions, schema):
    table = pd.read_parquet(predictions)
    galaxies = read_catalog(catalog)
    assert table["id_str"].tolist() == galaxies["id_str"].tolist()
    assert table["file_loc"].tolist() == galaxies["file_loc"].tolist()
    model = checkpoint.load_model(model_dir)
    dataset = ImageDataset(galaxies, size=model.config.input_size)
    with torch.inference_mode():
        expected = model.sample(dataset.__getitems__(range(len(dataset))).images, 5).numpy()
    for sample in range(5):
        columns = [f"{answer}_concentration_{sample}" for answer in schema.label_cols]
        np.testing.assert_allclose(table[columns], expected[:, sample], rtol=1e-4)
    shape = expected[:, :, :2].astype(float)
    fraction = (shape / shape.sum(-1, keepdims=True)).mean(1)
    np.testing.assert_allclose(table[["shape_round_fraction", "shape_flat_fraction"]], fraction, rtol=1e-4)
    # volunteers are asked the second question after the answer "flat" to the first
    np.testing.assert_allclose(table["tilt_proportion_asked"], fraction[:, 1], rtol=1e-4)
    np.testing.assert_allclose(table["shape_proportion_asked"], 1)


def test_the_interval_holds_nine_tenths_of_the_mixture(predictions):
    row = pd.read_parquet(predictions).iloc[0]
    alpha = np.array([[row[f"shape_{a}_concentration_{s}"] for a in ("round", "flat")] for s in range(5)])
    for edge, mass in (("lower", 0.05), ("upper", 0.95)):
        reached = stats.beta(alpha[:, 0], alpha[:, 1]).cdf(row[f"shape_round_fraction_{edge}"]).mean()
        assert reached == pytest.approx(mass, abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_nothing_depends_on_the_batch_size(catalog, model_dir, predictions, tmp_path, batch_size):
    predict(checkpoint_dir=model_dir, catalog=catalog, save_loc=tmp_path / "p.parquet", batch_size=batch_size)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "p.parquet"), pd.read_parquet(predictions), rtol=1e-3)


@pytest.mark.parametrize("suffix", ["csv", "fits"])
def test_other_formats_hold_the_same(catalog, model_dir, predictions, tmp_path, suffix):
    path = tmp_path / f"p.{suffix}"
    predict(checkpoint_dir=model_dir, catalog=catalog, save_loc=path)
    pd.testing.assert_frame_equal(
        tables.read_table(path),
        pd.read_parquet(predictions),
        check_dtype=False,
        rtol=1e-4,
        check_column_type=False,
    )


def test_folders_and_shards_give_the_same_as_the_catalog(catalog, model_dir, shard_dir, predictions, tmp_path):
    reference = pd.read_parquet(predictions).set_index("id_str")
    predict(
        checkpoint_dir=model_dir,
        folder_to_predict=catalog.parent,
        recursive=True,
        save_loc=tmp_path / "f.parquet",
    )
    found = pd.read_parquet(tmp_path / "f.parquet")
    assert found["id_str"].tolist() == sorted(f"images/{name}" for name in reference.index)
    predict(
        checkpoint_dir=model_dir,
        shard_dir=shard_dir,
        split="unlabelled",
        workers=1,
        save_loc=tmp_path / "s.parquet",
    )
    for name, table in {"s": None, "f": None}.items():
        table = pd.read_parquet(tmp_path / f"{name}.parquet")
        table.index = table["id_str"].str.removeprefix("images/")
        columns = [column for column in reference.columns if column != "file_loc"]
        np.testing.assert_allclose(table[columns], reference.loc[table.index, columns], rtol=1e-3)


def test_one_sample_is_the_whole_network(catalog, model_dir, schema, tmp_path):
    predict(checkpoint_dir=model_dir, catalog=catalog, save_loc=tmp_path / "p.parquet", n_samples=1)
    table = pd.read_parquet(tmp_path / "p.parquet")
    model = checkpoint.load_model(model_dir)
    dataset = ImageDataset(read_catalog(catalog), size=model.config.input_size)
    with torch.inference_mode():
        expected = model(dataset.__getitems__(range(len(dataset))).images)
    np.testing.assert_allclose(table[[f"{a}_concentration" for a in schema.label_cols]], expected, rtol=1e-4)


def test_the_guides_call_works_and_its_sizes_are_checked(catalog, model_dir, schema, tmp_path):
    settings = {
        "schema": schema,
        "file_format": "png",
        "folder_to_predict": catalog.parent / "images",
        "checkpoint_dir": model_dir,
        "save_loc": tmp_path / "p.csv",
        "n_samples": 2,
        "batch_size": 16,
        "initial_size": 32,
        "crop_size": 24,
        "final_size": 24,
    }
    assert predict(**settings).galaxies == 40
    with pytest.raises(SettingError, match="crop_size is 30, but the model was trained with 24"):
        predict(**{**settings, "overwrite": True, "crop_size": 30})
    with pytest.raises(SettingError, match="other answers"):
        predict(**{**settings, "overwrite": True, "schema": schemas.load("gz2")})


def test_unreadable_images_are_rows_of_a_second_table(catalog, model_dir, tmp_path):
    shutil.copytree(catalog.parent / "images", tmp_path / "images")
    (tmp_path / "images" / "J0003.png").write_text("not an image")
    (tmp_path / "images" / "J0039.png").write_bytes(b"")
    done = predict(
        checkpoint_dir=model_dir,
        folder_to_predict=tmp_path / "images",
        save_loc=tmp_path / "p.csv",
        batch_size=1,
    )
    assert (done.galaxies, done.failed, done.failed_loc) == (38, 2, tmp_path / "p.failed.csv")
    failed = pd.read_csv(done.failed_loc)
    assert failed["id_str"].tolist() == ["J0003", "J0039"]
    assert failed["reason"].notna().all()
    table = pd.read_csv(done.save_loc)
    assert "J0003" not in table["id_str"].tolist()
    assert table.notna().all().all()


def test_bad_pictures_in_encoded_shards_are_rows_of_the_second_table_too(model_dir, tmp_path):
    folder = tmp_path / "records"
    folder.mkdir()
    picture = images.encode_image(np.full((32, 32, 3), 9, np.uint8), "png")
    sizes = {"image/height": 32, "image/width": 32, "image/channels": 3}
    with open(folder / "mixed.tfrecord", "wb") as file:
        for name, content in {"good": picture, "bad": picture[:60]}.items():
            record = tfrecord.encode_example({"id_str": name, "image/encoded": content, **sizes})
            tfrecord.write_record(file, record)
    for number in range(2):  # the second time beside the index that the first one made
        done = predict(checkpoint_dir=model_dir, shard_dir=folder, save_loc=tmp_path / f"{number}.csv")
        assert (done.galaxies, done.failed) == (1, 1)
        assert pd.read_csv(done.failed_loc)["id_str"].tolist() == ["bad"]


def test_images_are_made_square_as_they_were_for_training(catalog, schema, tmp_path):
    (tmp_path / "images").mkdir()
    wide = np.random.default_rng(0).integers(0, 255, (20, 60, 3), dtype=np.uint8)
    (tmp_path / "images" / "wide.png").write_bytes(images.encode_image(wide, "png"))
    tables_by_fit = {}
    for fit in ("crop", "pad"):
        torch.manual_seed(0)
        model = define_model.get_model(schema=schema, input_size=32, encoder="test_resnet", fit=fit)
        checkpoint.save_model(model, tmp_path / fit)
        path = tmp_path / f"{fit}.csv"
        predict(checkpoint_dir=tmp_path / fit, folder_to_predict=tmp_path / "images", save_loc=path, n_samples=1)
        pixels = images.read_image(tmp_path / "images" / "wide.png", size=32, fit=fit)
        with torch.inference_mode():
            expected = model.eval()(torch.from_numpy(pixels)[None])[0]
        tables_by_fit[fit] = pd.read_csv(path).filter(regex="_concentration$").iloc[0].to_numpy(float)
        np.testing.assert_allclose(tables_by_fit[fit], expected, rtol=1e-4)
    assert not np.allclose(tables_by_fit["crop"], tables_by_fit["pad"], rtol=1e-3)


def test_lists_of_failures_have_names_of_their_own(tmp_path):
    names = ["gz.dr5.parquet", "gz.dr8.parquet", "gz.csv"]
    assert [failed_path(tmp_path / name).name for name in names] == [
        "gz.dr5.failed.csv",
        "gz.dr8.failed.csv",
        "gz.failed.csv",
    ]


def test_what_cannot_be_written_is_known_before_the_work(catalog, model_dir, tmp_path):
    settings = {"checkpoint_dir": model_dir, "catalog": catalog}
    with pytest.raises(SettingError, match="999"):
        predict(**settings, save_loc=tmp_path / "p.fits", n_samples=300)
    (tmp_path / "file").write_text("")
    with pytest.raises(PredictionError, match="cannot be written"):
        predict(**settings, save_loc=tmp_path / "file" / "p.csv")
    with pytest.raises(SettingError, match="device is 'quantum'"):
        predict(**settings, save_loc=tmp_path / "p.csv", device="quantum")


def test_if_no_image_can_be_read_it_says_so(model_dir, tmp_path):
    catalog = tmp_path / "c.csv"
    catalog.write_text("id_str,file_loc\na,nowhere.png\n")
    with pytest.raises(PredictionError, match=r"not one of 1 images .*nowhere\.png"):
        predict(checkpoint_dir=model_dir, catalog=catalog, save_loc=tmp_path / "p.csv")
    assert failed_path(tmp_path / "p.csv").exists()


def test_tfrecords_of_others_can_be_predicted(model_dir, shared_data, tmp_path):
    folder = tmp_path / "records"
    folder.mkdir()
    shutil.copy(shared_data / "tfrecords" / "val-00001-of-00004.tfrecord", folder)
    assert predict(checkpoint_dir=model_dir, shard_dir=folder, save_loc=tmp_path / "p.csv").galaxies == 6
    shutil.copy(shared_data / "tfrecords" / "zoobot_tensorflow_s64.tfrecord", folder)
    with pytest.raises(ZoobotError, match="raw and encoded"):
        predict(checkpoint_dir=model_dir, shard_dir=folder, save_loc=tmp_path / "q.csv")


def test_existing_predictions_are_kept_unless_told(catalog, model_dir, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("precious")
    with pytest.raises(PredictionError, match="--overwrite"):
        predict(checkpoint_dir=model_dir, catalog=catalog, save_loc=path)
    assert path.read_text() == "precious"
    predict(checkpoint_dir=model_dir, catalog=catalog, save_loc=path, overwrite=True)
    assert len(pd.read_csv(path)) == 40


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"save_loc": "p.txt"}, r"\.txt"),
        ({"catalog": None}, "just one of"),
        ({"folder_to_predict": "x"}, "just one of"),
        ({"n_samples": 0}, "n_samples"),
        ({"batch_size": 0}, "batch_size"),
        ({"temperature": 2}, "temperature"),
    ],
)
def test_wrong_settings_are_refused(catalog, model_dir, tmp_path, settings, error):
    right = {"checkpoint_dir": model_dir, "catalog": catalog, "save_loc": tmp_path / "p.csv"}
    with pytest.raises(SettingError, match=error):
        predict(**{**right, **settings})


def test_a_folder_without_a_model_is_named(catalog, tmp_path):
    with pytest.raises(ModelError, match="nothing-here"):
        predict(checkpoint_dir=tmp_path / "nothing-here", catalog=catalog, save_loc=tmp_path / "p.csv")


# evaluation


def test_scores_are_those_computed_by_hand(catalog, tree, predictions, schema, tmp_path):
    scores = evaluate(predictions, catalog, tmp_path / "m.json", schema=schema)
    table = pd.read_parquet(predictions)
    votes = pd.read_csv(catalog)
    assert votes["id_str"].tolist() == table["id_str"].tolist()
    # loss: the mixture over samples of beta-binomials
    each = [
        stats.betabinom(10, table[f"shape_flat_concentration_{s}"], table[f"shape_round_concentration_{s}"]).pmf(
            votes["shape_flat"]
        )
        for s in range(5)
    ]
    found = scores["questions"]["shape"]
    assert found["loss"] == pytest.approx(-np.log(np.mean(each, axis=0)).mean(), rel=1e-5)
    error = np.abs(table["shape_flat_fraction"] - votes["shape_flat"] / 10)
    assert found["mean_absolute_error"] == pytest.approx(error.mean(), rel=1e-5)
    agree = (table["shape_flat_fraction"] > 0.5) == (votes["shape_flat"] > 5)
    assert found["accuracy"] == pytest.approx((agree | (votes["shape_flat"] == 5)).mean())
    assert scores["galaxies"] == 40


def test_evaluation_joins_by_name_whatever_the_order(catalog, predictions, schema, tmp_path):
    votes = pd.read_csv(catalog).sample(frac=1, random_state=0).drop(columns="file_loc")
    votes.to_csv(tmp_path / "votes.csv", index=False)
    expected = evaluate(predictions, catalog, schema=schema)
    scores = evaluate(predictions, tmp_path / "votes.csv", schema=schema)
    for question in schema.question_names:
        known = {name: value for name, value in expected["questions"][question].items() if value is not None}
        assert {name: scores["questions"][question][name] for name in known} == pytest.approx(known, rel=1e-9)
    votes.iloc[:30].to_csv(tmp_path / "votes.csv", index=False)
    scores = evaluate(predictions, tmp_path / "votes.csv", schema=schema)
    assert (scores["galaxies"], scores["without_votes"]) == (30, 10)


def test_perfect_cumulative_fractions_have_no_error(predictions, catalog, schema, tmp_path):
    table = pd.read_parquet(predictions)
    fractions = table[[f"{answer}_fraction" for answer in schema.label_cols]].to_numpy(float)
    cumulative = pd.DataFrame(schema.cumulative_fractions(fractions), columns=schema.label_cols)
    cumulative.insert(0, "id_str", table["id_str"])
    cumulative.to_csv(tmp_path / "cumulative.csv", index=False)
    scores = evaluate(predictions, catalog, schema=schema, fractions=tmp_path / "cumulative.csv")
    assert scores["all_questions"]["cumulative_rms_error"] == pytest.approx(0, abs=1e-6)
    assert scores["all_questions"]["baseline_cumulative_rms_error"] > 0.01
    assert scores["all_questions"]["floor_cumulative_rms_error"] > 0.01


def test_tables_that_do_not_fit_are_refused(predictions, catalog, schema, tmp_path):
    with pytest.raises(PredictionError, match="--schema"):
        evaluate(predictions, catalog)
    votes = pd.read_csv(catalog)
    votes.assign(id_str=votes["id_str"] + "x").to_csv(tmp_path / "other.csv", index=False)
    pd.DataFrame({"id_str": ["J0001"], **dict.fromkeys(schema.label_cols, "much")}).to_csv(
        tmp_path / "c.csv", index=False
    )
    with pytest.raises(PredictionError, match="no fractions"):
        evaluate(predictions, catalog, schema=schema, fractions=tmp_path / "c.csv")
    with pytest.raises(PredictionError, match="share no id_str"):
        evaluate(predictions, tmp_path / "other.csv", schema=schema)
    with pytest.raises(PredictionError, match="smooth-or-featured-gz2_smooth"):
        evaluate(predictions, catalog, schema=schemas.load("gz2"))
    pd.concat([pd.read_parquet(predictions)] * 2).to_csv(tmp_path / "twice.csv", index=False)
    with pytest.raises(PredictionError, match="no table of predictions"):
        evaluate(tmp_path / "twice.csv", catalog, schema=schema)


def test_settings_can_be_one_object(catalog, model_dir, tmp_path):
    config = PredictConfig(
        checkpoint_dir=model_dir, catalog=catalog, save_loc=tmp_path / "p.csv", keep_concentrations=False
    )
    assert predict(config).galaxies == 40
    assert not [name for name in pd.read_csv(tmp_path / "p.csv") if "concentration" in name]


def test_concentrations_that_lack_a_column_are_not_used(predictions, catalog, schema, tmp_path):
    table = pd.read_parquet(predictions).drop(columns="shape_round_concentration_0")
    table.to_parquet(tmp_path / "p.parquet")
    with pytest.raises(PredictionError, match="lack shape_round_concentration_0"):
        evaluate(tmp_path / "p.parquet", catalog, schema=schema)


def test_somebody_elses_list_of_failures_is_kept(catalog, model_dir, tmp_path):
    (tmp_path / "p.failed.csv").write_text("mine")
    with pytest.raises(PredictionError, match=r"p\.failed\.csv exists"):
        predict(checkpoint_dir=model_dir, catalog=catalog, save_loc=tmp_path / "p.csv")
    assert (tmp_path / "p.failed.csv").read_text() == "mine"
