"""Shards: same bytes however made, resumable, checked, and read back as they went in."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SIZE, make_survey

from zoobot import schemas
from zoobot.data import images, shard_writing, shards, tfrecord
from zoobot.data.catalog import read_catalog
from zoobot.data.datasets import ImageDataset, make_loader
from zoobot.data.manifest import MANIFEST_NAME, Manifest
from zoobot.data.shard_index import index_path, load_index, write_index
from zoobot.data.shard_writing import ShardConfig, check_shards, create_shards
from zoobot.errors import ImageError, SettingError, ShardError


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_galaxies_come_back_with_their_votes_and_pixels(catalog, schema, shard_dir):
    table = read_catalog(catalog, schema.label_cols).set_index("id_str")
    train, test = shards.load_datasets(shard_dir, schema)
    assert (len(train), len(test)) == (29, 11)
    assert sorted(train.id_str + test.id_str) == sorted(table.index)
    for dataset in (train, test):
        batch = dataset.__getitems__(range(len(dataset)))
        np.testing.assert_array_equal(batch.votes, table.loc[batch.id_str, schema.label_cols])
        for pixels, name in zip(batch.images, batch.id_str, strict=True):
            expected = images.read_image(table.loc[name, "file_loc"], size=SIZE)
            np.testing.assert_array_equal(pixels, expected)


def test_the_split_and_the_bytes_do_not_depend_on_row_order_or_workers(catalog, schema, shard_dir, tmp_path):
    shuffled = pd.read_csv(catalog).sample(frac=1, random_state=1)
    shuffled.to_csv(catalog.with_name("shuffled.csv"), index=False)
    config = ShardConfig(img_size=SIZE, eval_size=11, workers=3)
    create_shards(catalog.with_name("shuffled.csv"), tmp_path / "s", schema, config)
    for split in ("train", "test"):
        assert contents(tmp_path / "s" / split) == contents(shard_dir / split)


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_encoded_shards_read_like_raw_ones(catalog, schema, shard_dir, tmp_path, encoding):
    create_shards(catalog, tmp_path / "s", schema, ShardConfig(img_size=SIZE, eval_size=11, encoding=encoding))
    raw, encoded = (shards.open_split(folder, "test") for folder in (shard_dir, tmp_path / "s"))
    assert encoded.encoded
    assert encoded.id_str == raw.id_str
    difference = np.abs(encoded[0].images.numpy().astype(int) - raw[0].images.numpy())
    assert difference.max() == 0 if encoding == "png" else difference.mean() < 6


def test_unlabelled_galaxies_have_no_votes(shard_dir):
    dataset = shards.open_split(shard_dir, "unlabelled")
    assert len(dataset) == 40
    assert dataset[0].votes.shape == (1, 0)


def test_a_loader_gives_every_galaxy_once_the_last_partial_batch_too(shard_dir):
    dataset = shards.open_split(shard_dir, "train")
    for workers in (0, 2):
        loader = make_loader(dataset, 8, shuffle=True, workers=workers)
        batches = list(loader)
        assert [len(batch.images) for batch in batches] == [8, 8, 8, 5]
        assert sorted(name for batch in batches for name in batch.id_str) == sorted(dataset.id_str)
        assert batches[0].images.dtype == torch.uint8


def test_a_dataset_over_images_equals_the_shards(catalog, schema, shard_dir):
    table = read_catalog(catalog, schema.label_cols)
    direct = ImageDataset(table, size=SIZE, label_cols=schema.label_cols)
    test = shards.open_split(shard_dir, "test")
    position = direct.id_str.index(test.id_str[0])
    assert torch.equal(direct[position].images, test[0].images)
    assert torch.equal(direct[position].votes, test[0].votes)


def test_many_files_are_read_with_few_open(shard_dir, monkeypatch):
    monkeypatch.setattr(shards, "_MOST_OPEN_FILES", 1)
    files = sorted(shard_dir.rglob("*.tfrecord"))
    dataset = shards.ShardDataset(files, [])
    batch = dataset.__getitems__([0, len(dataset) - 1, 0])
    assert torch.equal(batch.images[0], batch.images[2])
    assert len(dataset._maps) == 1


# resuming, overwriting


def test_an_interrupted_run_ends_with_the_same_bytes(catalog, schema, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writing, "_MOST_GALAXIES_A_SHARD", 5)
    config = ShardConfig(img_size=SIZE, eval_size=11, workers=1)  # in this process, where it can be broken off
    create_shards(catalog, tmp_path / "unbroken", schema, config)

    genuine = shard_writing._write_shard

    def break_off(shard, label_cols, config):
        if "test-00001" in shard.path.name:
            raise KeyboardInterrupt
        return genuine(shard, label_cols, config)

    with monkeypatch.context() as patch:
        patch.setattr(shard_writing, "_write_shard", break_off)
        with pytest.raises(KeyboardInterrupt):
            create_shards(catalog, tmp_path / "broken", schema, config)
    some = len(list((tmp_path / "broken").rglob("*.tfrecord")))
    assert 0 < some < len(list((tmp_path / "unbroken").rglob("*.tfrecord")))
    with pytest.raises(ShardError, match="not finished"):
        shards.load_datasets(tmp_path / "broken")
    create_shards(catalog, tmp_path / "broken", schema, config)
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bytes(tree, tmp_path):
    catalog = make_survey(tmp_path / "survey", galaxies=600)
    command = [sys.executable, "-m", "zoobot", "create-shards", "--labelled-catalog", str(catalog)]
    command += ["--schema", str(tree), "--img-size", "1000", "--shard-dir"]
    subprocess.run([*command, str(tmp_path / "unbroken")], check=True)
    process = subprocess.Popen([*command, str(tmp_path / "killed")])
    while process.poll() is None and not list((tmp_path / "killed").glob("train/*.parquet")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was too quick to be killed"
    subprocess.run([*command, str(tmp_path / "killed")], check=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "unbroken")


def test_a_finished_folder_is_kept_and_another_one_is_not_wiped(catalog, schema, shard_dir, tmp_path):
    folder = tmp_path / "s"
    config = ShardConfig(img_size=SIZE, eval_size=11)
    create_shards(catalog, folder, schema, config)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    create_shards(catalog, folder, schema, config)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(ShardError, match="image size"):
        create_shards(catalog, folder, schema, ShardConfig(img_size=16, eval_size=11))
    with pytest.raises(ShardError, match="catalog, --eval-size"):
        create_shards(catalog, folder, schema, ShardConfig(img_size=SIZE, eval_size=12))
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    (folder / "notes.txt").write_text("mine")
    create_shards(catalog, folder, schema, ShardConfig(img_size=16, eval_size=11, overwrite=True))
    assert Manifest.load(folder).image_size == 16
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_folder_of_something_else_is_left_alone(catalog, schema, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ShardError, match="not empty"):
        create_shards(catalog, tmp_path, schema, ShardConfig(img_size=SIZE))


# bad images


@pytest.fixture
def catalog_with_bad_images(tmp_path):
    catalog = make_survey(tmp_path / "survey")
    folder = catalog.parent / "images"
    (folder / "J0003.png").write_bytes(b"")
    whole = (folder / "J0017.png").read_bytes()
    (folder / "J0017.png").write_bytes(whole[: len(whole) // 2])
    return catalog, whole


def test_bad_images_stop_it_all_at_once_and_nothing_is_lost(catalog_with_bad_images, schema, tmp_path):
    catalog, whole = catalog_with_bad_images
    with pytest.raises(ShardError, match="2 images cannot be read") as caught:
        create_shards(catalog, tmp_path / "s", schema, ShardConfig(img_size=SIZE))
    assert "J0003.png" in str(caught.value)
    assert "J0017.png" in str(caught.value)
    with pytest.raises(ShardError, match="not finished"):
        shards.load_datasets(tmp_path / "s")
    # mended, it goes on
    for name in ("J0003.png", "J0017.png"):
        (catalog.parent / "images" / name).write_bytes(whole)
    manifest = create_shards(catalog, tmp_path / "s", schema, ShardConfig(img_size=SIZE))
    assert sum(manifest.counts.values()) == 40
    check_shards(tmp_path / "s")


def test_bad_images_are_left_out_and_listed_if_asked(catalog_with_bad_images, schema, tmp_path):
    catalog, _ = catalog_with_bad_images
    manifest = create_shards(catalog, tmp_path / "s", schema, ShardConfig(img_size=SIZE, skip_bad_images=True))
    assert sum(manifest.counts.values()) == 38
    assert sum(manifest.left_out.values()) == 2
    listed = pd.read_csv(tmp_path / "s" / shard_writing.BAD_IMAGES_NAME)
    assert sorted(listed["id_str"]) == ["J0003", "J0017"]
    assert listed["reason"].str.len().min() > 10
    assert sum(len(dataset) for dataset in shards.load_datasets(tmp_path / "s")) == 38
    check_shards(tmp_path / "s")


def test_an_image_dataset_raises_or_reports(catalog_with_bad_images, schema):
    catalog, _ = catalog_with_bad_images
    table = read_catalog(catalog, schema.label_cols)
    with pytest.raises(ImageError, match=r"J0003\.png"):
        ImageDataset(table, size=SIZE)[3]
    batch = ImageDataset(table, size=SIZE, keep_faulty=True).__getitems__([2, 3])
    assert batch.faults[0] == ""
    assert "J0003.png" in batch.faults[1]
    assert batch.images[1].sum() == 0


# checking


def test_check_finds_corruption_tears_lost_files_and_false_indexes(shard_dir, tmp_path):
    folder = tmp_path / "s"

    def fresh():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(shard_dir, folder)
        return next((folder / "test").glob("*.tfrecord"))

    fresh()
    assert sum(check_shards(folder).values()) == 80
    file = fresh()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ShardError, match=rf"{file.name}: record 5 .*corrupt"):
        check_shards(folder)
    file = fresh()
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(ShardError, match=rf"{file.name}: record 10 .*torn"):
        check_shards(folder)
    file = fresh()
    file.unlink()
    with pytest.raises(ShardError, match="holds 0 galaxies, the manifest says 11"):
        check_shards(folder)
    file = fresh()
    train = next((folder / "train").glob("*.tfrecord"))
    index = load_index(train).slice(0, 11).replace_schema_metadata(load_index(file).schema.metadata)
    write_index(index, file)
    with pytest.raises(ShardError, match="does not fit"):
        check_shards(folder)


def test_an_index_that_points_elsewhere_is_refused(shard_dir, tmp_path):
    shutil.copytree(shard_dir, tmp_path / "s")
    file = next((tmp_path / "s" / "test").glob("*.tfrecord"))
    table = load_index(file)
    column = table.column_names.index("end")
    write_index(table.set_column(column, "end", [[10**12] * len(table)]), file)
    with pytest.raises(ShardError, match="points outside"):
        shards.open_split(tmp_path / "s", "test")


def test_a_lost_index_is_made_again(shard_dir, tmp_path):
    shutil.copytree(shard_dir, tmp_path / "s")
    file = next((tmp_path / "s" / "test").glob("*.tfrecord"))
    before = load_index(file)
    index_path(file).unlink()
    assert load_index(file).equals(before)
    assert index_path(file).exists()


def test_votes_of_another_schema_are_missed(shard_dir):
    with pytest.raises(ShardError, match="another schema"):
        shards.load_datasets(shard_dir, schemas.load("gz2"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": {"questions": 3}}', '{"schema": null}'])
def test_a_broken_manifest_is_named(tmp_path, content):
    (tmp_path / MANIFEST_NAME).write_text(content)
    with pytest.raises(ShardError, match="is not a manifest"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    "settings", [{"img_size": 0}, {"encoding": "gif"}, {"eval_size": 0}, {"workers": -1}, {"fit": "stretch"}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        ShardConfig(**settings)


# files of others


def test_the_original_tensorflow_shards_read_equal(shared_data, tmp_path):
    shutil.copy(shared_data / "tfrecords" / "zoobot_tensorflow_s64.tfrecord", tmp_path)
    expected = np.load(shared_data / "tfrecords" / "zoobot_tensorflow_s64.npz")
    schema = schemas.load("gz_decals")
    dataset = shards.ShardDataset([tmp_path / "zoobot_tensorflow_s64.tfrecord"], schema.label_cols)
    assert expected["label_cols"].tolist() == schema.label_cols
    batch = dataset.__getitems__(range(len(dataset)))
    assert batch.id_str == expected["id_str"].tolist()
    np.testing.assert_array_equal(batch.images, expected["images"])
    np.testing.assert_array_equal(batch.votes, expected["labels"])


def test_third_party_encoded_tfrecords_read(shared_data):
    path = shared_data / "tfrecords" / "train-00000-of-00004.tfrecord"  # lies in a folder that may be read only
    dataset = shards.ShardDataset([path], [], size=64)
    batch = dataset.__getitems__(range(len(dataset)))
    assert batch.images.shape == (20, 64, 64, 3)
    assert dataset.id_str[0] == "100008"
    assert 0 < batch.images.float().mean() < 255


def test_a_record_without_an_image_is_named(tmp_path):
    path = tmp_path / "votes.tfrecord"
    with open(path, "wb") as file:
        tfrecord.write_record(file, tfrecord.encode_example({"id_str": "a", "smooth": 1.0}))
    with pytest.raises(ShardError, match=r"votes\.tfrecord: record 0: it has no image"):
        shards.ShardDataset([path])


@pytest.mark.parametrize("size", [0, -1, 2**40])
def test_a_record_with_a_false_size_is_named(tmp_path, size):
    path = tmp_path / "lies.tfrecord"
    features = {"matrix": b"\0" * 12, "height": size, "width": 2, "channels": 3}
    with open(path, "wb") as file:
        tfrecord.write_record(file, tfrecord.encode_example(features))
    with pytest.raises(ShardError, match="record 0: its matrix holds 12 bytes"):
        shards.ShardDataset([path])
