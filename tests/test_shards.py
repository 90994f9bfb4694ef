"""Shards: same bytes however made, resumable, checked, and read back as they went in."""

import hashlib
import os
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
from torch.utils.data import DistributedSampler

from zoobot import schemas
from zoobot.data import images, shard_planning, shard_writing, shards, tfrecord
from zoobot.data.catalog import read_catalog
from zoobot.data.datasets import ImageDataset, make_loader
from zoobot.data.manifest import MANIFEST_NAME, Manifest
from zoobot.data.shard_index import index_path, load_index, write_index
from zoobot.data.shard_writing import ShardConfig, check_shards, create_shards
from zoobot.errors import ImageError, SchemaError, SettingError, ShardError


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_records(path: Path, *records: dict[str, tfrecord.FeatureValue]) -> Path:
    with open(path, "wb") as file:
        for features in records:
            tfrecord.write_record(file, tfrecord.encode_example(features))
    return path


def galaxy(**features: tfrecord.FeatureValue) -> dict[str, tfrecord.FeatureValue]:
    """A raw record of 2 by 2 pixels."""
    return {"id_str": "a", "matrix": b"\7" * 12, "height": 2, "width": 2, "channels": 3, **features}


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


def test_a_bad_picture_in_a_shard_raises_or_is_reported(catalog, schema, tmp_path):
    config = ShardConfig(img_size=SIZE, eval_size=11, encoding="png")
    create_shards(catalog, tmp_path / "s", schema, config)
    dataset = shards.open_split(tmp_path / "s", "test")
    file = dataset.files[0]
    content = bytearray(file.read_bytes())
    content[dataset._start[3] : dataset._start[3] + 8] = b"no image"
    file.write_bytes(content)
    os.utime(file, (0, 0))  # as if it had been so from the beginning
    for workers in (0, 1):
        broken = shards.open_split(tmp_path / "s", "test")
        with pytest.raises(ImageError) as caught:
            list(make_loader(broken, 4, workers=workers))
        assert str(caught.value).startswith(f"cannot read image {file}: galaxy {broken.id_str[3]}: ")
        assert "Traceback" not in str(caught.value)
    dataset = shards.open_split(tmp_path / "s", "test", keep_faulty=True)
    batch = dataset.__getitems__([2, 3])
    assert batch.faults == ["", str(caught.value)]
    assert batch.images[0].sum() > 0
    assert batch.images[1].sum() == 0


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


