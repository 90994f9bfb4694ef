"""Predictions as jobs: in parts, shared out, killed and gone on with, and the table is always the same."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import make_model, make_survey

from zoobot.cli import main as cli
from zoobot.data import tables
from zoobot.errors import PredictionError, SettingError
from zoobot.estimators import checkpoint
from zoobot.predictions import prediction_job
from zoobot.predictions.merging import merge
from zoobot.predictions.predict_on_images import PartsFailedError, PredictConfig, predict
from zoobot.predictions.prediction_parts import PartsFolder, choose_share

ZOOBOT = str(Path(sys.executable).with_name("zoobot"))


@pytest.fixture(scope="module")
def job(catalog, model_dir):
    """Forty galaxies, five parts."""
    return {"checkpoint_dir": model_dir, "catalog": catalog, "batch_size": 8, "galaxies_per_part": 8}


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "p.parquet"
    predict(**job, save_loc=path)
    return path


def test_the_parts_joined_are_the_table(job, whole, tmp_path):
    done = predict(**job, save_loc=tmp_path / "parts")
    assert (done.galaxies, done.failed, done.missing) == (40, 0, 0)
    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert names == ["manifest.json", *(f"part-0000{number}.parquet" for number in range(5))]
    manifest = json.loads((tmp_path / "parts" / "manifest.json").read_text())
    assert (manifest["rows"], manifest["source"]["galaxies"], manifest["n_samples"]) == ([8] * 5, 40, 5)
    merge(tmp_path / "parts", tmp_path / "p.parquet")
    assert (tmp_path / "p.parquet").read_bytes() == whole.read_bytes()
    assert [path.name for path in whole.parent.iterdir()] == ["p.parquet"]  # the hidden folder is gone


def test_a_table_in_one_part_holds_the_same(job, whole, tmp_path):
    predict(**{**job, "galaxies_per_part": 100}, save_loc=tmp_path / "p.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "p.parquet"), pd.read_parquet(whole))


@pytest.mark.parametrize("suffix", ["csv", "fits"])
def test_parts_are_joined_in_every_format(job, whole, tmp_path, suffix):
    path = tmp_path / f"p.{suffix}"
    predict(**job, save_loc=path, friendly_loc=tmp_path / f"f.{suffix}")
    expected = pd.read_parquet(whole)
    pd.testing.assert_frame_equal(tables.read_table(path), expected, check_dtype=False, rtol=1e-6)
    assert tables.read_table(tmp_path / f"f.{suffix}")["id_str"].tolist() == expected["id_str"].tolist()


def test_shares_are_all_the_parts_and_none_twice():
    for shares in (1, 2, 3, 7):
        found = [number for share in range(shares) for number in choose_share(f"{share + 1}/{shares}", 5)]
        assert sorted(found) == list(range(5))


def test_processes_that_share_parts_make_the_same_table(job, whole, tmp_path):
    for share in ("2/3", "3/3"):
        done = predict(**job, save_loc=tmp_path / "parts", part=share)
    assert done.missing == 2
    with pytest.raises(PredictionError, match="2 of 5 parts are missing: part-00000, part-00003"):
        merge(tmp_path / "parts", tmp_path / "p.parquet")
    predict(**job, save_loc=tmp_path / "parts", part="1/3")
    merge(tmp_path / "parts", tmp_path / "p.parquet")
    assert (tmp_path / "p.parquet").read_bytes() == whole.read_bytes()


def test_devices_and_workers_change_nothing(job, whole, tmp_path):
    predict(**job, save_loc=tmp_path / "p.parquet", devices=2, workers=1)
    found, expected = pd.read_parquet(tmp_path / "p.parquet"), pd.read_parquet(whole)
    assert found["id_str"].tolist() == expected["id_str"].tolist()
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)


def test_finished_parts_are_kept_and_damaged_ones_made_again(job, whole, tmp_path):
    folder = tmp_path / "parts"
    predict(**job, save_loc=folder)
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    (folder / "part-00001.parquet").unlink()
    (folder / "part-00003.parquet").write_bytes((folder / "part-00003.parquet").read_bytes()[:-20])
    predict(**job, save_loc=folder)
    changed = [path.name for path in folder.glob("part-*") if path.stat().st_mtime_ns != times[path.name]]
    assert sorted(changed) == ["part-00001.parquet", "part-00003.parquet"]
    merge(folder, tmp_path / "p.parquet")
    assert (tmp_path / "p.parquet").read_bytes() == whole.read_bytes()


def test_a_folder_is_for_one_prediction(job, tmp_path):
    folder = tmp_path / "parts"
    predict(**job, save_loc=folder)
    with pytest.raises(SettingError, match=r"another n_samples \(see its manifest\.json\)"):
        predict(**job, save_loc=folder, n_samples=2)
    predict(**job, save_loc=folder, n_samples=2, overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    with pytest.raises(SettingError, match="holds something else"):
        predict(**job, save_loc=tmp_path / "other", overwrite=True)
    with pytest.raises(PredictionError, match="no predictions in parts"):
        merge(tmp_path / "other", tmp_path / "p.parquet")


def test_what_a_killed_run_with_other_settings_left_hidden_is_not_used(job, whole, tmp_path):
    hidden = PartsFolder.claim(tmp_path / ".p.parquet.parts", {"n_samples": 2}, 40, 8)
    hidden.part_path(0).write_bytes(b"of something else")
    predict(**job, save_loc=tmp_path / "p.parquet")
    assert (tmp_path / "p.parquet").read_bytes() == whole.read_bytes()


def test_images_that_fail_cost_rows_whatever_the_part(job, catalog, tmp_path):
    table = pd.read_csv(catalog)
    table["file_loc"] = [str(catalog.parent / file) for file in table["file_loc"]]
    table.loc[[0, 17, *range(24, 32)], "file_loc"] = str(tmp_path / "gone, or never there.png")  # a whole part too
    table.to_csv(tmp_path / "c.csv", index=False)
    done = predict(**{**job, "catalog": tmp_path / "c.csv"}, save_loc=tmp_path / "p.parquet")
    assert (done.galaxies, done.failed) == (30, 10)
    failed = pd.read_csv(done.failed_loc)
    assert failed["id_str"].tolist() == table["id_str"][[0, 17, *range(24, 32)]].tolist()
    found = pd.read_parquet(tmp_path / "p.parquet")
    assert found["id_str"].tolist() == table["id_str"].drop([0, 17, *range(24, 32)]).tolist()
    assert found.drop(columns=["id_str", "file_loc"]).notna().all().all()


def test_a_part_that_fails_once_is_tried_again(job, whole, tmp_path, monkeypatch):
    write, failed = prediction_job._write_part, []

    def fail_once(job, folder, number, drawn):
        if number == 2 and not failed:
            failed.append(number)
            raise OSError("the disk was full for a moment")
        return write(job, folder, number, drawn)

    monkeypatch.setattr(prediction_job, "_write_part", fail_once)
    predict(**job, save_loc=tmp_path / "p.parquet", log_json=tmp_path / "log.jsonl")
    assert (tmp_path / "p.parquet").read_bytes() == whole.read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["part"] for line in lines if "error" in line] == ["part-00002"]
    assert lines[-1]["galaxies"] == lines[-1]["of"] == 40
    assert all(line["rate"] >= 0 for line in lines)


@pytest.mark.parametrize("stage", ["draw", "write"])
def test_a_part_that_fails_twice_is_reported_and_the_others_are_done(job, tmp_path, monkeypatch, capsys, stage):
    if stage == "write":
        write = prediction_job._write_part

        def fail(job, folder, number, drawn):
            if number == 1:
                raise RuntimeError("no luck")
            return write(job, folder, number, drawn)

        monkeypatch.setattr(prediction_job, "_write_part", fail)
    else:
        draw = prediction_job.draw_parts

        def fail(models, datasets, parts, *rest):
            for part, drawn in zip(parts, draw(models, datasets, parts, *rest), strict=True):
                if part.start == 8:
                    raise RuntimeError("no luck")
                yield drawn

        monkeypatch.setattr(prediction_job, "draw_parts", fail)
    with pytest.raises(PartsFailedError) as found:
        predict(**job, save_loc=tmp_path / "parts")
    assert found.value.parts == {1: "RuntimeError: no luck"}
    assert PartsFolder.open(tmp_path / "parts").list_missing() == [1]
    options = ["--catalog", str(job["catalog"]), "--batch-size", "8", "--galaxies-per-part", "8"]
    command = ["zoobot", "predict", "--checkpoint-dir", str(job["checkpoint_dir"]), *options]
    monkeypatch.setattr(sys, "argv", [*command, "--save-loc", str(tmp_path / "parts")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "part-00001: RuntimeError: no luck" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"part": "1/2"}, "part goes with a folder"),
        ({"part": "3/2", "save_loc": "parts"}, "got '3/2'"),
        ({"part": "two", "save_loc": "parts"}, "such as 2/4"),
        ({"part": "1/2", "save_loc": "parts", "overwrite": True}, "exclude each other"),
        ({"friendly_loc": "f.csv", "save_loc": "parts"}, "zoobot merge"),
        ({"devices": 0}, "devices is 0"),
        ({"galaxies_per_part": 0}, "galaxies_per_part is 0"),
    ],
)
def test_wrong_settings_are_refused(settings, error):
    with pytest.raises(SettingError, match=error):
        PredictConfig(**{"checkpoint_dir": "m", "catalog": "c.csv", "save_loc": "p.csv", **settings})


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_table(schema, tmp_path):
    catalog = make_survey(tmp_path / "survey", galaxies=300)
    checkpoint.save_model(make_model(schema), tmp_path / "model")
    settings = {"checkpoint_dir": tmp_path / "model", "catalog": catalog, "batch_size": 4, "galaxies_per_part": 4}
    predict(**settings, save_loc=tmp_path / "whole.parquet")
    options = ["--catalog", str(catalog), "--batch-size", "4", "--galaxies-per-part", "4"]
    command = [ZOOBOT, "predict", "--checkpoint-dir", str(tmp_path / "model"), *options]
    command += ["--save-loc", str(tmp_path / "broken.parquet")]
    hidden, generator = tmp_path / ".broken.parquet.parts", random.Random(0)
    kept = 0
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(hidden.glob("part-*.parquet"))) <= kept:
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)
        kept = len(list(hidden.glob("part-*.parquet")))
    assert kept or (tmp_path / "broken.parquet").exists()
    predict(**settings, save_loc=tmp_path / "broken.parquet", overwrite=True)
    assert (tmp_path / "broken.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not hidden.exists()
