"""Shards in parts: several machines write one folder, which is then as if one had."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import SIZE, make_survey

from zoobot.data import shard_writing, shards
from zoobot.data.manifest import Manifest
from zoobot.data.shard_merging import merge_shards
from zoobot.data.shard_parts import Part
from zoobot.data.shard_writing import ShardConfig, check_shards, create_shards
from zoobot.errors import SettingError, ShardError, ZoobotError

CONFIG = ShardConfig(img_size=SIZE, eval_size=11, workers=1)


def record_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.tfrecord"))}


@pytest.fixture
def write(catalog, schema, tmp_path):
    """Write a part into ``tmp_path / "s"``."""

    def write_part(part: str, catalog: Path = catalog, config: ShardConfig = CONFIG) -> Manifest:
        return create_shards(catalog, tmp_path / "s", schema, config, unlabelled_catalog=catalog, part=part)

    return write_part


def test_parts_in_any_order_make_the_folder_of_an_unparted_run(write, shard_dir, tmp_path):
    for part in ("3/3", "1/3", "2/3"):
        assert write(part).complete
    merged = merge_shards(tmp_path / "s")
    assert merged == Manifest.load(tmp_path / "s") == Manifest.load(shard_dir)
    assert record_files(tmp_path / "s") == record_files(shard_dir)  # so few galaxies are divided alike
    assert sum(check_shards(tmp_path / "s").values()) == 80
    assert merge_shards(tmp_path / "s") == merged
    assert write("2/3").complete
    assert merge_shards(tmp_path / "s") == merged


def test_more_files_for_many_parts_hold_the_same_galaxies_in_order(schema, tmp_path):
    config = ShardConfig(img_size=8, eval_size=1, workers=1)
    catalog = make_survey(tmp_path, galaxies=290)
    create_shards(catalog, tmp_path / "one", schema, config)
    for number in (1, 2):
        create_shards(catalog, tmp_path / "two", schema, config, part=f"{number}/2")
    merge_shards(tmp_path / "two")
    one, two = (shards.open_split(tmp_path / name, "train") for name in ("one", "two"))
    assert len(one.files) < len(two.files)
    assert one.id_str == two.id_str
    np.testing.assert_array_equal(one.votes, two.votes)
    everything = range(len(one))
    np.testing.assert_array_equal(one.__getitems__(everything).images, two.__getitems__(everything).images)


def test_missing_and_unfinished_parts_are_named_with_what_to_run(write, monkeypatch, tmp_path):
    write("2/4")
    with pytest.raises(ShardError, match="holds parts; when all are written run `zoobot merge-shards"):
        shards.load_datasets(tmp_path / "s")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shard_writing, "_write_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        write("1/4")
    monkeypatch.undo()
    with pytest.raises(ShardError) as caught:
        merge_shards(tmp_path / "s")
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "part 1/4 is not finished",
        "part 3/4 is missing",
        "part 4/4 is missing",
    ]
    assert f"--shard-dir {tmp_path / 's'} --part 3/4" in lines[1]


def test_lost_torn_and_foreign_files_are_found_and_the_part_mends_them(write, tmp_path):
    for part in ("1/2", "2/2"):
        write(part)
    files = sorted((tmp_path / "s").rglob("*.tfrecord"))
    files[1].unlink()
    files[2].with_name("train-other.tfrecord").write_bytes(files[2].read_bytes())
    with pytest.raises(ShardError) as caught:
        merge_shards(tmp_path / "s")
    assert f"there is no TFRecord file {files[1]}" in str(caught.value)
    assert "belongs to none of the parts" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3  # the number of galaxies is wrong too
    for foreign in (tmp_path / "s").rglob("*-other.*"):
        foreign.unlink()
    for part in ("1/2", "2/2"):
        write(part)
    merge_shards(tmp_path / "s")
    check_shards(tmp_path / "s")


def test_a_part_of_another_division_catalog_or_settings_is_refused(write, catalog, schema, tmp_path):
    write("1/2")
    with pytest.raises(ShardError, match=r"another division, 00001-of-00002; this is part 2/3"):
        write("2/3")
    with pytest.raises(ShardError, match="with another encoding than this part, 2/2"):
        write("2/2", config=ShardConfig(img_size=SIZE, eval_size=11, encoding="png"))
    other = make_survey(tmp_path / "other", galaxies=39)
    with pytest.raises(ShardError, match="another catalog"):
        write("2/2", other)
    # begun at the same moment, neither sees the other: the merge does
    part_dir = tmp_path / "s" / "parts" / "00001-of-00002"
    part_dir.rename(tmp_path / "aside")
    write("2/2", other)
    (tmp_path / "aside").rename(part_dir)
    with pytest.raises(ShardError, match=r"part 2/2 was made with another catalog.* than part 1/2"):
        merge_shards(tmp_path / "s")


def test_rows_in_another_order_in_one_part_do_not_slip_through(write, catalog, tmp_path):
    write("1/2")
    table = pd.read_csv(catalog)[::-1]
    table["file_loc"] = [str(catalog.parent / name) for name in table["file_loc"]]
    original = pd.read_csv(catalog)
    assert set(table["id_str"]) == set(original["id_str"])
    reversed_catalog = catalog.with_name("reversed.csv")
    pd.read_csv(catalog)[::-1].to_csv(reversed_catalog, index=False)
    write("2/2", reversed_catalog)
    with pytest.raises(ShardError, match="is in unlabelled twice"):
        merge_shards(tmp_path / "s")


@pytest.mark.parametrize("text", ["3/2", "0/4", "a/b", "1", "", "1/0", "-1/2", "1/2/3", "1 / 2", "1/100000", "²/3"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(SettingError, match="expected i/n with i from 1 to n"):
        Part.parse(text)


def test_parts_and_whole_runs_do_not_mix(write, catalog, schema, shard_dir, tmp_path):
    write("1/2")
    with pytest.raises(ShardError, match="holds parts; go on with --part"):
        create_shards(catalog, tmp_path / "s", schema, CONFIG)
    with pytest.raises(SettingError, match="overwrite cannot be given with a part"):
        create_shards(catalog, tmp_path / "s", schema, ShardConfig(overwrite=True), part="1/2")
    with pytest.raises(ShardError, match="was not written in parts"):
        create_shards(catalog, shard_dir, schema, CONFIG, part="1/2")
    with pytest.raises(ShardError, match="holds no parts"):
        merge_shards(shard_dir)


def test_bad_images_are_left_out_and_listed_once_in_the_merged_folder(schema, tmp_path):
    catalog = make_survey(tmp_path)
    for name in ("J0003", "J0031"):
        (tmp_path / "images" / f"{name}.png").write_bytes(b"no image")
    config = ShardConfig(img_size=SIZE, eval_size=11, workers=1, skip_bad_images=True)
    strict = ShardConfig(img_size=SIZE, eval_size=11, workers=1)
    create_shards(catalog, tmp_path / "one", schema, config)
    refused = 0
    for part in ("1/3", "2/3", "3/3"):
        try:
            create_shards(catalog, tmp_path / "s", schema, strict, part=part)
        except ZoobotError as error:
            refused += "cannot be read" in str(error)
            create_shards(catalog, tmp_path / "s", schema, config, part=part)
    assert refused
    assert merge_shards(tmp_path / "s") == Manifest.load(tmp_path / "one")
    listed = [pd.read_csv(tmp_path / name / "bad_images.csv") for name in ("s", "one")]
    assert [sorted(table["id_str"]) for table in listed] == [["J0003", "J0031"]] * 2


def test_a_part_leaves_the_unfinished_files_of_another_machine_alone(write, tmp_path):
    (tmp_path / "s" / "train").mkdir(parents=True)
    (tmp_path / "s" / "parts").mkdir()
    other = tmp_path / "s" / "train" / ".tmp-999999999-train-00001-of-00002.tfrecord"
    other.write_bytes(b"half")
    write("1/2")
    assert other.exists()
    write("2/2")
    merge_shards(tmp_path / "s")
    assert not other.exists()


@pytest.mark.slow
def test_a_killed_part_goes_on_beside_another(catalog, schema, tree, shard_dir, tmp_path):
    def start(part: str) -> "subprocess.Popen[bytes]":
        command = ["create-shards", "--labelled-catalog", catalog, "--unlabelled-catalog", catalog, "--schema", tree]
        options = ["--img-size", SIZE, "--eval-size", 11, "--workers", 1, "--shard-dir", tmp_path / "s", "--part", part]
        arguments = [sys.executable, "-m", "zoobot", *map(str, command + options)]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    first, second = start("1/2"), start("2/2")
    while second.poll() is None and not list((tmp_path / "s").rglob("parts/*/manifest.json")):
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    assert first.wait() == 0
    second.communicate()
    again = start("2/2")
    assert b"next: zoobot merge-shards" in again.communicate()[0]
    merge_shards(tmp_path / "s")
    assert record_files(tmp_path / "s") == record_files(shard_dir)
    shutil.rmtree(tmp_path / "s")
