"""Shards behind a URL: the same galaxies as from disk, with room for all of them or for a few files only."""

import functools
import http.server
import os
import pickle
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from conftest import SIZE, make_survey

from zoobot.data import remote_files, shards
from zoobot.data.datasets import describe_dataset, make_loader
from zoobot.data.manifest import MANIFEST_NAME, Manifest
from zoobot.data.shard_writing import ShardConfig, create_shards
from zoobot.data.window_order import order_in_windows
from zoobot.errors import SettingError, ShardError
from zoobot.training.estimator_module import EpochSampler

MEMORY = "memory://bucket/shards"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(remote_files, "_PAUSES", (0.0, 0.0))


@pytest.fixture
def bucket(shard_dir) -> Iterator[str]:
    memory = fsspec.filesystem("memory")
    memory.put(str(shard_dir), "/bucket/shards", recursive=True)
    yield MEMORY
    memory.rm("/bucket", recursive=True)


@pytest.fixture
def server(shard_dir) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(shard_dir))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def held(cache: Path) -> list[Path]:
    return sorted(cache.rglob("[!.]*.tfrecord"))


def assert_same(here: shards.ShardDataset, there: shards.ShardDataset) -> None:
    assert describe_dataset(here) == describe_dataset(there)
    everything = range(len(here))
    assert torch.equal(here.__getitems__(everything).images, there.__getitems__(everything).images)


def test_shards_in_memory_are_fetched_when_they_are_needed(bucket, shard_dir, tmp_path):
    remote = shards.load_datasets(bucket + "/", cache_dir=tmp_path)
    assert not held(tmp_path)
    for here, there in zip(shards.load_datasets(shard_dir), remote, strict=True):
        assert_same(here, there)
    assert len(held(tmp_path)) == sum(len(dataset.files) for dataset in remote)
    fsspec.filesystem("memory").rm(bucket + "/train/train-00000-of-00002.tfrecord")
    again = shards.open_split(bucket, "train", cache_dir=tmp_path)
    assert_same(shards.open_split(shard_dir, "train"), again)
    assert again.file_loc[0] == f"{bucket}/train/train-00000-of-00002.tfrecord"


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_of_a_web_server_are_read_by_loaders_of_several_processes(server, shard_dir, tmp_path, workers):
    dataset = shards.open_split(server, "train", cache_dir=tmp_path)
    loader = make_loader(dataset, 8, sampler=EpochSampler(len(dataset), 0, 0, dataset.epoch_order), workers=workers)
    batches = list(loader)
    here = shards.open_split(shard_dir, "train")
    pixels = {name: here[number].images[0] for number, name in enumerate(here.id_str)}
    assert sorted(name for batch in batches for name in batch.id_str) == sorted(here.id_str)
    for batch in batches:
        for name, image in zip(batch.id_str, batch.images, strict=True):
            assert torch.equal(image, pixels[name])


def test_manifests_without_the_number_of_files_are_listed(bucket, shard_dir, tmp_path):
    manifest = Manifest.load(bucket)
    assert manifest == Manifest.load(shard_dir)
    text = fsspec.filesystem("memory").cat_file(f"{bucket}/{MANIFEST_NAME}").decode()
    start = text.index('"files"')
    older = text[:start] + text[text.index("},", start) + 2 :].lstrip()
    fsspec.filesystem("memory").pipe_file(f"{bucket}/{MANIFEST_NAME}", older.encode())
    assert not Manifest.load(bucket).files
    assert_same(shards.open_split(shard_dir, "test"), shards.open_split(bucket, "test", cache_dir=tmp_path))


def test_what_fits_is_shuffled_as_on_disk(bucket, shard_dir, tmp_path):
    here, there = shards.open_split(shard_dir, "train"), shards.open_split(bucket, "train", cache_dir=tmp_path)
    plain = list(EpochSampler(len(here), 5, 2))
    assert list(EpochSampler(len(here), 5, 2, here.epoch_order)) == plain
    assert list(EpochSampler(len(here), 5, 2, there.epoch_order)) == plain