@pytest.mark.parametrize("workers", [0, 2])
def test_two_replicas_share_out_the_galaxies_of_every_epoch(shard_dir, workers):
    dataset = shards.open_split(shard_dir, "unlabelled")
    samplers = [DistributedSampler(dataset, num_replicas=2, rank=rank, seed=3) for rank in range(2)]
    loaders = [make_loader(dataset, 8, sampler=sampler, workers=workers) for sampler in samplers]
    orders = []
    for epoch in range(2):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        seen = [[name for batch in loader for name in batch.id_str] for loader in loaders]
        assert [len(names) for names in seen] == [20, 20]
        assert sorted(seen[0] + seen[1]) == sorted(dataset.id_str)
        orders.append(seen)
    assert orders[0] != orders[1]


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
    monkeypatch.setattr(shard_planning, "_MOST_GALAXIES_A_SHARD", 5)
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
    catalog = make_survey(tmp_path / "survey", galaxies=320)
    command = [sys.executable, "-m", "zoobot", "create-shards", "--labelled-catalog", str(catalog)]
    command += ["--schema", str(tree), "--img-size", "300", "--shard-dir"]
    subprocess.run([*command, str(tmp_path / "unbroken")], check=True)
    process = subprocess.Popen([*command, str(tmp_path / "killed")])
    while process.poll() is None and not list((tmp_path / "killed").glob("train/*.parquet")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Manifest.load(tmp_path / "killed").complete, "it was too quick to be killed"
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
    bad_images = tmp_path / "s" / shard_writing.BAD_IMAGES_NAME
    assert str(bad_images) in str(caught.value)
    assert sorted(pd.read_csv(bad_images)["id_str"]) == ["J0003", "J0017"]
    files = list((tmp_path / "s").rglob("*.tfrecord"))
    assert files
    assert all(index_path(file).exists() for file in files)
    with pytest.raises(ShardError, match="not finished"):
        shards.load_datasets(tmp_path / "s")
    # mended, it goes on
    for name in ("J0003.png", "J0017.png"):
        (catalog.parent / "images" / name).write_bytes(whole)
    manifest = create_shards(catalog, tmp_path / "s", schema, ShardConfig(img_size=SIZE))
    assert sum(manifest.counts.values()) == 40
    assert not bad_images.exists()
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


def test_the_index_of_a_file_that_was_replaced_is_made_again(tmp_path):
    path = write_records(tmp_path / "others.tfrecord", galaxy(id_str="a", smooth=1.0))
    assert load_index(path)["id_str"].to_pylist() == ["a"]
    written = index_path(path).stat().st_mtime_ns
    write_records(path, galaxy(id_str="b", smooth=2.0))
    os.utime(path, ns=(written + 1, written + 1))
    dataset = shards.ShardDataset([path])
    assert dataset.id_str == ["b"]
    assert dataset.votes.tolist() == [[2.0]]


def test_shards_are_written_before_their_indexes(shard_dir):
    for file in shard_dir.rglob("*.tfrecord"):
        assert file.stat().st_mtime_ns <= index_path(file).stat().st_mtime_ns


def test_a_run_leaves_another_ones_files_alone(catalog, schema, tmp_path, monkeypatch):
    config = ShardConfig(img_size=SIZE, eval_size=11, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(shard_writing, "_write_shard", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            create_shards(catalog, tmp_path / "s", schema, config)
    (tmp_path / "s" / "train").mkdir()
    live = tmp_path / "s" / "train" / f".tmp-{os.getppid()}-train.tfrecord"
    live.touch()
    create_shards(catalog, tmp_path / "s", schema, config)
    assert live.exists()


def test_columns_that_shards_do_not_hold_are_not_kept(catalog, schema, tmp_path, monkeypatch):
    table = pd.read_csv(catalog).assign(survey="a long description")
    table.to_csv(catalog.with_name("wide.csv"), index=False)
    columns = set()
    genuine = shard_writing._write_shard

    def watch(shard, label_cols, config):
        columns.update(shard.catalog.columns)
        return genuine(shard, label_cols, config)

    monkeypatch.setattr(shard_writing, "_write_shard", watch)
    config = ShardConfig(img_size=SIZE, workers=1)
    create_shards(catalog.with_name("wide.csv"), tmp_path / "s", schema, config, unlabelled_catalog=catalog)
    assert columns == {"id_str", "file_loc", *schema.label_cols}


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
    path = write_records(tmp_path / "votes.tfrecord", {"id_str": "a", "smooth": 1.0})
    with pytest.raises(ShardError, match=r"votes\.tfrecord: record 0: it has no image"):
        shards.ShardDataset([path])


@pytest.mark.parametrize("size", [{"height": 3}, {"width": 1}, {"channels": 1}])
def test_a_record_that_does_not_hold_its_size_is_named(tmp_path, size):
    path = write_records(tmp_path / "lies.tfrecord", galaxy(**size))
    with pytest.raises(ShardError, match="record 0: its matrix holds 12 bytes"):
        shards.ShardDataset([path])


@pytest.mark.parametrize(
    "size",
    [{"height": 0}, {"height": -2, "width": -2}, {"height": 2**40}, {"width": 2**31 - 1}, {"channels": 12}],
)
@pytest.mark.parametrize("encoded", [False, True])
def test_a_record_with_a_size_that_no_image_has_is_named(tmp_path, size, encoded):
    features = galaxy(**size)
    if encoded:
        features = {f"image/{name}": features[name] or -1 for name in ("height", "width", "channels")}
        features["image/encoded"] = images.encode_image(np.zeros((2, 2, 3), np.uint8), "png")
    path = write_records(tmp_path / "lies.tfrecord", features)
    with pytest.raises(ShardError, match=r"record 0: its height × width × channels are .* expected sides from 1"):
        shards.ShardDataset([path])


@pytest.mark.parametrize("size", [{}, {"image/height": 0, "image/width": 4, "image/channels": 3}])
def test_a_record_that_leaves_its_size_to_the_picture_is_read(tmp_path, size):
    picture = images.encode_image(np.full((4, 6, 3), 9, np.uint8), "png")
    path = write_records(tmp_path / "pictures.tfrecord", {"image/encoded": picture, **size})
    dataset = shards.ShardDataset([path])
    assert dataset.image_shape == (4, 4, 3)
    assert (dataset[0].images == 9).all()
    assert shards.ShardDataset([path], size=5, channels=1)[0].images.shape == (1, 5, 5, 1)


def test_votes_may_be_whole_numbers_and_never_replace_the_index(tmp_path):
    first = galaxy(smooth=3, disk=1.5, start=7.0, end=5, **{"image/class": 4})
    path = write_records(tmp_path / "others.tfrecord", first, galaxy(smooth=0, disk=2.0, start=1.0, end=2, odd=1))
    dataset = shards.ShardDataset([path])
    assert dataset.label_cols == ["disk", "smooth"]  # odd is not in every record
    assert dataset.votes.tolist() == [[1.5, 3.0], [2.0, 0.0]]
    assert (dataset[1].images == 7).all()
    for name in ("start", "odd"):
        with pytest.raises(ShardError, match=f"lacks the votes {name} .* in some or all of its records"):
            shards.ShardDataset([path], [name])


def test_a_run_killed_before_its_manifest_begins_again(catalog, schema, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".tmp-999999999-manifest.json").write_text("{")
    assert create_shards(catalog, tmp_path / "s", schema, ShardConfig(img_size=SIZE)).complete


def test_shards_without_a_single_readable_image_are_no_success(schema, tmp_path):
    catalog = make_survey(tmp_path / "survey", galaxies=4)
    for image in (catalog.parent / "images").iterdir():
        image.write_bytes(b"")
    with pytest.raises(ShardError, match="not one train nor one test image"):
        create_shards(catalog, tmp_path / "s", schema, ShardConfig(img_size=SIZE, skip_bad_images=True))


def test_answers_that_are_named_like_a_shards_own_features_are_refused(catalog, tmp_path):
    tree = {"name": "t", "description": "", "question": [{"name": "image/x", "answers": ["a", "b"], "asked_after": []}]}
    with pytest.raises(SchemaError, match="image/x_a"):
        create_shards(catalog, tmp_path / "s", schemas.Schema.from_dict(tree), ShardConfig(img_size=SIZE))
