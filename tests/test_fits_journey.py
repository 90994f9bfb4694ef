"""From FITS files alone: shards, training, predictions; what was chosen for training is kept for prediction."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from astropy.io import fits
from conftest import SIZE, make_model

from zoobot.cli import main as cli
from zoobot.cli.fits_options import make_config
from zoobot.data import images, shards, tables
from zoobot.data.fits_images import FitsConfig, FitsLayout, read_bands
from zoobot.data.manifest import Manifest
from zoobot.data.shard_writing import BAD_PIXELS_NAME, ShardConfig, create_shards
from zoobot.data.stretch import STRETCHES
from zoobot.errors import ImageError, ModelError, PredictionError, SettingError, ShardError
from zoobot.estimators import checkpoint
from zoobot.predictions.predict_on_images import predict
from zoobot.predictions.sources import choose_fits
from zoobot.report import cards
from zoobot.report.page import make_report
from zoobot.training.training_config import TrainConfig, train_estimator

LAYOUT = FitsLayout(bands=("z", "r", "g"))
DECALS = FitsConfig(LAYOUT, STRETCHES["decals"])


def make_cubes(folder: Path, galaxies: int = 40) -> Path:
    """A catalog of cubes of g, r and z, of round and of flat galaxies; every tenth has bad pixels."""
    rng = np.random.default_rng(0)
    rows = []
    y, x = np.mgrid[:48, :48] - 23.5
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(galaxies):
        flat = number % 2
        bright = 2 * np.exp(-np.hypot(x, y * (1 + 2 * flat)) / 6)
        cube = np.stack([bright * colour for colour in (0.5, 1, 1.5)]) + rng.normal(0, 0.01, (3, 48, 48))
        if number % 10 == 0:
            cube[1, :2] = np.nan
        hdu = fits.PrimaryHDU(cube.astype(np.float32))
        hdu.header["BANDS"] = "grz"
        hdu.writeto(folder / f"{number}.fits")
        votes = {"shape_round": 9 - 8 * flat, "shape_flat": 1 + 8 * flat}
        tilts = {"tilt_upright": 3 * flat, "tilt_lying": 0, "tilt_unclear": 2 * flat}
        rows.append({"id_str": f"g{number}", "file_loc": f"{number}.fits", **votes, **tilts})
    pd.DataFrame(rows).to_csv(folder / "catalog.csv", index=False)
    return folder / "catalog.csv"


def test_options_change_what_they_name_and_keep_what_else_a_model_knows():
    assert make_config(None, {}, DECALS) is None
    assert make_config(None, {"hdu": 1}, DECALS) == FitsConfig(FitsLayout(hdu=1, bands=LAYOUT.bands), DECALS.stretch)
    assert make_config("lupton", {}, DECALS) == FitsConfig(LAYOUT, STRETCHES["lupton"])
    assert make_config("none", {}, DECALS) == FitsConfig(LAYOUT, None)
    assert make_config(None, {"hdu": 1}) == FitsConfig(FitsLayout(hdu=1))


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    return make_cubes(tmp_path_factory.mktemp("cubes"))


@pytest.fixture(scope="module")
def fits_shards(cubes, schema):
    config = ShardConfig(img_size=SIZE, eval_size=11, fits=DECALS)
    create_shards(cubes, cubes.parent / "shards", schema, config)
    return cubes.parent / "shards"


def test_shards_hold_the_stretched_pixels_and_say_how_they_were_made(cubes, fits_shards):
    manifest = Manifest.load(fits_shards)
    assert FitsConfig.from_dict(manifest.settings["fits"]) == DECALS
    dataset = shards.open_split(fits_shards, "test")
    batch = dataset.__getitems__(range(len(dataset)))
    for pixels, name in zip(batch.images, batch.id_str, strict=True):
        expected = images.read_image(cubes.parent / f"{name[1:]}.fits", size=SIZE, fits=DECALS)
        np.testing.assert_array_equal(pixels, expected)


def test_filled_pixels_are_counted_and_listed(fits_shards):
    listed = tables.read_table(fits_shards / BAD_PIXELS_NAME).set_index("id_str")["bad_pixels"].astype(int)
    assert listed.to_dict() == {f"g{number}": 96 for number in range(0, 40, 10)}
    dataset = shards.open_split(fits_shards, "train")
    batch = dataset.__getitems__(range(len(dataset)))
    assert dict(zip(batch.id_str, batch.bad_pixels.tolist(), strict=True)) == {
        name: 96 if int(name[1:]) % 10 == 0 else 0 for name in batch.id_str
    }


def test_another_stretch_is_no_way_to_go_on(cubes, schema, fits_shards):
    with pytest.raises(ShardError, match="another way to read FITS"):
        create_shards(cubes, fits_shards, schema, ShardConfig(img_size=SIZE, eval_size=11))


def test_the_default_stretch_is_recorded_where_there_is_fits(cubes, schema, catalog, tmp_path):
    create_shards(cubes, tmp_path / "fits", schema, ShardConfig(img_size=SIZE))
    create_shards(catalog, tmp_path / "png", schema, ShardConfig(img_size=SIZE))
    assert FitsConfig.from_dict(Manifest.load(tmp_path / "fits").settings["fits"]) == FitsConfig()
    assert Manifest.load(tmp_path / "png").settings["fits"] is None


def test_files_of_single_bands_give_the_same_shards_as_cubes(cubes, schema, fits_shards, tmp_path):
    table = pd.read_csv(cubes)
    for band, name in enumerate("grz"):
        (tmp_path / name).mkdir()
        for number in range(len(table)):
            with fits.open(cubes.parent / f"{number}.fits") as hdus:
                fits.writeto(tmp_path / name / f"{number}.fits", hdus[0].data[band])
        table[f"file_loc_{name}"] = [f"{name}/{number}.fits" for number in range(len(table))]
    table.drop(columns="file_loc").to_csv(tmp_path / "catalog.csv", index=False)
    config = ShardConfig(img_size=SIZE, eval_size=11, fits=DECALS)
    create_shards(tmp_path / "catalog.csv", tmp_path / "shards", schema, config)
    one, other = (shards.open_split(folder, "test") for folder in (fits_shards, tmp_path / "shards"))
    assert one.id_str == other.id_str
    positions = range(len(one))
    np.testing.assert_array_equal(one.__getitems__(positions).images, other.__getitems__(positions).images)


@pytest.fixture(scope="module")
def fits_model(fits_shards, schema, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "m"
    manifest = Manifest.load(fits_shards)
    model = make_model(schema, fits=manifest.settings["fits"])
    train_estimator(model, TrainConfig(log_dir=folder, epochs=1, batch_size=8), *shards.load_datasets(fits_shards))
    return folder


def test_prediction_reads_fits_as_training_did(cubes, fits_shards, fits_model, tmp_path):
    of_shards, of_files = tmp_path / "shards.parquet", tmp_path / "files.parquet"
    predict(checkpoint_dir=fits_model, shard_dir=fits_shards, save_loc=of_shards)
    done = predict(checkpoint_dir=fits_model, catalog=cubes, save_loc=of_files)
    assert (done.galaxies, done.failed, done.filled) == (40, 0, 4)
    one, other = (
        tables.read_table(path).set_index("id_str").drop(columns="file_loc") for path in (of_shards, of_files)
    )
    pd.testing.assert_frame_equal(one, other.loc[one.index], rtol=1e-5)
    assert set(other["bad_pixels"]) == {0, 96}


def test_another_stretch_than_that_of_training_is_refused(cubes, fits_model, tmp_path):
    with pytest.raises(SettingError, match="another than the model was trained with"):
        predict(checkpoint_dir=fits_model, catalog=cubes, save_loc=tmp_path / "p.csv", stretch=STRETCHES["lupton"])
    settings = {"stretch": STRETCHES["decals"], "layout": {"bands": ("2", "1", "0")}}
    assert predict(checkpoint_dir=fits_model, catalog=cubes, save_loc=tmp_path / "p.csv", **settings).galaxies == 40


def test_a_folder_of_real_cubes_with_a_torn_one(shared_data, model_dir, tmp_path):
    save_loc = tmp_path / "p.csv"
    folder = shared_data / "decals_fits"
    done = predict(checkpoint_dir=model_dir, folder_to_predict=folder, file_format="fits", save_loc=save_loc)
    assert (done.galaxies, done.failed, done.filled) == (3, 1, 1)
    filled = tables.read_table(save_loc).set_index("id_str")["bad_pixels"].astype(int)
    assert filled.to_dict() == {"example_a": 0, "example_b": 0, "example_bad_pix": 142_706}
    failed = tables.read_table(done.failed_loc)
    assert failed["id_str"].tolist() == ["example_incomplete"]
    assert "truncated" in failed["reason"][0]


def test_the_commands_take_fits(cubes, tree, tmp_path, monkeypatch, capsys):
    def run(*arguments: object) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["zoobot", *map(str, arguments)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    folder, bands = tmp_path / "s", ["--bands", "z,r,g", "--stretch", "decals"]
    make = ["create-shards", "--labelled-catalog", cubes, "--schema", tree, "--shard-dir", folder, "--img-size", SIZE]
    code, said = run(*make, "--trust-paths", *bands)
    assert code == 0, said
    assert "bad pixels" in said
    assert FitsConfig.from_dict(Manifest.load(folder).settings["fits"]) == DECALS
    page, cube = tmp_path / "page.png", cubes.parent / "1.fits"
    assert run("stretch", cube, *bands, "--save-loc", page)[0] == 0
    np.testing.assert_array_equal(images.read_image(page), images.read_image(cube, fits=DECALS))
    assert run("stretch", "--catalog", cubes, "--count", 2, "--save-loc", page)[0] == 0
    assert images.read_image(page).std() > 0
    code, said = run("stretch", cube, "--stretch", "loud", "--save-loc", page)
    assert (code, "expected one of decals" in said) == (2, True)


def test_without_a_stretch_fluxes_are_kept_to_half_precision(cubes, schema, catalog, tmp_path):
    fluxes = FitsConfig(LAYOUT, None)
    create_shards(cubes, tmp_path / "s", schema, ShardConfig(img_size=SIZE, fits=fluxes))
    dataset = shards.open_split(tmp_path / "s", "test")
    batch = dataset.__getitems__(range(len(dataset)))
    assert batch.images.dtype == torch.float16
    for pixels, name in zip(batch.images, batch.id_str, strict=True):
        cube = read_bands(cubes.parent / f"{name[1:]}.fits", LAYOUT)
        assert pixels.float().mean().item() == pytest.approx(np.nanmean(cube), abs=0.02)
        np.testing.assert_array_equal(
            pixels, images.read_picture(cubes.parent / f"{name[1:]}.fits", size=SIZE, fits=fluxes).pixels
        )
    model = make_model(schema, fits=fluxes.to_dict())
    config = TrainConfig(log_dir=tmp_path / "m", epochs=1, batch_size=8)
    train_estimator(model, config, *shards.load_datasets(tmp_path / "s"))
    of_shards, of_files = (tmp_path / f"{name}.parquet" for name in ("shards", "files"))
    predict(checkpoint_dir=tmp_path / "m", shard_dir=tmp_path / "s", save_loc=of_shards)
    predict(checkpoint_dir=tmp_path / "m", catalog=cubes, save_loc=of_files)
    one, other = (tables.read_table(path).set_index("id_str").filter(like="fraction") for path in (of_shards, of_files))
    pd.testing.assert_frame_equal(one, other.loc[one.index], rtol=1e-5)
    with pytest.raises(PredictionError, match="without a stretch fluxes are wanted"):
        predict(checkpoint_dir=tmp_path / "m", catalog=catalog, save_loc=tmp_path / "p.csv")


def test_what_half_precision_cannot_hold_and_encodings_that_cannot_are_refused(tmp_path):
    fits.writeto(tmp_path / "bright.fits", np.full((4, 4), 1e6, np.float32))
    with pytest.raises(ImageError, match="more than float16"):
        images.read_picture(tmp_path / "bright.fits", fits=FitsConfig(stretch=None))
    with pytest.raises(SettingError, match="must be raw"):
        ShardConfig(encoding="png", fits=FitsConfig(stretch=None))


def test_shards_of_another_stretch_are_refused(fits_shards, schema, tmp_path):
    checkpoint.save_model(make_model(schema, fits=FitsConfig(LAYOUT).to_dict()), tmp_path / "m")
    with pytest.raises(PredictionError, match="another stretch"):
        predict(checkpoint_dir=tmp_path / "m", shard_dir=fits_shards, save_loc=tmp_path / "p.csv")


@pytest.mark.parametrize("nonsense", [{"layout": {}}, {"layout": {"bands": ["z"] * 10_000}, "stretch": {}}, [1], 5])
def test_nonsense_about_fits_from_strangers_is_refused(cubes, fits_shards, fits_model, tmp_path, nonsense):
    for folder, name, part in ((fits_shards, "manifest.json", "settings"), (fits_model, "config.json", "model")):
        shutil.copytree(folder, tmp_path / part)
        content = json.loads((tmp_path / part / name).read_text())
        content[part]["fits"] = nonsense
        (tmp_path / part / name).write_text(json.dumps(content))
    with pytest.raises(ShardError, match="not a manifest of shards") as of_shards:
        shards.load_datasets(tmp_path / "settings")
    with pytest.raises(ModelError, match=r"config\.json") as of_model:
        predict(checkpoint_dir=tmp_path / "model", catalog=cubes, save_loc=tmp_path / "p.csv")
    assert max(len(str(caught.value)) for caught in (of_shards, of_model)) < 1000


def test_each_option_of_prediction_overrides_itself_alone(schema):
    trained = FitsConfig(FitsLayout(bands=("z", "r", "g"), zero_point="MAGZERO"), STRETCHES["decals"])
    model = make_model(schema, fits=trained.to_dict())
    assert choose_fits(model, {}, None) == trained
    chosen = choose_fits(model, {"zero_point": None, "hdu": 1}, None).layout
    assert chosen == FitsLayout(hdu=1, bands=("z", "r", "g"))
    with pytest.raises(SettingError, match=r"\(decals\); leave it out"):
        choose_fits(model, {}, STRETCHES["lupton"])
    with pytest.raises(SettingError, match="expected settings of FitsLayout"):
        choose_fits(model, {"band": "g"}, None)


def test_a_run_that_could_read_nothing_does_not_stand_in_the_way_of_the_next(cubes, fits_model, tmp_path):
    save_loc = tmp_path / "p.csv"
    with pytest.raises(PredictionError, match="not one of"):
        predict(checkpoint_dir=fits_model, catalog=cubes, save_loc=save_loc, layout={"hdu": 7})
    assert predict(checkpoint_dir=fits_model, catalog=cubes, save_loc=save_loc).galaxies == 40
    assert not (tmp_path / "p.failed.csv").exists()


def test_sky_that_compression_rounds_to_zero_is_not_bad(tmp_path):
    noise = np.random.default_rng(0).normal(0, 1, (64, 64)).astype(np.float32)
    counts = {}
    for method in (-1, 1, 2):  # none, subtractive 1 and 2
        hdu = fits.CompImageHDU(noise, compression_type="RICE_1", quantize_level=4, quantize_method=method)
        hdu.writeto(tmp_path / f"{method}.fits.fz")
        counts[method] = np.isnan(read_bands(tmp_path / f"{method}.fits.fz")).sum()
    assert counts == {-1: 0, 1: 0, 2: 0}
    noise[:8] = 0
    fits.CompImageHDU(noise, compression_type="RICE_1", quantize_method=2).writeto(tmp_path / "zeros.fits.fz")
    assert np.isnan(read_bands(tmp_path / "zeros.fits.fz")).sum() == 512


def test_the_report_shows_galaxies_as_the_model_saw_them(cubes, fits_model, tmp_path, monkeypatch):
    predict(checkpoint_dir=fits_model, catalog=cubes, save_loc=tmp_path / "p.parquet")
    used = []

    def read_image(path, **settings):
        used.append(settings["fits"])
        return images.read_image(path, **settings)

    monkeypatch.setattr(cards, "images", SimpleNamespace(read_image=read_image))
    make_report(tmp_path / "p.parquet", cubes, tmp_path / "report.html", checkpoint_dir=fits_model)
    assert len(used) > 3
    assert set(used) == {DECALS}