@pytest.fixture(scope="session")
def many_files(schema, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    catalog = make_survey(folder, galaxies=330)
    create_shards(catalog, folder / "s", schema, ShardConfig(img_size=SIZE, eval_size=20, workers=1))
    return folder / "s"


def test_a_small_cache_stays_small_and_every_galaxy_comes_once_an_epoch(many_files, tmp_path):
    url = f"file://{many_files}"
    largest = max(path.stat().st_size for path in many_files.rglob("*.tfrecord"))
    limit = 8 * largest
    here = shards.open_split(many_files, "train")
    there = shards.open_split(url, "train", cache_dir=tmp_path, cache_gb=limit / 1e9)
    assert there._window is not None
    assert 2 <= there._window <= 4
    most = 0
    for epoch in range(2):
        sampler = EpochSampler(len(there), 0, epoch, there.epoch_order)
        seen = []
        for batch in make_loader(there, 16, sampler=sampler):
            seen += batch.id_str
            most = max(most, sum(path.stat().st_size for path in held(tmp_path)))
            first = here.id_str.index(batch.id_str[0])
            assert torch.equal(batch.images[0], here[first].images[0])
        assert sorted(seen) == sorted(here.id_str)
    assert largest < most <= limit + 2 * largest  # two threads may each fetch one at once
    in_order = [name for batch in make_loader(there, 16) for name in batch.id_str]
    assert in_order == here.id_str


def test_the_order_in_windows_is_random_complete_and_repeatable():
    count, each, window = 200, 50, 10
    files = np.repeat(np.arange(count), each)
    orders = []
    for seed in range(3):
        order, visited = order_in_windows(files, window, seed)
        np.testing.assert_array_equal(np.sort(order), np.arange(len(files)))
        np.testing.assert_array_equal(order, order_in_windows(files, window, seed)[0])
        for first in range(0, count, window):
            chunk = order[first * each : (first + window) * each]
            assert set(files[chunk]) == set(visited[first : first + window])
        # two neighbours are of one file as often as among so many files shuffled: (each - 1) / (window · each - 1)
        together = np.mean(np.diff(files[order]) == 0)
        assert together == pytest.approx((each - 1) / (window * each - 1), abs=0.01)
        # where a galaxy comes says nothing of where it lies: 5 standard errors of `count / window` windows
        assert abs(np.corrcoef(files[order] // window, np.arange(len(order)))[0, 1]) < 5 / np.sqrt(count)
        orders.append(np.argsort(order))
    assert abs(np.corrcoef(orders[0], orders[1])[0, 1]) < 5 / np.sqrt(count)
    np.testing.assert_array_equal(np.sort(order_in_windows(files, 1000, 0)[0]), np.arange(len(files)))


def test_a_dataset_travels_to_other_processes(bucket, shard_dir, tmp_path):
    dataset = shards.open_split(bucket, "test", cache_dir=tmp_path)
    dataset.epoch_order(0)
    assert_same(shards.open_split(shard_dir, "test"), pickle.loads(pickle.dumps(dataset)))


def test_many_that_want_one_file_fetch_it_once(bucket, tmp_path, monkeypatch):
    fetched = []
    memory = fsspec.filesystem("memory")
    genuine = type(memory).get_file

    def get_slowly(self: Any, remote: str, local: str, **settings: Any) -> None:
        fetched.append(remote)
        time.sleep(0.05)
        genuine(self, remote, local, **settings)

    dataset = shards.open_split(bucket, "train", cache_dir=tmp_path)
    monkeypatch.setattr(type(memory), "get_file", get_slowly)
    threads = [threading.Thread(target=dataset._remote_files.open, args=(0,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1


# what can be wrong


def test_torn_and_altered_files_are_named(bucket, tmp_path):
    memory = fsspec.filesystem("memory")
    name = f"{bucket}/train/train-00000-of-00002.tfrecord"
    content = memory.cat_file(name)
    dataset = shards.open_split(bucket, "train", cache_dir=tmp_path)
    memory.pipe_file(name, content[:-100])
    with pytest.raises(ShardError, match=r"train-00000-of-00002.tfrecord is torn or corrupt: it has .* bytes"):
        dataset[0]
    memory.pipe_file(name, content[:500] + bytes([content[500] ^ 1]) + content[501:])
    with pytest.raises(ShardError, match=r"is torn or corrupt: .*record 0"):
        dataset[0]
    assert not held(tmp_path)
    assert not list(tmp_path.rglob(".tmp-*"))
    memory.pipe_file(name, content)
    assert dataset[0].images.any()
    memory.pipe_file(name.replace(".tfrecord", ".index.parquet"), b"PAR1 and no more")
    with pytest.raises(ShardError, match=r"index\.parquet is torn"):
        shards.open_split(bucket, "train", cache_dir=tmp_path / "other")


def test_a_hiccup_of_the_network_is_tried_again(bucket, tmp_path, monkeypatch):
    dataset = shards.open_split(bucket, "train", cache_dir=tmp_path)
    memory = fsspec.filesystem("memory")
    genuine, failures = type(memory).get_file, iter([ConnectionResetError("gone"), TimeoutError()])

    def fail_twice(self: Any, *names: str, **settings: Any) -> None:
        for error in failures:
            raise error
        genuine(self, *names, **settings)

    monkeypatch.setattr(type(memory), "get_file", fail_twice)
    assert dataset[0].images.any()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://nowhere/shards", "there is no memory://nowhere/shards/manifest.json"),
        ("http://127.0.0.1:9/shards", "cannot be fetched: .*check the address, the network"),
        ("nonsense://bucket/shards", "Protocol not known: nonsense"),
    ],
)
def test_what_cannot_be_reached_is_told_in_a_line(url, message, tmp_path):
    with pytest.raises(ShardError, match=message) as caught:
        shards.load_datasets(url, cache_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_an_address_that_is_missing_on_a_web_server(server, tmp_path):
    with pytest.raises(ShardError, match=r"there is no .*/elsewhere/manifest.json"):
        shards.load_datasets(f"{server}/elsewhere", cache_dir=tmp_path)


@pytest.mark.parametrize("size", [0, -1, float("nan"), float("inf"), 1e-6])
def test_a_cache_of_no_use_is_refused(bucket, tmp_path, size):
    with pytest.raises(SettingError, match="cache_gb"):
        shards.load_datasets(bucket, cache_dir=tmp_path, cache_gb=size)


def test_the_cache_is_where_the_environment_says(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOOBOT_CACHE_DIR", str(tmp_path / "there"))
    monkeypatch.setenv("ZOOBOT_CACHE_GB", "a lot")
    with pytest.raises(SettingError, match="ZOOBOT_CACHE_GB"):
        shards.load_datasets(bucket)
    monkeypatch.setenv("ZOOBOT_CACHE_GB", "0.5")
    assert shards.open_split(bucket, "test")[0].images.any()
    assert held(tmp_path / "there")


def test_the_longest_unused_file_goes_first(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(5):
        (source / f"{number}.tfrecord").write_bytes(bytes(1000))
    cache = tmp_path / "cache"
    names = [f"{number}.tfrecord" for number in range(5)]
    files = remote_files.RemoteFiles(
        f"file://{source}", cache, names, [1000] * 5, lambda *_: None, limit=3500, cache_dir=cache
    )
    for number, used in ((0, 30), (1, 10), (2, 20)):
        os.utime(files.open(number), (used, used))
    files.open(3)
    assert [path.name for path in held(cache)] == ["0.tfrecord", "2.tfrecord", "3.tfrecord"]
    shutil.rmtree(source)
    assert files.open(0).exists()
