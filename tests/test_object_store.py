"""Images and shards in an object store of Amazon's kind, emulated: the same as on disk, by Ray's workers too."""

import fsspec
import pandas as pd
import pytest
import torch

from zoobot.data import shards
from zoobot.data.datasets import describe_dataset
from zoobot.predictions.predict_on_images import predict


@pytest.fixture(scope="module")
def store():
    """An empty object store, and the variables by which all processes find it."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
        filesystem.mkdir("galaxies")
        yield filesystem
    server.stop()


@pytest.mark.slow
def test_shards_are_read(store, shard_dir, tmp_path):
    store.put(str(shard_dir), "galaxies/shards", recursive=True)
    there = shards.load_datasets("s3://galaxies/shards", cache_dir=tmp_path)
    for here, dataset in zip(shards.load_datasets(shard_dir), there, strict=True):
        assert describe_dataset(here) == describe_dataset(dataset)
        everything = range(len(here))
        assert torch.equal(here.__getitems__(everything).images, dataset.__getitems__(everything).images)


@pytest.mark.slow
def test_images_are_predicted_as_from_disk_by_workers_of_ray_too(store, catalog, model_dir, tmp_path):
    ray = pytest.importorskip("ray")
    store.put(str(catalog.parent / "images"), "galaxies/images", recursive=True)
    table = pd.read_csv(catalog)[["id_str", "file_loc"]]
    table.to_csv(catalog.parent / "here.csv", index=False)
    table.assign(file_loc="s3://galaxies/" + table["file_loc"]).to_csv(tmp_path / "there.csv", index=False)
    settings = {"checkpoint_dir": model_dir, "batch_size": 8, "galaxies_per_part": 8}
    ways = {
        "disk": {"catalog": catalog.parent / "here.csv"},
        "store": {"catalog": tmp_path / "there.csv"},
        "ray": {"catalog": tmp_path / "there.csv", "engine": "ray", "cores_per_worker": torch.get_num_threads()},
    }
    # begun here, where the variables are set
    ray.init("local", num_cpus=torch.get_num_threads(), num_gpus=0, include_dashboard=False, log_to_driver=False)
    try:
        for name, way in ways.items():
            done = predict(**settings, **way, save_loc=tmp_path / f"{name}.parquet")
            assert (done.galaxies, done.failed) == (40, 0)
    finally:
        ray.shutdown()
    on_disk, in_store, by_ray = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ways)
    pd.testing.assert_frame_equal(in_store.drop(columns="file_loc"), on_disk.drop(columns="file_loc"), check_exact=True)
    pd.testing.assert_frame_equal(by_ray, in_store, check_exact=True)
